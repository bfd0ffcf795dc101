// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// digestsIn returns the digests in a list of blobs or manifests.
func digestsIn(t *testing.T, list func(func(registry.Info, error) bool)) (all []digest.Digest) {
	t.Helper()
	for info, err := range list {
		qt.Assert(t, qt.IsNil(err))
		all = append(all, info.Digest)
	}
	return all
}

// TestBlobList lists blobs with digests of several algorithms, in a layout with
// manifests, a list of referrers, and files that are not content.
func TestBlobList(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, index, signature := pushImage(t, s, "a", "tag", 1)
	want := digestsIn(t, s.Blobs(ctx, "a", ""))
	qt.Assert(t, qt.HasLen(want, 3)) // two layers and a config
	for i := range 10 {
		data := fmt.Sprint(i)
		for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			d := a.FromString(data)
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader(data))))
			want = append(want, d)
		}
	}
	slices.Sort(want)
	blobs := filepath.Join(dir, "a/blobs")
	for _, name := range []string{"file", "sha256/README", "sha256/" + want[0].Encoded() + ".tmp", "sha256/" + strings.Repeat("z", 64)} {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(blobs, name), []byte("no content"), 0o666)))
	}
	for _, name := range []string{"md5", "sha256/" + strings.Repeat("0", 64)} {
		qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(blobs, name), 0o777)))
	}
	_, err := s.StatBlob(ctx, "a", digest.Digest("sha256:"+strings.Repeat("0", 64)))
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))

	for _, s := range []registry.Store{s, ocidir.FS(os.DirFS(dir))} {
		qt.Assert(t, qt.DeepEquals(digestsIn(t, s.Blobs(ctx, "a", "")), want))
		for i, after := range want {
			qt.Assert(t, qt.DeepEquals(digestsIn(t, s.Blobs(ctx, "a", after)), append([]digest.Digest(nil), want[i+1:]...)))
		}
		for _, d := range want {
			info, err := s.StatBlob(ctx, "a", d)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(info.Digest, d))
		}
		manifests := []digest.Digest{image.Digest, index.Digest, signature.Digest}
		slices.Sort(manifests)
		qt.Assert(t, qt.DeepEquals(digestsIn(t, s.Manifests(ctx, "a", "")), manifests))
	}
}

// TestTimes checks that the time of content is that of its latest push or mount.
func TestTimes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	blob, manifest := digest.FromString("blob"), digest.FromString("manifest")
	pushBlob := func(repo string, d digest.Digest, data string) func() error {
		return func() error { return registry.PushBlob(ctx, s, repo, d, strings.NewReader(data)) }
	}
	pushManifest := func(tags ...string) func() error {
		return func() error {
			_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte("manifest"), Tags: tags})
			return err
		}
	}
	for _, c := range []struct {
		name, repo string
		d          digest.Digest
		run        func() error
	}{
		{"blob", "a", blob, pushBlob("a", blob, "blob")},
		{"blob_again", "a", blob, pushBlob("a", blob, "blob")},
		{"blob_of_another_repository", "b", blob, pushBlob("b", blob, "blob")},
		{"mount", "c", blob, func() error { return s.MountBlob(ctx, "c", "a", blob) }},
		{"mount_again", "c", blob, func() error { return s.MountBlob(ctx, "c", "a", blob) }},
		{"mount_from_itself", "c", blob, func() error { return s.MountBlob(ctx, "c", "c", blob) }},
		{"manifest", "a", manifest, pushManifest()},
		{"manifest_again", "a", manifest, pushManifest()},
		{"manifest_with_tag", "a", manifest, pushManifest("tag")},
		{"manifest_as_blob", "a", manifest, pushBlob("a", manifest, "manifest")},
		{"manifest_as_blob_again", "a", manifest, pushBlob("a", manifest, "manifest")},
	} {
		t.Run(c.name, func(t *testing.T) {
			// All content is old.
			old := time.Now().Add(-time.Hour)
			for _, repo := range []string{"a", "b", "c"} {
				for _, d := range []digest.Digest{blob, manifest} {
					os.Chtimes(filepath.Join(dir, repo, "blobs/sha256", d.Encoded()), old, old)
				}
			}
			qt.Assert(t, qt.IsNil(c.run()))
			list := s.Blobs(ctx, c.repo, "")
			if c.d == manifest {
				list = s.Manifests(ctx, c.repo, "")
			}
			for info, err := range list {
				qt.Assert(t, qt.IsNil(err))
				if info.Digest == c.d {
					qt.Assert(t, qt.IsTrue(time.Since(info.Time) < 10*time.Minute))
					return
				}
			}
			t.Fatalf("%s is not listed", c.d)
		})
	}
}

// TestInterruptedPush pushes the first blob of a repository again, after a crash
// that left only its file.
func TestInterruptedPush(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := digest.FromString("data")
	file := filepath.Join(dir, "a/blobs/sha256", d.Encoded())
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(file), 0o777)))
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte("data"), 0o666)))
	qt.Check(t, qt.ErrorIs(s.DeleteBlob(ctx, "a", d), error(registry.ErrNameUnknown)))
	_, err := s.StatBlob(ctx, "a", d)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader("data"))))
	_, err = s.StatBlob(ctx, "a", d)
	qt.Check(t, qt.IsNil(err))
}

// TestMissingFile pushes content whose file another tool has removed.
func TestMissingFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	push := func() {
		t.Helper()
		_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte("both"), Tags: []string{"tag"}})
		qt.Assert(t, qt.IsNil(err))
	}
	push()
	d := digest.FromString("both")
	fold(t, dir)
	file := filepath.Join(dir, "a/blobs/sha256", d.Encoded())
	qt.Assert(t, qt.IsNil(os.Remove(file)))
	qt.Assert(t, qt.HasLen(digestsIn(t, s.Manifests(ctx, "a", "")), 0))
	push()
	m, err := s.GetTag(ctx, "a", "tag")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(m.Content), "both"))

	fold(t, dir)
	qt.Assert(t, qt.IsNil(os.Remove(file)))
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader("both"))))
	_, err = s.StatBlob(ctx, "a", d)
	qt.Check(t, qt.IsNil(err))
	_, err = s.GetTag(ctx, "a", "tag")
	qt.Check(t, qt.IsNil(err))
}
