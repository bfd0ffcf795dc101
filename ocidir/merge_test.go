// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/ocidir"
)

// tool is another tool, which reads an index.json and writes it later.
type tool struct {
	dir   string // of the layout
	index ocispec.Index
}

func (o *tool) read(t *testing.T) {
	t.Helper()
	o.index = ocispec.Index{}
	qt.Assert(t, qt.IsNil(json.Unmarshal(read(t, o.dir, "index.json"), &o.index)))
}

// tag adds a manifest with a tag, which it takes from others.
func (o *tool) tag(t *testing.T, text, tag string) {
	t.Helper()
	o.untag(tag)
	d := digest.FromString(text)
	write(t, []byte(text), o.dir, "blobs/sha256", d.Encoded())
	o.index.Manifests = append(o.index.Manifests, ocispec.Descriptor{MediaType: "text/plain", Digest: d, Size: int64(len(text)),
		Annotations: map[string]string{ocispec.AnnotationRefName: tag}})
}

func (o *tool) untag(tag string) {
	o.index.Manifests = slices.DeleteFunc(o.index.Manifests, func(d ocispec.Descriptor) bool {
		return d.Annotations[ocispec.AnnotationRefName] == tag
	})
}

func (o *tool) write(t *testing.T) {
	t.Helper()
	data, err := json.Marshal(o.index)
	qt.Assert(t, qt.IsNil(err))
	write(t, data, o.dir, "index.json")
}

// tags returns the tags of a repository with the text that they point at.
func tagsOf(t *testing.T, s *ocidir.Store) (tags []string) {
	t.Helper()
	for tag, err := range s.Tags(ctx, "a", "") {
		qt.Assert(t, qt.IsNil(err))
		m, err := s.GetTag(ctx, "a", tag)
		qt.Assert(t, qt.IsNil(err))
		tags = append(tags, tag+"="+string(m.Content))
	}
	return tags
}

// TestMerge lets another tool write an index.json that it has read before the store
// changed the repository. Each row begins with the tags a=1, b=1 and c=1; ours are
// the changes of clients after the tool has read it, theirs those of the tool.
func TestMerge(t *testing.T) {
	push := func(tag, text string) func(t *testing.T, s *ocidir.Store) {
		return func(t *testing.T, s *ocidir.Store) { pushText(t, s, "a", text, tag) }
	}
	untag := func(tag string) func(t *testing.T, s *ocidir.Store) {
		return func(t *testing.T, s *ocidir.Store) { qt.Assert(t, qt.IsNil(s.DeleteTag(ctx, "a", tag, nil))) }
	}
	remove := func(text string) func(t *testing.T, s *ocidir.Store) {
		return func(t *testing.T, s *ocidir.Store) {
			qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", digest.FromString(text))))
		}
	}
	for _, c := range []struct {
		name     string
		ours     []func(t *testing.T, s *ocidir.Store)
		theirs   func(t *testing.T, o *tool)
		want     string
		conflict string // the tag that the log names
	}{
		{"different tags", []func(*testing.T, *ocidir.Store){push("ours", "o")}, func(t *testing.T, o *tool) { o.tag(t, "t", "theirs") }, "a=1 b=1 c=1 ours=o theirs=t", ""},
		{"both move one each", []func(*testing.T, *ocidir.Store){push("a", "o")}, func(t *testing.T, o *tool) { o.tag(t, "t", "b") }, "a=o b=t c=1", ""},
		{"they delete a tag", []func(*testing.T, *ocidir.Store){push("a", "o")}, func(t *testing.T, o *tool) { o.untag("b") }, "a=o c=1", ""},
		{"we delete a tag", []func(*testing.T, *ocidir.Store){untag("a")}, func(t *testing.T, o *tool) { o.tag(t, "t", "b") }, "b=t c=1", ""},
		{"they change nothing", []func(*testing.T, *ocidir.Store){push("a", "o"), untag("b")}, func(t *testing.T, o *tool) {}, "a=o c=1", ""},
		{"both move the same tag", []func(*testing.T, *ocidir.Store){push("a", "o")}, func(t *testing.T, o *tool) { o.tag(t, "t", "a") }, "a=o b=1 c=1", "tag=a"},
		{"both move a tag alike", []func(*testing.T, *ocidir.Store){push("a", "same")}, func(t *testing.T, o *tool) { o.tag(t, "same", "a") }, "a=same b=1 c=1", ""},
		{"we delete a tag that they move", []func(*testing.T, *ocidir.Store){push("n", "n"), untag("a")}, func(t *testing.T, o *tool) { o.tag(t, "t", "a") }, "b=1 c=1 n=n", "tag=a"},
		{"several of our changes", []func(*testing.T, *ocidir.Store){push("a", "o"), push("n", "n"), push("a", "o2"), untag("n"), push("m", "m")}, func(t *testing.T, o *tool) { o.tag(t, "t", "theirs") }, "a=o2 b=1 c=1 m=m theirs=t", ""},
		{"we delete a manifest", []func(*testing.T, *ocidir.Store){push("x", "x"), remove("1")}, func(t *testing.T, o *tool) { o.tag(t, "t", "theirs") }, "theirs=t x=x", ""},
	} {
		for _, folds := range []string{"never", "once", "each time"} {
			t.Run(strings.ReplaceAll(c.name+", folded "+folds, " ", "_"), func(t *testing.T) {
				ocidir.NoFolds(t)
				dir := t.TempDir()
				var log bytes.Buffer
				s, err := ocidir.Open(dir, &ocidir.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				qt.Assert(t, qt.IsNil(err))
				t.Cleanup(func() { s.Close() })
				for _, tag := range []string{"a", "b", "c"} {
					pushText(t, s, "a", "1", tag)
				}
				qt.Assert(t, qt.IsNil(s.Fold(ctx)))

				other := &tool{dir: filepath.Join(dir, "a")}
				other.read(t)
				for i, change := range c.ours {
					change(t, s)
					if folds == "each time" || folds == "once" && i == 0 {
						qt.Assert(t, qt.IsNil(s.Fold(ctx)))
					}
				}
				c.theirs(t, other)
				other.write(t)
				want := strings.Fields(c.want)
				qt.Check(t, qt.DeepEquals(tagsOf(t, s), want))
				if c.conflict == "" {
					qt.Check(t, qt.Equals(log.String(), ""))
				} else {
					qt.Check(t, qt.StringContains(log.String(), c.conflict))
				}

				qt.Assert(t, qt.IsNil(s.Fold(ctx))) // which a merge begins at once
				qt.Check(t, qt.DeepEquals(tagsOf(t, open(t, crash(t, dir))), want))
				pushText(t, s, "a", "later", "z")
				want = append(want, "z=later")
				qt.Assert(t, qt.IsNil(s.Close()))
				again := open(t, dir)
				qt.Check(t, qt.DeepEquals(tagsOf(t, again), want))
			})
		}
	}
}

// TestMergeAfterManyVersions lets another tool write what it has read many folds ago.
func TestMergeAfterManyVersions(t *testing.T) {
	ocidir.NoFolds(t)
	for _, reads := range []int{0, 1, 13, 37, 59} {
		dir := t.TempDir()
		s := open(t, dir)
		pushText(t, s, "a", "first", "moving")
		other := &tool{dir: filepath.Join(dir, "a")}
		want := []string{"moving=59"}
		for i := range 60 {
			pushText(t, s, "a", fmt.Sprint(i), "moving")
			pushText(t, s, "a", fmt.Sprint(i), fmt.Sprintf("t%02d", i))
			want = append(want, fmt.Sprintf("t%02d=%d", i, i))
			qt.Assert(t, qt.IsNil(s.Fold(ctx)))
			if i == reads {
				other.read(t)
			}
		}
		other.tag(t, "theirs", "theirs")
		other.write(t)
		want = append(want, "theirs=theirs")
		got := tagsOf(t, s)
		slices.Sort(want)
		qt.Check(t, qt.DeepEquals(got, want), qt.Commentf("read after %d folds", reads))
	}
}

// TestHalfWrittenIndex writes an index.json in pieces, as tools do that write it in
// place, while clients read and write: there is no error, and nothing is lost.
func TestHalfWrittenIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 50 {
		pushText(t, s, "a", fmt.Sprint(i), fmt.Sprint("t", 10+i))
	}
	fold(t, dir)
	other := &tool{dir: filepath.Join(dir, "a")}
	other.read(t)
	other.tag(t, "theirs", "theirs")
	whole, err := json.Marshal(other.index)
	qt.Assert(t, qt.IsNil(err))
	f, err := os.Create(filepath.Join(other.dir, "index.json"))
	qt.Assert(t, qt.IsNil(err))
	for i := range 10 {
		_, err := s.GetTag(ctx, "a", "t10")
		qt.Assert(t, qt.IsNil(err))
		pushText(t, s, "a", fmt.Sprint("new", i), fmt.Sprint("new", i))
		n := min(len(whole), 700)
		f.Write(whole[:n])
		whole = whole[n:]
	}
	f.Write(whole)
	qt.Assert(t, qt.IsNil(f.Close()))
	qt.Check(t, qt.HasLen(tagsOf(t, s), 61))
	fold(t, dir)
	s.Close()
	qt.Check(t, qt.HasLen(tagsOf(t, open(t, dir)), 61))
}

// TestDamagedIndex leaves an index.json that can't be read. The store goes on with
// what it knows, and keeps the file under another name.
func TestDamagedIndex(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushText(t, s, "a", "first", "first")
	pushText(t, s, "b", "first", "first")
	fold(t, dir)
	write(t, []byte(`{"manifests":[`), dir, "a/index.json")
	pushText(t, s, "a", "second", "second")
	qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"first=first", "second=second"}))
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Check(t, qt.Equals(string(read(t, dir, "a/.index.json.damaged")), `{"manifests":[`))
	s = open(t, dir)
	qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"first=first", "second=second"}))
	qt.Assert(t, qt.IsNil(s.Close()))

	// Without a process that knows the repository, it is an error, of this one.
	write(t, []byte(`{"manifests":[`), dir, "a/index.json")
	long := time.Now().Add(-time.Hour) // nobody is writing it
	old := filepath.Join(dir, "a/index.json")
	qt.Assert(t, qt.IsNil(os.Chtimes(old, long, long)))
	s = open(t, dir)
	_, err := s.GetTag(ctx, "a", "first")
	qt.Check(t, qt.ErrorMatches(err, "a/index.json: unexpected EOF"))
	qt.Check(t, qt.DeepEquals(collect(t, s), []string{"a", "b"}))
	pushText(t, s, "b", "second", "second")
}

// TestUnreadableEntries serves an index.json with entries whose manifests can't be
// read: they stay as they are, until their tag is pushed again.
func TestUnreadableEntries(t *testing.T) {
	dir := t.TempDir()
	l := foreignLayout{files: make(fstest.MapFS)}
	l.tag(l.add("text/plain", "good"), "good")
	gone := l.add("text/plain", "gone")
	l.tag(gone, "gone")
	l.tag(gone, "gone-too")
	delete(l.files, "blobs/sha256/"+gone.Digest.Encoded())
	broken := l.add("text/plain", "broken")
	l.tag(broken, "broken")
	l.files["blobs/sha256/"+broken.Digest.Encoded()].Data = []byte("brokex")
	l.tag(ocispec.Descriptor{MediaType: "text/plain", Digest: "sha256:zz"}, "nonsense")
	l.write(t, filepath.Join(dir, "a"))
	entries := func(tag string) int { return len(indexEntries(t, filepath.Join(dir, "a"), tag)) }

	var log bytes.Buffer
	s, err := ocidir.Open(dir, &ocidir.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	qt.Assert(t, qt.IsNil(err))
	stores.Store(dir, s)
	qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"good=good"}))
	qt.Check(t, qt.Equals(strings.Count(log.String(), "can't be read"), 4))
	pushText(t, s, "a", "new", "new")
	for _, tag := range []string{"good", "gone", "gone-too", "broken", "nonsense", "new"} {
		qt.Check(t, qt.Equals(entries(tag), 1), qt.Commentf("%s", tag))
	}
	// A push of the tag replaces the entry; a push of the manifest brings all its
	// tags back.
	pushText(t, s, "a", "other", "gone-too")
	pushText(t, s, "a", "gone")
	qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"gone=gone", "gone-too=other", "good=good", "new=new"}))
	qt.Check(t, qt.Equals(entries("gone-too"), 1))
	qt.Assert(t, qt.IsNil(s.Close()))
	s = open(t, dir)
	qt.Check(t, qt.DeepEquals(tagsOf(t, s), []string{"gone=gone", "gone-too=other", "good=good", "new=new"}))
	qt.Check(t, qt.Equals(entries("broken"), 1))
}
