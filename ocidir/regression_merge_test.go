// SPDX-License-Identifier: Apache-2.0

package ocidir

// Stories of other tools that write to a directory in use.

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-oci/registry"
)

// TestMergeOverPushWithoutEffect: a push changes nothing but the journal, and another tool writes.
func TestMergeOverPushWithoutEffect(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	pushManifest(t, s, "a", "A", "v1")
	s.Fold(bg)
	pushManifest(t, s, "a", "A", "v1") // again: journalled
	o := &otherTool{dir: filepath.Join(dir, "a")}
	o.read(t)
	o.tag("C", "v1")
	o.write()
	before := describeTags(s, "a")
	t.Log("reader FS:", describeTags(FS(os.DirFS(dir)), "a"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat(filepath.Join(dir, "a", journalFile))
	t.Log("journal after Close:", err)
	s = openStore(t, dir)
	defer s.Close()
	if after := describeTags(s, "a"); after != before {
		t.Errorf("before Close %q, after reopening %q", before, after)
	}
}

// TestMergeKeepsRepushedManifest: a deleted manifest is pushed again before a tool writes what it read before.
func TestMergeKeepsRepushedManifest(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	d := pushManifest(t, s, "a", "D", "D")
	pushManifest(t, s, "a", "keep", "keep")
	s.Fold(bg)
	o := &otherTool{dir: filepath.Join(dir, "a")}
	o.read(t) // V1
	if err := s.DeleteManifest(bg, "a", d); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		pushManifest(t, s, "a", fmt.Sprint("e", i), fmt.Sprint("e", i))
	}
	s.Fold(bg)                        // V2: removes the file of d
	pushManifest(t, s, "a", "D", "D") // pending
	o.tag("X", "x")
	o.write()
	t.Log(describeTags(s, "a"))
	if _, err := s.GetTag(bg, "a", "D"); err != nil {
		t.Errorf("tag D after merge: %v", err)
	}
	s.Fold(bg)
	if _, err := s.GetManifest(bg, "a", d); err != nil {
		t.Errorf("manifest D after fold: %v", err)
	}
}

// TestMergeKeepsHealedManifest: a missing manifest is pushed again before a tool writes.
func TestMergeKeepsHealedManifest(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	d := pushManifest(t, s, "a", "D", "d")
	pushManifest(t, s, "a", "keep", "keep")
	s.Fold(bg)
	os.Remove(filepath.Join(dir, "a", "blobs/sha256", d.Encoded()))
	pushManifest(t, s, "a", "D", "d")
	if _, err := s.GetManifest(bg, "a", d); err != nil {
		t.Fatal("not healed", err)
	}
	o := &otherTool{dir: filepath.Join(dir, "a")}
	o.read(t)
	o.tag("X", "x")
	o.write()
	if _, err := s.GetManifest(bg, "a", d); err != nil {
		t.Errorf("after merge: %v", err)
	}
	s.Fold(bg)
	if _, err := s.GetManifest(bg, "a", d); err != nil {
		t.Errorf("after merge and fold: %v", err)
	}
}

// TestToolMovesTagBack: a tool deletes a tag and moves another one back.
func TestToolMovesTagBack(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v")
	s.Fold(bg)
	pushManifest(t, s, "a", "B", "new")
	pushManifest(t, s, "a", "A2", "v")
	s.Fold(bg)
	s.Fold(bg)
	o := &otherTool{dir: filepath.Join(dir, "a")}
	// They have been in place for a while.
	for i := range versionsOf(s, "a") {
		v := &versionsOf(s, "a")[i]
		v.from, v.to = v.from.Add(-time.Minute), v.to.Add(-time.Minute)
	}
	o.read(t) // the newest
	o.untag("new")
	o.tag("A", "v")
	o.write()
	t.Log(describeTags(s, "a"))
	if got := describeTags(s, "a"); got != "v=A" {
		t.Errorf("the tool deleted tag new and moved v back; got %s", got)
	}
}

// TestToolDeletesTag: a tool deletes the tag that was pushed last.
func TestToolDeletesTag(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v")
	s.Fold(bg)
	pushManifest(t, s, "a", "B", "new")
	s.Fold(bg)
	o := &otherTool{dir: filepath.Join(dir, "a")}
	// They have been in place for a while.
	for i := range versionsOf(s, "a") {
		v := &versionsOf(s, "a")[i]
		v.from, v.to = v.from.Add(-time.Minute), v.to.Add(-time.Minute)
	}
	o.read(t) // the newest
	o.untag("new")
	o.write()
	if got := describeTags(s, "a"); got != "v=A" {
		t.Errorf("the tool deleted tag new; got %s", got)
	}
}

// TestVersionThatWasCurrent: a tool reads an index.json that is in place for long, and writes it later.
func TestVersionThatWasCurrent(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v")
	pushManifest(t, s, "a", "B", "w")
	s.Fold(bg) // V1 is kept with the present time
	r := s.acquireRepo("a")
	defer s.releaseRepo(r)
	r.committing.Lock()
	for i := range r.versions { // 14 minutes later
		r.versions[i].from = r.versions[i].from.Add(-14 * time.Minute)
		r.versions[i].to = r.versions[i].to.Add(-14 * time.Minute)
	}
	r.committing.Unlock()
	o := &otherTool{dir: filepath.Join(dir, "a")}
	o.read(t)
	pushManifest(t, s, "a", "P", "pushed")
	s.Fold(bg)
	r.committing.Lock()
	r.forgetVersions(time.Now().Add(2 * time.Minute)) // as lookAfter does two minutes later
	t.Log(len(r.versions), "versions")
	r.committing.Unlock()
	o.tag("X", "x")
	o.write()
	if got := describeTags(s, "a"); !strings.Contains(got, "pushed=P") {
		t.Errorf("the push is lost: %s", got)
	}
}

// TestTagMovedBackInGap: a tag is moved and moved back after a tool has read a version that is forgotten.
func TestTagMovedBackInGap(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "latest")
	s.Fold(bg)
	pushManifest(t, s, "a", "other", "other")
	s.Fold(bg)
	o := &otherTool{dir: filepath.Join(dir, "a")}
	pushManifest(t, s, "a", "B", "latest")
	s.Fold(bg)
	o.read(t)                              // a tool begins to copy an image
	pushManifest(t, s, "a", "A", "latest") // a client moves latest back
	s.Fold(bg)
	for i := range 40 { // others push
		pushManifest(t, s, "a", fmt.Sprint(i), fmt.Sprint("n", i))
		s.Fold(bg)
		time.Sleep(time.Duration(i) * time.Millisecond)
	}
	o.tag("X", "x")
	o.write()
	m, err := s.GetTag(bg, "a", "latest")
	if string(m.Content) != "A" {
		t.Errorf("latest=%s %v", m.Content, err)
	}
}

// TestPushLongAfterMerge: a repository is used again long after a merge.
func TestPushLongAfterMerge(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v1")
	s.Fold(bg)
	pushManifest(t, s, "a", "A", "v1") // again: journalled
	o := &otherTool{dir: dir + "/a"}
	o.read(t)
	o.tag("C", "other")
	o.write()
	t.Log(describeTags(s, "a"))
	r := s.acquireRepo("a")
	r.committing.Lock()
	for i := range r.versions {
		r.versions[i].from, r.versions[i].to = r.versions[i].from.Add(-time.Hour), r.versions[i].to.Add(-time.Hour)
	}
	r.committing.Unlock()
	r.lookAfter() // its timer, 15 minutes later
	s.releaseRepo(r)
	s.mu.Lock()
	t.Log(len(s.repos), "repositories in use")
	s.mu.Unlock()
	_, err := registry.PushManifest(bg, s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte("new"), Sparse: true, Tags: []string{"new"}})
	if err != nil {
		t.Errorf("push: %v", err)
	}
}

// TestCrashAfterMerge: the process crashes after a merge was served.
func TestCrashAfterMerge(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v1")
	s.Fold(bg)
	o := &otherTool{dir: dir + "/a"}
	o.read(t)
	pushManifest(t, s, "a", "P", "pushed")
	s.Fold(bg)
	o.tag("X", "x")
	o.write()
	r := s.acquireRepo("a")
	defer s.releaseRepo(r)
	r.folding.Lock() // the fold at once waits
	t.Log("served:", describeTags(s, "a"))
	two := t.TempDir()
	os.CopyFS(two, os.DirFS(dir))
	os.Remove(two + "/" + openFile)
	r.folding.Unlock()
	s2 := openStore(t, two)
	defer s2.Close()
	if got := describeTags(s2, "a"); !strings.Contains(got, "pushed=P") {
		t.Errorf("after a crash: %s", got)
	}
}

// TestDamagedIndexIsLoggedOnce: clients read a repository whose index.json is damaged.
func TestDamagedIndexIsLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	pushManifest(t, s, "a", "keep", "keep")
	s.Close()
	var log strings.Builder
	s, _ = Open(dir, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	defer s.Close()
	describeTags(s, "a")
	os.WriteFile(filepath.Join(dir, "a/index.json"), []byte("{"), 0o666)
	for range 5 {
		describeTags(s, "a")
	}
	if n := strings.Count(log.String(), "can't be read"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestJournalIsRemoved: somebody removes a journal.
func TestJournalIsRemoved(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "A", "v0")
	s.Fold(bg)
	pushManifest(t, s, "a", "B", "v1")
	os.Remove(dir + "/a/" + journalFile)
	var err error
	for range 2 { // the first finds it missing
		_, err = registry.PushManifest(bg, s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte("C"), Sparse: true, Tags: []string{"c"}})
	}
	if got := describeTags(s, "a"); err != nil || got != "c=C v0=A v1=B" {
		t.Errorf("%s, %v", got, err)
	}
}

// TestLinkedRepository: a repository's folder is a link to another one.
func TestLinkedRepository(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	pushManifest(t, s, "a", "A", "v0")
	s.Fold(bg)
	os.Symlink("a", dir+"/b")
	acked := map[string]bool{}
	try := func(repo, text string) {
		_, err := registry.PushManifest(bg, s, repo, registry.ManifestPush{MediaType: "text/plain", Content: []byte(text), Sparse: true, Tags: []string{text}})
		t.Log(repo, text, err)
		if err == nil {
			acked[text] = true
		}
	}
	for i := range 3 {
		try("a", fmt.Sprint("a", i))
		try("b", fmt.Sprint("b", i))
	}
	two := t.TempDir()
	os.CopyFS(two, os.DirFS(dir))
	os.Remove(two + "/" + openFile)
	defer s.Close()
	s = openStore(t, two)
	defer s.Close()
	for text := range acked {
		if _, err := s.GetTag(bg, "a", text); err != nil {
			t.Errorf("%s was acknowledged: %v", text, err)
		}
	}
}
