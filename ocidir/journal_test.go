// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// stateOf returns everything that clients can see of a repository.
func stateOf(t *testing.T, s registry.Store, repo string) (state []string) {
	t.Helper()
	for tag, err := range s.Tags(ctx, repo, "") {
		qt.Assert(t, qt.IsNil(err))
		m, err := s.GetTag(ctx, repo, tag)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("tag %s", tag))
		state = append(state, fmt.Sprintf("tag %s = %s", tag, m.Digest))
	}
	for info, err := range s.Manifests(ctx, repo, "") {
		qt.Assert(t, qt.IsNil(err))
		m, err := s.GetManifest(ctx, repo, info.Digest)
		qt.Assert(t, qt.IsNil(err))
		state = append(state, fmt.Sprintf("manifest %s %s %d", m.Digest, m.MediaType, info.Size))
		for r, err := range s.Referrers(ctx, repo, info.Digest, "") {
			qt.Assert(t, qt.IsNil(err))
			state = append(state, fmt.Sprintf("referrer %s of %s %s", r.Digest, info.Digest, r.Descriptor))
		}
	}
	for info, err := range s.Blobs(ctx, repo, "") {
		qt.Assert(t, qt.IsNil(err))
		state = append(state, fmt.Sprintf("blob %s %d", info.Digest, info.Size))
	}
	return state
}

// pushText pushes a manifest of opaque bytes.
func pushText(t *testing.T, s registry.Store, repo, text string, tags ...string) digest.Digest {
	t.Helper()
	m, err := registry.PushManifest(ctx, s, repo, registry.ManifestPush{MediaType: "text/plain", Content: []byte(text), Tags: tags})
	qt.Assert(t, qt.IsNil(err))
	return m.Digest
}

// crash returns a copy of a directory, as if the process had been killed. NoFolds
// must have been called: the directory must not change meanwhile.
func crash(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	qt.Assert(t, qt.IsNil(os.CopyFS(to, os.DirFS(dir))))
	os.Remove(filepath.Join(to, ".berth/open")) // with it, Open folds in the background
	return to
}

func read(t *testing.T, name ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(name...))
	qt.Assert(t, qt.IsNil(err))
	return data
}

func write(t *testing.T, data []byte, name ...string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(name...), data, 0o666)))
}

// history makes one change of each kind, and calls f after each.
func history(t *testing.T, s registry.Store, f func()) {
	t.Helper()
	image, index, signature := pushImage(t, s, "a", "v1", 1)
	changes := []func() error{
		func() error { pushText(t, s, "a", "plain", "text", "more"); return nil },
		func() error { pushText(t, s, "a", "other", "text"); return nil },
		func() error { pushText(t, s, "a", "plain", "text"); return nil }, // has no content in the journal
		func() error { return s.DeleteTag(ctx, "a", "more", nil) },
		func() error { return s.DeleteManifest(ctx, "a", digest.FromString("other")) },
		func() error {
			return registry.PushBlob(ctx, s, "a", digest.FromString("plain"), strings.NewReader("plain"))
		},
		func() error { return s.DeleteManifest(ctx, "a", signature.Digest) },
		func() error { pushText(t, s, "a", "other", "text"); return nil },
		func() error { return registry.PushBlob(ctx, s, "a", digest.FromString("b"), strings.NewReader("b")) },
		func() error { return s.DeleteBlob(ctx, "a", digest.FromString("b")) },
		func() error { return s.DeleteManifest(ctx, "a", index.Digest) },
		func() error { return registry.PushBlob(ctx, s, "a", digest.FromString("b"), strings.NewReader("b")) },
		func() error { return s.DeleteBlob(ctx, "a", digest.FromString("plain")) },
		func() error { return s.DeleteManifest(ctx, "a", image.Digest) },
		func() error { return s.DeleteManifest(ctx, "a", digest.FromString("plain")) },
	}
	for _, change := range changes {
		qt.Assert(t, qt.IsNil(change()))
		f()
	}
}

// TestCrash opens a copy of the directory after each change: it has the same state,
// without the process having folded or closed anything. FS reads the same from the
// directory that is in use.
func TestCrash(t *testing.T) {
	ocidir.NoFolds(t)
	dir := t.TempDir()
	s := open(t, dir)
	reader := ocidir.FS(os.DirFS(dir)) // reads on
	history(t, s, func() {
		want := stateOf(t, s, "a")
		qt.Check(t, qt.DeepEquals(stateOf(t, ocidir.FS(os.DirFS(dir)), "a"), want))
		qt.Check(t, qt.DeepEquals(stateOf(t, reader, "a"), want))

		copied := crash(t, dir)
		again := open(t, copied)
		qt.Assert(t, qt.DeepEquals(stateOf(t, again, "a"), want))
		qt.Assert(t, qt.IsNil(again.Close()))
		_, err := os.Stat(filepath.Join(copied, "a/.index.journal"))
		qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
		again = open(t, copied)
		qt.Check(t, qt.DeepEquals(stateOf(t, again, "a"), want))
		qt.Assert(t, qt.IsNil(again.Close()))
	})
}

// line returns a line of a journal.
func line(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	qt.Assert(t, qt.IsNil(err))
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), data)
}

// TestCrashWhileFolding opens the states that a crash can leave while a journal is
// folded: each is the same to clients.
func TestCrashWhileFolding(t *testing.T) {
	ocidir.NoFolds(t)
	dir := t.TempDir()
	s := open(t, dir)
	reader := ocidir.FS(os.DirFS(dir))
	history(t, s, func() {
		want := stateOf(t, s, "a")
		before := crash(t, dir)
		qt.Check(t, qt.DeepEquals(stateOf(t, reader, "a"), want))
		fold(t, dir)
		qt.Check(t, qt.DeepEquals(stateOf(t, reader, "a"), want))
		after := crash(t, dir)
		if !slices.Contains(files(t, filepath.Join(before, "a")), ".index.journal") {
			return // the push of a blob needs none
		}
		journal := read(t, before, "a/.index.journal")
		index := read(t, after, "a/index.json")
		journal = append(journal, listLines(t, index, read(t, before, "a/index.json"))...)
		mark := line(t, map[string]any{"fold": map[string]any{
			"index": digest.FromBytes(index), "batches": bytes.Count(journal, []byte("\n")) - 1,
		}})
		for name, crashed := range map[string]func(dir string){
			"before the mark": func(dir string) { write(t, journal, dir, "a/.index.journal") },
			"with the mark":   func(dir string) { write(t, append(journal, mark...), dir, "a/.index.journal") },
			"before the rename": func(dir string) {
				write(t, journal, dir, "a/.index.journal")
				write(t, index, dir, ".berth/uploads/x.tmp")
			},
			"rename without sync of the mark": func(dir string) {
				write(t, append(journal, mark[:20]...), dir, "a/.index.journal")
				write(t, index, dir, "a/index.json")
			},
			"before the removal": func(dir string) {
				write(t, append(journal, mark...), dir, "a/.index.journal")
				write(t, index, dir, "a/index.json")
			},
		} {
			copied := crash(t, before)
			qt.Assert(t, qt.IsNil(os.CopyFS(filepath.Join(copied, "new"), os.DirFS(filepath.Join(after, "a/blobs")))))
			for _, blob := range files(t, filepath.Join(copied, "new/sha256")) {
				os.Rename(filepath.Join(copied, "new/sha256", blob), filepath.Join(copied, "a/blobs/sha256", blob))
			}
			os.RemoveAll(filepath.Join(copied, "new"))
			crashed(copied)
			again := open(t, copied)
			qt.Check(t, qt.DeepEquals(stateOf(t, again, "a"), want), qt.Commentf("%s", name))
			qt.Assert(t, qt.IsNil(again.Close()))
			qt.Check(t, qt.DeepEquals(files(t, filepath.Join(copied, "a/blobs/sha256")), files(t, filepath.Join(after, "a/blobs/sha256"))), qt.Commentf("%s", name))
		}
	})
}

// listLines returns what a fold appends to a journal before it writes or removes the
// lists of referrers that are in an index.json.
func listLines(t *testing.T, indexes ...[]byte) []byte {
	t.Helper()
	var records []map[string]any
	for _, index := range indexes {
		var doc ocispec.Index
		qt.Assert(t, qt.IsNil(json.Unmarshal(index, &doc)))
		for _, d := range doc.Manifests {
			if d.Annotations["io.github.berth-oci.referrers"] != "" {
				records = append(records, map[string]any{"op": "list", "digest": d.Digest})
			}
		}
	}
	if records == nil {
		return nil
	}
	return line(t, map[string]any{"changes": records})
}

// files returns the names of the files in a folder.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestTornTail opens directories whose journal was cut short, or damaged. The end of
// the last line was never acknowledged; damage before others is an error, and not
// the end of the journal.
func TestTornTail(t *testing.T) {
	if testing.Short() {
		t.Skip("nothing in it is concurrent")
	}
	ocidir.NoFolds(t)
	dir := t.TempDir()
	s := open(t, dir)
	pushText(t, s, "a", "first", "first")
	pushText(t, s, "a", "second", "second")
	without := stateOf(t, s, "a")
	pushText(t, s, "a", "third", "third")
	with := stateOf(t, s, "a")
	journal := read(t, dir, "a/.index.journal")
	lines := bytes.SplitAfter(journal, []byte("\n"))
	qt.Assert(t, qt.HasLen(lines, 4)) // a header, two batches, nothing
	last := len(journal) - len(lines[2])
	for n := last; n <= len(journal); n++ {
		copied := crash(t, dir)
		write(t, journal[:n], copied, "a/.index.journal")
		want := without
		if n == len(journal) {
			want = with
		}
		again := open(t, copied)
		qt.Assert(t, qt.DeepEquals(stateOf(t, again, "a"), want))
		pushText(t, again, "a", "fourth", "fourth") // a torn journal is not continued
		want = stateOf(t, again, "a")
		again = open(t, crash(t, copied))
		qt.Assert(t, qt.DeepEquals(stateOf(t, again, "a"), want))
	}
	for _, at := range []int{3, len(lines[0]) - 5, len(lines[0]) + 4, last - 2} {
		copied := crash(t, dir)
		damaged := slices.Clone(journal)
		damaged[at] ^= 1
		write(t, damaged, copied, "a/.index.journal")
		again := open(t, copied)
		_, err := again.GetTag(ctx, "a", "first")
		qt.Check(t, qt.ErrorMatches(err, `.*a/.index.journal: a damaged line before others`))
		qt.Check(t, qt.ErrorMatches(again.DeleteTag(ctx, "a", "first", nil), err.Error()))
		qt.Check(t, qt.DeepEquals(read(t, copied, "a/.index.journal"), damaged))
		pushText(t, again, "b", "other", "tag")
	}
}

// TestIndexIsWholeAndExact reads index.json while pushes go on: each version names
// files that exist, and after Close it has everything.
func TestIndexIsWholeAndExact(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushText(t, s, "a", "kept", "kept")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			s.Fold(ctx)
			var index ocispec.Index
			if err := json.Unmarshal(read(t, dir, "a/index.json"), &index); err != nil {
				t.Error(err)
			}
			for _, d := range index.Manifests {
				f, err := os.Open(filepath.Join(dir, "a/blobs/sha256", d.Digest.Encoded()))
				if err != nil {
					// It may have been deleted since: then a newer
					// index.json does not name it.
					if bytes.Contains(read(t, dir, "a/index.json"), []byte(d.Digest)) {
						t.Error(err)
					}
					continue
				}
				data, err := io.ReadAll(f)
				f.Close()
				if err != nil || digest.FromBytes(data) != d.Digest {
					t.Errorf("%s: %q, %v", d.Digest, data, err)
				}
			}
		}
	}()
	for i := range 200 {
		pushText(t, s, "a", fmt.Sprint(i), fmt.Sprint("t", i))
		if i%3 == 0 {
			qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", digest.FromString(fmt.Sprint(i)))))
		}
	}
	close(stop)
	<-done
	want := stateOf(t, s, "a")
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Check(t, qt.DeepEquals(files(t, filepath.Join(dir, "a")), []string{".index.cache", "blobs", "index.json", "oci-layout"}))
	os.Remove(filepath.Join(dir, "a/.index.cache")) // and without Berth's own file
	qt.Check(t, qt.DeepEquals(stateOf(t, ocidir.FS(os.DirFS(dir)), "a"), want))
}

// TestCacheIsRebuilt damages the cache of what manifests say: it never decides what
// is served.
func TestCacheIsRebuilt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushImage(t, s, "a", "v1", 1)
	pushImage(t, s, "a", "v2", 2)
	want := stateOf(t, s, "a")
	qt.Assert(t, qt.IsNil(s.Close()))
	cache := read(t, dir, "a/.index.cache")
	for n := 0; n < len(cache); n += 41 {
		damaged := slices.Clone(cache)
		damaged[n] ^= 4
		write(t, damaged, dir, "a/.index.cache")
		qt.Assert(t, qt.DeepEquals(stateOf(t, ocidir.FS(os.DirFS(dir)), "a"), want))
		write(t, cache[:n], dir, "a/.index.cache")
		qt.Assert(t, qt.DeepEquals(stateOf(t, ocidir.FS(os.DirFS(dir)), "a"), want))
	}
}

// TestFormat opens the directory of an older Berth, and not that of a newer one.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushImage(t, s, "a", "v1", 1)
	want := stateOf(t, s, "a")
	qt.Assert(t, qt.IsNil(s.Close()))
	for _, name := range []string{".berth/version", ".berth/reserve", "a/.index.cache"} { // an older one has none
		qt.Assert(t, qt.IsNil(os.Remove(filepath.Join(dir, name))))
	}
	s = open(t, dir)
	qt.Check(t, qt.DeepEquals(stateOf(t, s, "a"), want))
	qt.Assert(t, qt.IsNil(s.Close()))

	write(t, []byte("3\n"), dir, ".berth/version")
	_, err := ocidir.Open(dir, nil)
	qt.Check(t, qt.ErrorMatches(err, `ocidir: the directory has the format "3" of another version of Berth`))
}

// TestFoldsOnItsOwn waits until a journal is folded: since the repository is idle,
// and after a crash though nobody uses it.
func TestFoldsOnItsOwn(t *testing.T) {
	wait := func(dir string) {
		for slices.Contains(files(t, filepath.Join(dir, "a")), ".index.journal") {
			time.Sleep(10 * time.Millisecond)
		}
	}
	dir := t.TempDir()
	s := open(t, dir)
	pushText(t, s, "a", "first", "first")
	pushText(t, s, "a", "second", "second")
	copied := t.TempDir()
	qt.Assert(t, qt.IsNil(os.CopyFS(copied, os.DirFS(dir))))
	wait(dir)
	qt.Check(t, qt.StringContains(string(read(t, dir, "a/index.json")), "second"))
	again := crash(t, copied)
	open(t, copied)
	wait(copied)
	qt.Check(t, qt.StringContains(string(read(t, copied, "a/index.json")), "second"))

	// Close does not leave it for later.
	write(t, nil, again, ".berth/open")
	qt.Assert(t, qt.IsNil(open(t, again).Close()))
	qt.Check(t, qt.DeepEquals(files(t, filepath.Join(again, "a")), []string{".index.cache", "blobs", "index.json", "oci-layout"}))
	qt.Check(t, qt.StringContains(string(read(t, again, "a/index.json")), "second"))
}

// TestCrashWhileCreating leaves what a crash during the first push of a repository
// leaves. The next push does not make a blob of the manifest's file.
func TestCrashWhileCreating(t *testing.T) {
	ocidir.NoFolds(t)
	for _, next := range []struct {
		name string
		push func(t *testing.T, s *ocidir.Store)
		want string // the number of blobs and manifests
	}{
		{"another manifest", func(t *testing.T, s *ocidir.Store) { pushText(t, s, "a", "other") }, "0 1"},
		{"the same manifest", func(t *testing.T, s *ocidir.Store) { pushText(t, s, "a", "text") }, "0 1"},
		{"the same bytes as a blob", func(t *testing.T, s *ocidir.Store) {
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", digest.FromString("text"), strings.NewReader("text"))))
		}, "1 0"},
	} {
		t.Run(strings.ReplaceAll(next.name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			pushText(t, s, "b", "text")
			record := map[string]any{"op": "push", "digest": digest.FromString("text"), "mediaType": "text/plain", "size": 4, "content": []byte("text")}
			journal := append(line(t, map[string]any{"journal": 1, "base": ""}), line(t, map[string]any{"changes": []any{record}})...)
			qt.Assert(t, qt.IsNil(os.CopyFS(filepath.Join(dir, "a"), os.DirFS(filepath.Join(dir, "b")))))
			qt.Assert(t, qt.IsNil(os.Remove(filepath.Join(dir, "a/index.json"))))
			write(t, journal, dir, "a/.index.journal")
			qt.Check(t, qt.DeepEquals(collect(t, s), []string{"b"}))

			next.push(t, s)
			for range 2 {
				blobs, manifests := digestsIn(t, s.Blobs(ctx, "a", "")), digestsIn(t, s.Manifests(ctx, "a", ""))
				qt.Check(t, qt.Equals(fmt.Sprint(len(blobs), len(manifests)), next.want))
				qt.Assert(t, qt.IsNil(s.Close()))
				s = open(t, dir)
			}
		})
	}
}
