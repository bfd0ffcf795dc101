// SPDX-License-Identifier: Apache-2.0

//go:build unix

package ocidir_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

func pushBlob(t *testing.T, s registry.Store, repo, text string) digest.Digest {
	t.Helper()
	d := digest.FromString(text)
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, repo, d, strings.NewReader(text))))
	return d
}

func readBlob(t *testing.T, s registry.Store, repo string, d digest.Digest) string {
	t.Helper()
	r, err := s.OpenBlob(ctx, repo, d)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	data, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	return string(data)
}

// damages are ways in which a disk damages a file.
var damages = []struct {
	name   string
	damage func(content []byte) []byte
}{
	{"flipped", func(c []byte) []byte { c = slices.Clone(c); c[len(c)/2] ^= 1; return c }},
	{"truncated", func(c []byte) []byte { return c[:len(c)/2] }},
	{"emptied", func(c []byte) []byte { return nil }},
	{"extended", func(c []byte) []byte { return append(slices.Clone(c), 0) }},
}

// TestPushHealsBlob damages the file that three repositories share. A push to any
// repository replaces it in all, and a push elsewhere does not spread it.
func TestPushHealsBlob(t *testing.T) {
	for _, c := range damages {
		for _, to := range []string{"a", "b/c", "new"} {
			t.Run(c.name+"_"+strings.ReplaceAll(to, "/", "-"), func(t *testing.T) {
				dir := t.TempDir()
				s := open(t, dir)
				const text = "the bytes of a blob"
				for _, repo := range []string{"a", "b", "b/c"} {
					pushBlob(t, s, repo, text)
				}
				d := digest.FromString(text)
				write(t, c.damage([]byte(text)), dir, "b/blobs/sha256", d.Encoded())
				qt.Assert(t, qt.Not(qt.Equals(readBlob(t, s, "a", d), text))) // one file

				pushBlob(t, s, to, text)
				for _, repo := range []string{"a", "b", "b/c", to} {
					qt.Check(t, qt.Equals(readBlob(t, s, repo, d), text))
				}
				pushBlob(t, s, "later", text) // from the pool
				qt.Check(t, qt.Equals(readBlob(t, s, "later", d), text))
			})
		}
	}
}

// TestPushHealsManifest damages a manifest's file. It is not served; a push replaces
// it, and its tags are back.
func TestPushHealsManifest(t *testing.T) {
	for _, c := range damages {
		t.Run(c.name, func(t *testing.T) {
			ocidir.NoFolds(t)
			dir := t.TempDir()
			s := open(t, dir)
			const text = "the bytes of a manifest"
			d := pushText(t, s, "a", text, "tag")
			fold(t, dir)
			write(t, c.damage([]byte(text)), dir, "a/blobs/sha256", d.Encoded())
			_, err := s.GetTag(ctx, "a", "tag")
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
			_, err = s.GetManifest(ctx, "a", d)
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))

			pushText(t, s, "a", text)
			qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"tag=" + text}))
			crashed := open(t, crash(t, dir))
			qt.Check(t, qt.DeepEquals(tagsOf(t, crashed), []string{"tag=" + text}))
			fold(t, dir)
			qt.Check(t, qt.Equals(string(read(t, dir, "a/blobs/sha256", d.Encoded())), text))
		})
	}
}

// TestCheck verifies a directory with damaged files, and repairs it.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, _ := pushImage(t, s, "a", "v1", 1)
	pushImage(t, s, "b", "v1", 1)
	fold(t, dir)
	problems := func(s registry.Store, repair bool) (found []string) {
		t.Helper()
		var last int64
		stats, err := ocidir.Check(ctx, s, ocidir.CheckOptions{
			Repair:   repair,
			Problem:  func(p ocidir.Problem) { found = append(found, p.String()) },
			Progress: func(done, total int64) { qt.Check(t, qt.IsTrue(done >= last && done <= total)); last = done },
		})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(stats.Problems, len(found)))
		slices.Sort(found)
		return found
	}
	qt.Assert(t, qt.HasLen(problems(s, false), 0))

	// A blob that both repositories share, a manifest that has an intact copy, and
	// one that is missing.
	var blob digest.Digest
	for info, err := range s.Blobs(ctx, "a", "") {
		qt.Assert(t, qt.IsNil(err))
		blob = info.Digest
		break
	}
	shared := filepath.Join(dir, "a/blobs/sha256", blob.Encoded())
	content := read(t, shared)
	content[5] ^= 1
	write(t, content, shared)
	write(t, []byte("damaged"), dir, "a/blobs/sha256", image.Digest.Encoded())
	lost := pushText(t, s, "b", "lost", "lost")
	fold(t, dir)
	qt.Assert(t, qt.IsNil(os.Remove(filepath.Join(dir, "b/blobs/sha256", lost.Encoded()))))

	pool := ".berth/blobs/sha256/" + blob.Encoded()
	const bad = "its bytes do not have its digest"
	want := []string{
		pool + ": " + bad,
		"a/blobs/sha256/" + blob.Encoded() + ": " + bad,
		"a/blobs/sha256/" + image.Digest.Encoded() + ": " + bad,
		"b/blobs/sha256/" + blob.Encoded() + ": " + bad,
		"b/blobs/sha256/" + lost.Encoded() + ": a manifest of index.json is missing",
	}
	slices.Sort(want)
	qt.Check(t, qt.DeepEquals(problems(s, false), want))
	readOnly := problems(ocidir.FS(os.DirFS(dir)), false)
	qt.Check(t, qt.DeepEquals(readOnly, want))

	repaired := problems(s, true)
	qt.Check(t, qt.HasLen(repaired, 5))
	qt.Check(t, qt.DeepEquals(problems(s, false), []string{"b/blobs/sha256/" + lost.Encoded() + ": a manifest of index.json is missing"}))
	_, err := s.StatBlob(ctx, "a", blob) // so that a client pushes it
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))
	pushImage(t, s, "a", "v1", 1)
	pushImage(t, s, "b", "v1", 1)
	pushText(t, s, "b", "lost")
	fold(t, dir)
	qt.Check(t, qt.HasLen(problems(s, false), 0))
	wantImage(t, s, "a", "v1", 1)
	wantImage(t, s, "b", "v1", 1)
}

// TestSymbolicLinks serves a layout with links, and pushes where links wait for it:
// none leads out of the directory.
func TestSymbolicLinks(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	write(t, []byte("secret"), secret)
	d := digest.FromString("secret")
	dir := t.TempDir()
	blobs := filepath.Join(dir, "a/blobs/sha256")
	qt.Assert(t, qt.IsNil(os.MkdirAll(blobs, 0o777)))
	qt.Assert(t, qt.IsNil(os.Symlink(secret, filepath.Join(blobs, d.Encoded()))))
	pipe := digest.FromString("pipe")
	qt.Assert(t, qt.IsNil(syscall.Mkfifo(filepath.Join(blobs, pipe.Encoded()), 0o666)))
	write(t, fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":"text/plain","digest":%q,"size":6,"annotations":{"org.opencontainers.image.ref.name":"tag"}},{"mediaType":"text/plain","digest":%q,"size":6}]}`, d, pipe), dir, "a/index.json")
	qt.Assert(t, qt.IsNil(os.Symlink(outside, filepath.Join(dir, "linked"))))
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Join(dir, "b"), 0o777)))
	write(t, []byte(`{"schemaVersion":2,"manifests":[]}`), outside, "index.json")
	qt.Assert(t, qt.IsNil(os.Symlink(filepath.Join(outside, "index.json"), filepath.Join(dir, "b/index.json"))))
	for _, name := range []string{".index.json.tmp", ".index.journal", ".index.cache"} {
		qt.Assert(t, qt.IsNil(os.Symlink(secret, filepath.Join(dir, "a", name))))
	}

	s := open(t, dir)
	for _, c := range []digest.Digest{d, pipe} {
		_, err := s.OpenBlob(ctx, "a", c)
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))
		_, err = s.StatBlob(ctx, "a", c)
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))
		_, err = s.GetManifest(ctx, "a", c)
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
		qt.Check(t, qt.IsNotNil(s.MountBlob(ctx, "c", "a", c)))
	}
	qt.Check(t, qt.DeepEquals(collect(t, s), []string{"a"}))
	for _, repo := range []string{"linked", "linked/x", "b"} {
		registry.PushBlob(ctx, s, repo, digest.FromString("x"), strings.NewReader("x"))
		registry.PushManifest(ctx, s, repo, registry.ManifestPush{MediaType: "text/plain", Content: []byte("text"), Tags: []string{"tag"}})
	}
	registry.PushManifest(ctx, s, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte("text"), Tags: []string{"tag"}})
	registry.PushBlob(ctx, s, "a", d, strings.NewReader("secret"))
	s.Fold(ctx)
	s.Close()
	qt.Check(t, qt.Equals(string(read(t, secret)), "secret"))
	qt.Check(t, qt.DeepEquals(files(t, outside), []string{"index.json", "secret"}))
	qt.Check(t, qt.Equals(string(read(t, outside, "index.json")), `{"schemaVersion":2,"manifests":[]}`))
}

// TestModes pushes with two umasks: all files have the mode that it asks for.
func TestModes(t *testing.T) {
	for _, umask := range []int{0o022, 0o077} {
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		dir := t.TempDir()
		s := open(t, dir)
		pushImage(t, s, "a", "v1", 1)
		pushText(t, s, "a", "other", "other")
		qt.Assert(t, qt.IsNil(filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			info, _ := e.Info()
			want := 0o666 &^ fs.FileMode(umask)
			if e.IsDir() {
				want = 0o777 &^ fs.FileMode(umask)
			}
			if name != dir {
				qt.Check(t, qt.Equals(info.Mode().Perm(), want), qt.Commentf("%s", name))
			}
			return err
		})))
		s.Close()
		syscall.Umask(old)
	}
}

// TestLayoutInTheDirectory opens a directory that is itself a layout.
func TestLayoutInTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushImage(t, s, "a", "v1", 1)
	qt.Assert(t, qt.IsNil(s.Close()))
	_, err := ocidir.Open(filepath.Join(dir, "a"), nil)
	qt.Check(t, qt.ErrorIs(err, ocidir.ErrLayout))
	wantImage(t, ocidir.FS(os.DirFS(filepath.Join(dir, "a"))), ocidir.RootName, "v1", 1)
}

// TestUnreadableFolder lists repositories though a folder can't be read.
func TestUnreadableFolder(t *testing.T) {
	content := fstest.MapFS{
		"a/index.json":     {Data: []byte(`{"schemaVersion":2,"manifests":[]}`)},
		"bad/x/index.json": {Data: []byte(`{"schemaVersion":2,"manifests":[]}`)},
		"c/index.json":     {Data: []byte(`{"schemaVersion":2,"manifests":[]}`)},
	}
	s := ocidir.FS(failingFS{content, "bad"})
	qt.Check(t, qt.DeepEquals(collect(t, s), []string{"a", "c"}))
}

// failingFS fails to read a folder.
type failingFS struct {
	fs.FS
	bad string
}

func (f failingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if name == f.bad {
		return nil, syscall.EIO
	}
	return fs.ReadDir(f.FS, name)
}

// TestColdReaders has many clients read a repository that is not in memory: it is
// loaded once.
func TestColdReaders(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 100 {
		pushText(t, s, "a", fmt.Sprint(i), fmt.Sprint("t", i))
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	counted := &countingFS{FS: os.DirFS(dir), name: "a/index.json"}
	cold := ocidir.FS(counted)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := cold.GetTag(context.Background(), "a", fmt.Sprint("t", i)); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	qt.Check(t, qt.Equals(counted.opens.Load(), int32(1)))
}

// countingFS counts how often a file is opened.
type countingFS struct {
	fs.FS
	name  string
	opens atomic.Int32
}

func (c *countingFS) Open(name string) (fs.File, error) {
	if name == c.name {
		c.opens.Add(1)
	}
	return c.FS.Open(name)
}

func (c *countingFS) Stat(name string) (fs.FileInfo, error) { return fs.Stat(c.FS, name) }
