// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// The tests of this file are stories of what once went wrong.

var bg = context.Background()

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pushManifest(t *testing.T, s registry.Store, repo, text string, tags ...string) digest.Digest {
	t.Helper()
	m, err := registry.PushManifest(bg, s, repo, registry.ManifestPush{MediaType: "text/plain", Content: []byte(text), Tags: tags, Sparse: true})
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

func pushBlobText(t *testing.T, s registry.Store, repo, text string) digest.Digest {
	t.Helper()
	d := digest.FromString(text)
	if err := registry.PushBlob(bg, s, repo, d, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return d
}

func blobText(s registry.Store, repo string, d digest.Digest) string {
	r, err := s.OpenBlob(bg, repo, d)
	if err != nil {
		return "ERR " + err.Error()
	}
	defer r.Close()
	b, _ := io.ReadAll(r)
	return string(b)
}

func describe(s registry.Store, repo string) string {
	var b strings.Builder
	for tag, err := range s.Tags(bg, repo, "") {
		m, err2 := s.GetTag(bg, repo, tag)
		fmt.Fprintf(&b, "tag %s=%q %v %v\n", tag, m.Content, err, err2)
	}
	for i, err := range s.Manifests(bg, repo, "") {
		m, err2 := s.GetManifest(bg, repo, i.Digest)
		fmt.Fprintf(&b, "manifest %.16s %q %v %v\n", i.Digest, m.Content, err, err2)
		for r, err := range s.Referrers(bg, repo, i.Digest, "") {
			fmt.Fprintf(&b, "  referrer %.16s %v\n", r.Digest, err)
		}
	}
	for i, err := range s.Blobs(bg, repo, "") {
		fmt.Fprintf(&b, "blob %.16s %d %v\n", i.Digest, i.Size, err)
	}
	return b.String()
}

func describeTags(s registry.Store, repo string) string {
	var out []string
	for tag := range s.Tags(bg, repo, "") {
		m, err := s.GetTag(bg, repo, tag)
		if err != nil {
			out = append(out, tag+"=!"+err.Error())
			continue
		}
		out = append(out, tag+"="+string(m.Content))
	}
	return strings.Join(out, " ")
}

// versionsOf returns the versions of a repository's index.json.
func versionsOf(s *Store, repo string) []version {
	r := s.acquireRepo(repo)
	defer s.releaseRepo(r)
	r.committing.Lock()
	defer r.committing.Unlock()
	return r.versions
}

type otherTool struct {
	dir   string
	index ocispec.Index
}

func (o *otherTool) read(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(o.dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	o.index = ocispec.Index{}
	if err := json.Unmarshal(data, &o.index); err != nil {
		t.Fatal(err)
	}
}

func (o *otherTool) untag(tag string) {
	var keep []ocispec.Descriptor
	for _, d := range o.index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != tag {
			keep = append(keep, d)
		}
	}
	o.index.Manifests = keep
}

func (o *otherTool) tag(text, tag string) {
	o.untag(tag)
	d := digest.FromString(text)
	os.WriteFile(filepath.Join(o.dir, "blobs/sha256", d.Encoded()), []byte(text), 0o666)
	o.index.Manifests = append(o.index.Manifests, ocispec.Descriptor{MediaType: "text/plain", Digest: d, Size: int64(len(text)),
		Annotations: map[string]string{ocispec.AnnotationRefName: tag}})
}

func (o *otherTool) write() {
	data, _ := json.Marshal(o.index)
	os.WriteFile(filepath.Join(o.dir, "index.json"), data, 0o666)
}

// TestSupersededFoldLeavesNoBlob: a fold still writes the file of a manifest while another one deletes it.
func TestSupersededFoldLeavesNoBlob(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	b := pushBlobText(t, s, "a", "blob")
	d := pushManifest(t, s, "a", "D", "d")
	// A fold in the background, as fold does it.
	r := s.acquireRepo("a")
	f, err := r.startBackground()
	if f == nil {
		t.Fatal(err)
	}
	if err := s.DeleteManifest(bg, "a", d); err != nil { // the last: folds at once
		t.Fatal(err)
	}
	t.Log(r.endBackground(f, f.write()))
	s.releaseRepo(r)
	if got := blobText(s, "a", d); got == "D" {
		t.Errorf("the deleted manifest is a blob: %q", got)
	}
	s.DeleteBlob(bg, "a", b)
	for name := range s.Repositories(bg, "") {
		t.Errorf("still there: %s: %s", name, describe(s, name))
	}
}

// TestRepositoryRemovedDuringFold: a repository becomes empty while a fold writes its files.
func TestRepositoryRemovedDuringFold(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "keep", "keep")
	d := pushManifest(t, s, "a", "D", "d")
	r := s.acquireRepo("a")
	f, err := r.startBackground()
	if f == nil {
		t.Fatal(err)
	}
	s.DeleteManifest(bg, "a", digest.FromString("keep"))
	s.DeleteManifest(bg, "a", d)
	if err := r.endBackground(f, f.write()); err != nil {
		t.Error(err)
	}
	s.releaseRepo(r)
	filepath.Walk(filepath.Join(dir, "a"), func(p string, _ os.FileInfo, _ error) error { t.Log("left:", p); return nil })
	pushManifest(t, s, "a", "other", "other")
	t.Log(describe(s, "a"))
	if got := blobText(s, "a", d); got == "D" {
		t.Errorf("the deleted manifest is a blob: %q", got)
	}
}

// TestListAfterTwoCrashes: a process crashes while it folds what another one left.
func TestListAfterTwoCrashes(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	subject := pushManifest(t, s, "a", "S", "s")
	s.Fold(bg)
	ref := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/y","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":"text/plain","digest":%q,"size":1}}`, subject)
	if _, err := registry.PushManifest(bg, s, "a", registry.ManifestPush{Content: []byte(ref), Sparse: true}); err != nil {
		t.Fatal(err)
	}
	want := describe(s, "a")
	two := t.TempDir() // first crash
	os.CopyFS(two, os.DirFS(dir))
	os.Remove(filepath.Join(two, openFile))
	s.Close()
	s2 := openStore(t, two)
	r := s2.acquireRepo("a")
	r.committing.Lock()
	f, err := r.beginFold()
	if f == nil {
		t.Fatal(err)
	}
	if err := f.write(); err != nil {
		t.Fatal(err)
	}
	three := t.TempDir() // second crash, before index.json is in place
	os.CopyFS(three, os.DirFS(two))
	os.Remove(filepath.Join(three, openFile))
	r.committing.Unlock()
	s3 := openStore(t, three)
	defer s3.Close()
	s3.Fold(bg)
	if got := describe(s3, "a"); got != want {
		t.Errorf("before\n%s\nafter\n%s", want, got)
	}
	s2.Close()
}

func indexOf(children ...string) string {
	var ds []ocispec.Descriptor
	for _, c := range children {
		ds = append(ds, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(c), Size: int64(len(c))})
	}
	b, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageIndex, "manifests": ds})
	return string(b)
}

func imageWith(subject digest.Digest, note string) string {
	sub := ""
	if subject != "" {
		sub = fmt.Sprintf(`,"subject":{"mediaType":"text/plain","digest":%q,"size":1}`, subject)
	}
	return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"x/` + note + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]` + sub + `}`
}

// pushSparse pushes a manifest whose children need not exist.
func pushSparse(t *testing.T, s *Store, text string, tags ...string) digest.Digest {
	t.Helper()
	m, err := registry.PushManifest(bg, s, "a", registry.ManifestPush{Content: []byte(text), Sparse: true, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

// TestDeletedChild: the child of an index is deleted.
func TestDeletedChild(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	subject := pushManifest(t, s, "a", "S", "s")
	child := imageWith(subject, "child")
	c := pushSparse(t, s, child)
	pushSparse(t, s, indexOf(child), "index")
	s.Fold(bg)
	if err := s.DeleteManifest(bg, "a", c); err != nil {
		t.Fatal(err)
	}
	s.Fold(bg)
	before := describe(s, "a")
	s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if after := describe(s, "a"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	pushManifest(t, s, "a", "again", "again")
	s.Fold(bg)
	data, _ := os.ReadFile(filepath.Join(dir, "a/index.json"))
	if strings.Contains(string(data), string(c)) {
		_, err := os.Stat(filepath.Join(dir, "a/blobs/sha256", c.Encoded()))
		t.Errorf("index.json names %s, whose file: %v", c, err)
	}
}

// TestDeletedChildAfterCrash: the child of an index is deleted, and the process crashes before its file is removed.
func TestDeletedChildAfterCrash(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	child := imageWith("", "child")
	c := pushSparse(t, s, child)
	pushSparse(t, s, indexOf(child), "index")
	s.Fold(bg)
	s.DeleteManifest(bg, "a", c)
	want := describe(s, "a")
	r := s.acquireRepo("a")
	defer s.releaseRepo(r)
	r.committing.Lock()
	defer r.committing.Unlock()
	f, err := r.beginFold()
	if f == nil {
		t.Fatal(err)
	}
	f.write()
	line, _ := appendLine(nil, batch{Fold: &foldMark{f.hash, f.batches}})
	r.journal.append(line)
	f.putInPlace()
	two := t.TempDir() // crash
	os.CopyFS(two, os.DirFS(dir))
	os.Remove(filepath.Join(two, openFile))
	s2 := openStore(t, two)
	defer s2.Close()
	if got := describe(s2, "a"); got != want {
		t.Errorf("before\n%s\nafter\n%s", want, got)
	}
}

// TestCloseAfterOpen: a store is closed as soon as it was opened after a crash.
func TestCloseAfterOpen(t *testing.T) {
	dir := t.TempDir()
	func() {
		NoFolds(t)
		s := openStore(t, dir)
		pushManifest(t, s, "a", "A", "a")
		s.Fold(bg)
		pushManifest(t, s, "a", "B", "b")
		two := t.TempDir()
		os.CopyFS(two, os.DirFS(dir))
		s.Close()
		dir = two
	}()
	if _, err := os.Stat(filepath.Join(dir, openFile)); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err1 := os.Stat(filepath.Join(dir, openFile))
	if _, err := os.Stat(filepath.Join(dir, "a", journalFile)); err == nil {
		t.Errorf("there is a journal after Close; .berth/open: %v", err1)
	}
}

// TestFailureOfRemovedRepository: a repository whose fold has failed is removed.
func TestFailureOfRemovedRepository(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushBlobText(t, s, "a", "blob")
	os.RemoveAll(filepath.Join(dir, "a/blobs/sha256"))
	os.WriteFile(filepath.Join(dir, "a/blobs/sha256"), nil, 0o666) // an obstacle
	pushManifest(t, s, "a", "A", "a")
	t.Log("fold:", s.Fold(bg))
	t.Log("ready:", s.Ready(bg))
	os.RemoveAll(filepath.Join(dir, "a"))
	t.Log("fold:", s.Fold(bg))
	if err := s.Ready(bg); err != nil {
		t.Errorf("the repository is gone, but: %v", err)
	}
	for name := range s.Repositories(bg, "") {
		t.Log("repo", name)
	}
}

// TestMountOfIntactFile: a mount finds a damaged file in the pool.
func TestMountOfIntactFile(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	d := pushBlobText(t, s, "b", "good bytes")
	pushBlobText(t, s, "a", "something")
	os.WriteFile(filepath.Join(dir, "a/blobs/sha256", d.Encoded()), []byte("good bytes"), 0o666) // by skopeo
	os.WriteFile(filepath.Join(dir, "b/blobs/sha256", d.Encoded()), []byte("BAD! bytes"), 0o666) // the disk
	if got := blobText(s, "a", d); got != "good bytes" {
		t.Fatal(got)
	}
	if err := s.MountBlob(bg, "c", "a", d); err != nil {
		t.Fatal(err)
	}
	if got := blobText(s, "c", d); got != "good bytes" {
		t.Errorf("mounted from a: %q", got)
	}
}

// TestCacheIsCompacted: many manifests are pushed and deleted.
func TestCacheIsCompacted(t *testing.T) {
	NoFolds(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	defer s.Close()
	pushManifest(t, s, "a", "keep", "keep")
	for i := range 15 {
		for j := range 100 {
			pushManifest(t, s, "a", fmt.Sprint(i, " ", j))
		}
		s.Fold(bg)
		for j := range 100 {
			s.DeleteManifest(bg, "a", digest.FromString(fmt.Sprint(i, " ", j)))
		}
		s.Fold(bg)
	}
	data, _ := os.ReadFile(filepath.Join(dir, "a", factsFile))
	if lines := strings.Count(string(data), "\n"); lines > 1300 {
		t.Errorf("%d lines for one manifest", lines)
	}
	want := describe(s, "a")
	s.Close()
	s = openStore(t, dir)
	if got := describe(s, "a"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestHealBesideUnreadableRepository: one of the repositories that share a damaged file can't be read.
func TestHealBesideUnreadableRepository(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	d := pushBlobText(t, s, "a", "good bytes")
	pushBlobText(t, s, "b", "good bytes")
	s.Close()
	os.WriteFile(filepath.Join(dir, "b/index.json"), []byte("rubbish"), 0o666)
	old := time.Now().Add(-time.Hour)
	os.Chtimes(filepath.Join(dir, "b/index.json"), old, old)
	os.WriteFile(filepath.Join(dir, "a/blobs/sha256", d.Encoded()), []byte("BAD! bytes"), 0o666)
	s = openStore(t, dir)
	defer s.Close()
	for _, repo := range []string{"a", "c"} {
		if err := registry.PushBlob(bg, s, repo, d, strings.NewReader("good bytes")); err != nil {
			t.Errorf("push to %s: %v", repo, err)
		}
		t.Log(repo, blobText(s, repo, d))
	}
}

// TestBlobNamedByIndex: a blob is pushed that an index names as a manifest.
func TestBlobNamedByIndex(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	child := imageWith("", "child")
	if _, err := registry.PushManifest(bg, s, "a", registry.ManifestPush{Content: []byte(indexOf(child)), Sparse: true, Tags: []string{"i"}}); err != nil {
		t.Fatal(err)
	}
	d := pushBlobText(t, s, "a", child)
	s.Close()
	s = openStore(t, dir)
	defer s.Close()
	if got := blobText(s, "a", d); got != child {
		t.Errorf("the blob after a restart: %s", got)
	}
}

// TestSignaturesAreNotDamage: the payload of a signed manifest is pushed as a blob.
func TestSignaturesAreNotDamage(t *testing.T) {
	NoFolds(t)
	payload := "{\n   \"schemaVersion\": 1,\n   \"fsLayers\": []\n}"
	length := len(payload) - len("\n}")
	signed := func(who string) string {
		protected := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"formatLength":%d,"formatTail":%q,"who":%q}`, length, base64.RawURLEncoding.EncodeToString([]byte("\n}")), who))
		return payload[:length] + ",\n   \"signatures\": [\n {\"protected\": \"" + protected + "\"}]\n}"
	}
	s := openStore(t, t.TempDir())
	defer s.Close()
	put := func(repo, content string) {
		if _, err := registry.PushManifest(bg, s, repo, registry.ManifestPush{MediaType: "application/vnd.docker.distribution.manifest.v1+prettyjws", Content: []byte(content), Sparse: true, Tags: []string{"v"}}); err != nil {
			t.Fatal(err)
		}
	}
	put("victim", signed("victim"))
	put("attacker", signed("attacker"))
	s.Fold(bg)
	d := digest.FromString(payload)
	t.Log(registry.PushBlob(bg, s, "attacker", d, strings.NewReader(payload)))
	for repo, who := range map[string]string{"victim": "victim", "attacker": "attacker"} {
		m, err := s.GetTag(bg, repo, "v")
		if string(m.Content) != signed(who) {
			t.Errorf("%s: %v %s", repo, err, m.Content)
		}
	}
}

// TestDeletesDuringFolds: manifests are deleted while folds go on.
func TestDeletesDuringFolds(t *testing.T) {
	idle, age := foldIdle, foldAge
	foldIdle, foldAge = 0, 0
	defer func() { foldIdle, foldAge = idle, age }()
	s := openStore(t, t.TempDir())
	defer s.Close()
	for i := range 10 {
		repo := fmt.Sprint("r", i)
		var ds []digest.Digest
		pushBlobText(t, s, repo, "blob")
		for j := range 6 {
			ds = append(ds, pushManifest(t, s, repo, fmt.Sprint(i, " ", j, strings.Repeat("x", 3<<20))))
		}
		for _, d := range ds {
			if err := s.DeleteManifest(bg, repo, d); err != nil {
				t.Fatal(err)
			}
		}
		pushManifest(t, s, repo, "new")
		s.Fold(bg)
		for blob, err := range s.Blobs(bg, repo, "") {
			if err != nil || blob.Size != int64(len("blob")) {
				t.Errorf("a deleted manifest is a blob: %v, %v", blob, err)
			}
		}
	}
}
