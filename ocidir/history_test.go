// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// describeAll returns everything that clients can see of the repositories.
func describeAll(s registry.Store, repos, subjects []string) string {
	var b strings.Builder
	for r, err := range s.Repositories(bg, "") {
		fmt.Fprintf(&b, "repo %s %v\n", r, err)
	}
	for _, repo := range repos {
		b.WriteString("== " + repo + "\n")
		for tag, err := range s.Tags(bg, repo, "") {
			m, err2 := s.GetTag(bg, repo, tag)
			fmt.Fprintf(&b, "tag %s=%.16s %d %v %v\n", tag, m.Digest, len(m.Content), errorText(err), errorText(err2))
		}
		for i, err := range s.Manifests(bg, repo, "") {
			m, err2 := s.GetManifest(bg, repo, i.Digest)
			fmt.Fprintf(&b, "manifest %.16s %d %d %s %v %v\n", i.Digest, i.Size, len(m.Content), m.MediaType, errorText(err), errorText(err2))
		}
		for _, sub := range subjects {
			for r, err := range s.Referrers(bg, repo, digest.FromString(sub), "") {
				fmt.Fprintf(&b, "  referrer %.16s of %.16s %s %s %v\n", r.Digest, digest.FromString(sub), r.ArtifactType, r.Descriptor, errorText(err))
			}
		}
		for i, err := range s.Blobs(bg, repo, "") {
			fmt.Fprintf(&b, "blob %.16s %d %v %d\n", i.Digest, i.Size, errorText(err), len(blobText(s, repo, i.Digest)))
		}
	}
	return b.String()
}

// errorText returns the text of an error that clients can tell from others.
func errorText(err error) string {
	for _, e := range []error{registry.ErrNameUnknown, registry.ErrManifestUnknown, registry.ErrBlobUnknown, registry.ErrManifestInvalid} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return fmt.Sprint(err)
}

var (
	histories   = flag.Int("histories", 10, "the number of random histories")
	historySeed = flag.Int64("history-seed", 0, "the seed of the first history (default: the time)")
)

// TestHistories makes random changes to a directory, with folds that take their time,
// crashes, restarts and other readers, and compares what clients see with a MemStore
// after each change.
func TestHistories(t *testing.T) {
	NoFolds(t)
	first := *historySeed
	if first == 0 {
		first = time.Now().UnixNano()
	}
	for i := range *histories {
		if !runHistory(t, first+int64(i)) {
			return
		}
	}
}

// runHistory makes one history, and reports whether it went well.
func runHistory(t *testing.T, seed int64) bool {
	rnd := rand.New(rand.NewSource(seed))
	dir := t.TempDir()
	s := openStore(t, dir)
	fsr := FS(os.DirFS(dir))
	model := &registry.MemStore{}
	repos := []string{"a", "a/b", "c"}
	children := seed%2 == 0
	var texts []string
	for i := range 4 {
		texts = append(texts, fmt.Sprint("text", i))
	}
	subjects := append([]string{}, texts...)
	for i := range 4 {
		texts = append(texts, imageWith(digest.FromString(texts[i%2]), fmt.Sprint("n", i)))
	}
	subjects = append(subjects, texts[4:6]...)
	texts = append(texts, imageWith(digest.FromString(texts[4]), "deep"))
	if children {
		texts = append(texts, indexOf(texts[4], texts[5]), indexOf(texts[6]))
	}
	var log []string
	note := func(f string, args ...any) { log = append(log, fmt.Sprintf(f, args...)) }
	type pendingFold struct {
		r *repo
		f *fold
		e error
		w bool
	}
	var pf *pendingFold
	endFold := func() {
		if pf == nil {
			return
		}
		if !pf.w {
			pf.e = pf.f.write()
		}
		if err := pf.r.endBackground(pf.f, pf.e); err != nil {
			t.Errorf("endFold: %v", err)
		}
		s.releaseRepo(pf.r)
		pf = nil
	}
	fail := func(what, want, got string) bool {
		t.Errorf("seed %d: %s\nhistory:\n%s\nwant\n%s\ngot\n%s", seed, what, strings.Join(log, "\n"), want, got)
		endFold()
		s.Close()
		return false
	}
	for range 60 {
		repo := repos[rnd.Intn(len(repos))]
		text := texts[rnd.Intn(len(texts))]
		d := digest.FromString(text)
		tag := fmt.Sprint("t", rnd.Intn(3))
		var do func(s registry.Store) error
		switch k := rnd.Intn(24); {
		case k < 6:
			var tags []string
			if rnd.Intn(3) > 0 {
				tags = []string{tag}
			}
			p := registry.ManifestPush{Content: []byte(text), Tags: tags, Sparse: true}
			if text[0] != '{' {
				p.MediaType = "text/plain"
			}
			note("push %s %.20s %.12s %v", repo, text, d[7:], tags)
			do = func(s registry.Store) error { _, err := registry.PushManifest(bg, s, repo, p); return err }
		case k < 8:
			note("deleteManifest %s %.12s", repo, d[7:])
			do = func(s registry.Store) error { return s.DeleteManifest(bg, repo, d) }
		case k < 9:
			note("untag %s %s", repo, tag)
			do = func(s registry.Store) error { return s.DeleteTag(bg, repo, tag, nil) }
		case k < 12:
			note("blob %s %.12s", repo, d[7:])
			do = func(s registry.Store) error { return registry.PushBlob(bg, s, repo, d, strings.NewReader(text)) }
		case k < 14:
			note("deleteBlob %s %.12s", repo, d[7:])
			do = func(s registry.Store) error { return s.DeleteBlob(bg, repo, d) }
		case k < 15:
			from := repos[rnd.Intn(len(repos))]
			note("mount %s from %s %.12s", repo, from, d[7:])
			do = func(s registry.Store) error { return s.MountBlob(bg, repo, from, d) }
		case k < 17 && pf == nil:
			note("fold")
			if err := s.Fold(bg); err != nil {
				return fail("fold", "", err.Error())
			}
		case k < 20:
			if pf != nil && !pf.w && rnd.Intn(2) == 0 {
				note("write")
				pf.w, pf.e = true, pf.f.write()
			} else if pf != nil {
				note("endFold")
				endFold()
			} else if _, err := s.files.Stat(repoDir(repo) + "/index.json"); err == nil {
				note("beginFold %s", repo)
				r := s.acquireRepo(repo)
				f, err := r.startBackground()
				if f == nil {
					s.releaseRepo(r)
					if err != nil {
						return fail("beginFold", "", err.Error())
					}
				} else {
					pf = &pendingFold{r: r, f: f}
				}
			}
		case k < 21: // restart
			note("restart")
			endFold()
			if err := s.Close(); err != nil {
				return fail("close", "", err.Error())
			}
			filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error {
				if strings.HasSuffix(p, journalFile) {
					t.Errorf("journal after Close: %s", p)
				}
				return nil
			})
			s = openStore(t, dir)
		case k < 23: // crash, in the midst of a fold too
			note("crash")
			two := t.TempDir()
			os.CopyFS(two, os.DirFS(dir))
			os.Remove(filepath.Join(two, openFile))
			endFold()
			s.Close()
			dir = two
			s = openStore(t, dir)
			fsr = FS(os.DirFS(dir))
		default: // forget what is in memory
			note("evict")
			s.cacheMu.Lock()
			for name, l := range s.cache {
				if !l.dirty {
					delete(s.cache, name)
				}
			}
			s.cacheMu.Unlock()
		}
		if do != nil {
			want, got := errorText(do(model)), errorText(do(s))
			if want != got {
				return fail("error of "+log[len(log)-1], want, got)
			}
		}
		want := describeAll(model, repos, subjects)
		if got := describeAll(s, repos, subjects); got != want {
			return fail("state", want, got)
		}
		if got := describeAll(fsr, repos, subjects); got != want {
			return fail("FS state", want, got)
		}
	}
	endFold()
	if err := s.Close(); err != nil {
		return fail("close", "", err.Error())
	}
	return true
}
