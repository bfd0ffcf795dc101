// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/leak"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/storetest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// stores holds the store last opened in each directory.
var stores sync.Map

// fold folds the journals in a directory, so that its files can be looked at.
func fold(t *testing.T, dir string) {
	t.Helper()
	s, ok := stores.Load(dir)
	qt.Assert(t, qt.IsTrue(ok))
	qt.Assert(t, qt.IsNil(s.(*ocidir.Store).Fold(ctx)))
}

func open(t *testing.T, dir string) *ocidir.Store {
	t.Helper()
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { s.Close() })
	stores.Store(dir, s)
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store { return open(t, t.TempDir()) })
}

func TestHTTP(t *testing.T) {
	storetest.RunHTTP(t, func(t *testing.T) registry.Store { return open(t, t.TempDir()) })
}

var ctx = context.Background()

// pushImage pushes an image, an index with it, and its signature.
func pushImage(t *testing.T, s registry.Store, repo, tag string, seed uint64) (image, index, signature registry.Manifest) {
	t.Helper()
	image, err := registrytest.PushRandomImage(ctx, s, repo, tag, seed, 2, 10_000)
	qt.Assert(t, qt.IsNil(err))
	descriptor := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, image.MediaType, image.Digest, len(image.Content))
	index, err = registry.PushManifest(ctx, s, repo, registry.ManifestPush{
		MediaType: ocispec.MediaTypeImageIndex,
		Content:   []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + descriptor + `]}`),
		Tags:      []string{tag + "-index"},
	})
	qt.Assert(t, qt.IsNil(err))
	signature, err = registry.PushManifest(ctx, s, repo, registry.ManifestPush{
		MediaType: ocispec.MediaTypeImageIndex,
		Content:   []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","artifactType":"application/vnd.example.signature","manifests":[],"subject":` + descriptor + `}`),
	})
	qt.Assert(t, qt.IsNil(err))
	return image, index, signature
}

// wantImage checks that a store has the content that pushImage pushed.
func wantImage(t *testing.T, s registry.Store, repo, tag string, seed uint64) {
	t.Helper()
	image, index, signature := pushImage(t, new(registry.MemStore), repo, tag, seed)
	for _, c := range []struct {
		tag  string
		want registry.Manifest
	}{{tag, image}, {tag + "-index", index}} {
		got, err := s.GetTag(ctx, repo, c.tag)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got.MediaType, c.want.MediaType))
		qt.Check(t, qt.Equals(string(got.Content), string(c.want.Content)))
	}
	_, err := s.GetManifest(ctx, repo, signature.Digest)
	qt.Assert(t, qt.IsNil(err))
	var list []registry.Referrer
	for r, err := range s.Referrers(ctx, repo, image.Digest, "") {
		qt.Assert(t, qt.IsNil(err))
		list = append(list, r)
	}
	qt.Assert(t, qt.HasLen(list, 1))
	qt.Check(t, qt.Equals(list[0].Digest, signature.Digest))
	qt.Check(t, qt.Equals(list[0].ArtifactType, "application/vnd.example.signature"))

	var doc ocispec.Manifest
	qt.Assert(t, qt.IsNil(json.Unmarshal(image.Content, &doc)))
	for _, d := range append(doc.Layers, doc.Config) {
		r, err := s.OpenBlob(ctx, repo, d.Digest)
		qt.Assert(t, qt.IsNil(err))
		data, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(digest.FromBytes(data), d.Digest))
		_, err = r.Seek(-100, io.SeekEnd)
		qt.Assert(t, qt.IsNil(err))
		end, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.HasSuffix(data, end)))
		qt.Check(t, qt.IsNil(r.Close()))
	}
}

// TestReopen closes a store and opens its directory again.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, signature := pushImage(t, s, "a/b", "tag", 1)
	// A manifest with two tags that is a blob too.
	other, err := registry.PushManifest(ctx, s, "a/b", registry.ManifestPush{Content: []byte("other"), Tags: []string{"x", "y"}})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a/b", other.Digest, strings.NewReader("other"))))
	u, err := s.CreateUpload(ctx, "a/b", registry.UploadOptions{Algorithm: digest.SHA512})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("half, "))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))

	_, err = ocidir.Open(dir, nil)
	qt.Assert(t, qt.ErrorIs(err, ocidir.ErrInUse))
	qt.Assert(t, qt.IsNil(s.Close()))
	s = open(t, dir)
	wantImage(t, s, "a/b", "tag", 1)
	for _, tag := range []string{"x", "y"} {
		m, err := s.GetTag(ctx, "a/b", tag)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(m.Content), "other"))
	}
	_, err = s.OpenBlob(ctx, "a/b", image.Digest)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))
	r, err := s.OpenBlob(ctx, "a/b", other.Digest)
	qt.Assert(t, qt.IsNil(err))
	r.Close()
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a/b", other.Digest)))
	r, err = s.OpenBlob(ctx, "a/b", other.Digest)
	qt.Assert(t, qt.IsNil(err))
	r.Close()

	size, err := s.UploadSize(ctx, "a/b", u.ID())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(size, 6))
	u, err = s.ResumeUpload(ctx, "a/b", u.ID())
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("whole"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Commit(ctx, digest.SHA512.FromString("half, whole"))))
	qt.Assert(t, qt.IsNil(u.Close()))

	// An empty list of referrers is deleted.
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a/b", signature.Digest)))
	qt.Assert(t, qt.IsNil(s.Close()))
	s = open(t, dir)
	for range s.Referrers(ctx, "a/b", image.Digest, "") {
		t.Error("the referrer is still listed")
	}
	fold(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, "a/b/index.json"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsFalse(bytes.Contains(data, []byte("sha256-"))))
}

// TestForeignLayout adds a layout that another tool wrote while the store is
// open.
func TestForeignLayout(t *testing.T) {
	from := t.TempDir()
	pushImage(t, open(t, from), "image", "tag", 1)
	fold(t, from)
	dir := t.TempDir()
	s := open(t, dir)
	_, err := s.GetTag(ctx, "dropped/here", "tag")
	qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))

	place := filepath.Join(dir, "dropped", "here")
	qt.Assert(t, qt.IsNil(os.CopyFS(place, os.DirFS(filepath.Join(from, "image")))))
	// Other tools omit the children of an index, and write names and members of
	// their own.
	index := filepath.Join(place, "index.json")
	var doc map[string]any
	data, err := os.ReadFile(index)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, &doc)))
	doc["annotations"] = map[string]string{"written": "elsewhere"}
	doc["manifests"] = slices.DeleteFunc(doc["manifests"].([]any), func(m any) bool {
		annotations, _ := m.(map[string]any)["annotations"].(map[string]any)
		switch annotations[ocispec.AnnotationRefName] {
		case nil, "tag-index":
			return false
		case "tag":
			annotations[ocispec.AnnotationRefName] = "docker.io/library/image:tag"
			annotations["io.containerd.image.name"] = "docker.io/library/image:tag"
			return false
		}
		return true // the list of referrers
	})
	data, err = json.Marshal(doc)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(index, data, 0o666)))

	wantImage(t, s, "dropped/here", "tag", 1)
	pushImage(t, s, "dropped/here", "tag-again", 1)
	wantImage(t, s, "dropped/here", "tag-again", 1)
	// A push keeps those members.
	pushImage(t, s, "dropped/here", "second", 2)
	wantImage(t, s, "dropped/here", "tag", 1)
	wantImage(t, s, "dropped/here", "second", 2)
	fold(t, dir)
	data, err = os.ReadFile(index)
	qt.Assert(t, qt.IsNil(err))
	for _, want := range []string{`"written":"elsewhere"`, `"io.containerd.image.name"`, `"docker.io/library/image:tag"`} {
		qt.Check(t, qt.StringContains(string(data), want))
	}
	names := collect(t, s)
	qt.Check(t, qt.DeepEquals(names, []string{"dropped/here"}))
}

func collect(t *testing.T, s registry.Store) (names []string) {
	t.Helper()
	for name, err := range s.Repositories(ctx, "") {
		qt.Assert(t, qt.IsNil(err))
		names = append(names, name)
	}
	return names
}

// TestFS serves layouts from other file systems.
func TestFS(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushImage(t, s, "a/b", "tag", 1)
	pushImage(t, s, "z", "tag", 2)
	layouts := os.DirFS(dir)
	one, err := fs.Sub(layouts, "a/b")
	qt.Assert(t, qt.IsNil(err))

	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	qt.Assert(t, qt.IsNil(w.AddFS(layouts)))
	qt.Assert(t, qt.IsNil(w.Close()))
	zipped, err := zip.NewReader(bytes.NewReader(archive.Bytes()), int64(archive.Len()))
	qt.Assert(t, qt.IsNil(err))

	memory := make(fstest.MapFS)
	err = fs.WalkDir(one, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(one, name)
		memory[name] = &fstest.MapFile{Data: data}
		memory[path.Join("sub", name)] = &fstest.MapFile{Data: data}
		return err
	})
	qt.Assert(t, qt.IsNil(err))

	for _, c := range []struct {
		name  string
		fsys  fs.FS
		repos map[string]uint64
	}{
		{"folder", layouts, map[string]uint64{"a/b": 1, "z": 2}},
		{"zip", zipped, map[string]uint64{"a/b": 1, "z": 2}},
		{"root", one, map[string]uint64{ocidir.RootName: 1}},
		{"memory", memory, map[string]uint64{ocidir.RootName: 1, "sub": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ocidir.FS(c.fsys)
			for repo, seed := range c.repos {
				wantImage(t, s, repo, "tag", seed)
			}
			qt.Check(t, qt.HasLen(collect(t, s), len(c.repos)))
			d := digest.FromString("x")
			err := registry.PushBlob(ctx, s, "z", d, strings.NewReader("x"))
			var e *registry.Error
			qt.Assert(t, qt.IsTrue(errors.As(err, &e)))
			qt.Check(t, qt.Equals(e.Status, 405))
			_, err = registry.PushManifest(ctx, s, "z", registry.ManifestPush{Content: []byte("x")})
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrUnsupported)))
		})
	}
}

// TestNames creates repositories named like the files of a layout.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	names := []string{"a", "a-b", "a.b/c", "a/blobs", "a/blobs/sha256", "a/index.json", "a/oci-layout", "a0", "blobs", "index.json/blobs"}
	for i, name := range names {
		pushImage(t, s, name, "tag", uint64(i))
	}
	qt.Check(t, qt.DeepEquals(collect(t, s), names))
	for i, name := range names {
		wantImage(t, s, name, "tag", uint64(i))
	}
	// A file in place of a folder is neither a repository nor an error.
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "file"), nil, 0o666)))
	for _, name := range []string{"file", "file/a", "lib"} {
		_, err := s.GetTag(ctx, name, "tag")
		qt.Check(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
	}
	for _, name := range names {
		for tag, err := range s.Tags(ctx, name, "") {
			qt.Assert(t, qt.IsNil(err))
			m, err := s.GetTag(ctx, name, tag)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, name, m.Digest)))
		}
	}
}

// TestSharing checks that repositories share bytes, which are deleted with their
// last name.
func TestSharing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := strings.Repeat("x", 100_000)
	d := digest.FromString(data)
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader(data))))
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "b", d, strings.NewReader(data))))
	qt.Assert(t, qt.IsNil(s.MountBlob(ctx, "c", "a", d)))
	stat := func(repo string) fs.FileInfo {
		info, err := os.Stat(filepath.Join(dir, repo, "blobs/sha256", d.Encoded()))
		qt.Assert(t, qt.IsNil(err))
		return info
	}
	qt.Check(t, qt.IsTrue(os.SameFile(stat("a"), stat("b"))))
	qt.Check(t, qt.IsTrue(os.SameFile(stat("a"), stat("c"))))

	// If other tools remove the layouts, CollectRest deletes the bytes.
	qt.Assert(t, qt.IsNil(os.RemoveAll(filepath.Join(dir, "a"))))
	qt.Assert(t, qt.IsNil(os.RemoveAll(filepath.Join(dir, "b"))))
	removed, err := s.CollectRest(ctx, time.Now())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(removed, registry.Collected{}))
	qt.Assert(t, qt.IsNil(os.RemoveAll(filepath.Join(dir, "c"))))
	removed, err = s.CollectRest(ctx, time.Now())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(removed, registry.Collected{Blobs: 1, Bytes: 100_000}))

	// A delete through the store needs no CollectRest.
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader(data))))
	qt.Assert(t, qt.IsNil(s.DeleteBlob(ctx, "a", d)))
	var left []string
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			left = append(left, e.Name())
		}
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(left, []string{"lock", "open", "reserve", "version"}))
	qt.Check(t, qt.HasLen(collect(t, s), 0))
}

// TestCrashWhilePublishing opens a directory in which a session's file is already
// a blob: the session must not write to it.
func TestCrashWhilePublishing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("data"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))
	states, err := filepath.Glob(filepath.Join(dir, ".berth/uploads/*.json"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(states, 1))
	state, err := os.ReadFile(states[0])
	qt.Assert(t, qt.IsNil(err))

	u, err = s.ResumeUpload(ctx, "a", u.ID())
	qt.Assert(t, qt.IsNil(err))
	d := digest.FromString("data")
	qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
	_, err = os.Stat(states[0])
	qt.Check(t, qt.ErrorIs(err, fs.ErrNotExist))
	qt.Assert(t, qt.IsNil(u.Close()))
	qt.Assert(t, qt.IsNil(s.Close()))

	blob := filepath.Join(dir, "a/blobs/sha256", d.Encoded())
	qt.Assert(t, qt.IsNil(os.Link(blob, strings.TrimSuffix(states[0], ".json")+".data")))
	qt.Assert(t, qt.IsNil(os.WriteFile(states[0], state, 0o666)))
	s = open(t, dir)
	_, err = s.ResumeUpload(ctx, "a", u.ID())
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
	left, err := os.ReadDir(filepath.Join(dir, ".berth/uploads"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(left, 0))
	data, err := os.ReadFile(blob)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(data), "data"))
}

// TestIDUsedAgain opens a session with the ID of another session that is
// committed but not closed.
func TestIDUsedAgain(t *testing.T) {
	s := open(t, t.TempDir())
	opts := registry.UploadOptions{ID: "id"}
	first, err := s.CreateUpload(ctx, "a", opts)
	qt.Assert(t, qt.IsNil(err))
	_, err = first.ReadFrom(strings.NewReader("first"))
	qt.Assert(t, qt.IsNil(err))
	d := digest.FromString("first")
	qt.Assert(t, qt.IsNil(first.Commit(ctx, d)))
	second, err := s.CreateUpload(ctx, "a", opts)
	qt.Assert(t, qt.IsNil(err))
	_, err = second.ReadFrom(strings.NewReader("second"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(first.Close()))
	qt.Assert(t, qt.IsNil(second.Commit(ctx, digest.FromString("second"))))
	qt.Assert(t, qt.IsNil(second.Close()))
	r, err := s.OpenBlob(ctx, "a", d)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	data, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(data), "first"))
}

func TestUploadLimit(t *testing.T) {
	storetest.RunUploadLimit(t, func(t *testing.T, uploads int) registry.Store {
		s, err := ocidir.Open(t.TempDir(), &ocidir.Options{Uploads: uploads})
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { s.Close() })
		return s
	})
}
