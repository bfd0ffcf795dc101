// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/ocidir"
)

// layout is a repository's layout, as it is on disk.
type layout struct {
	dir, repo string
	index     ocispec.Index
	deleted   func(path string) bool // reports whether a client has tried to delete a blob
}

// checkIndexes checks that each index.json in a directory that no registry serves
// names only complete manifests and images, and that skopeo can read an image of
// each. It may be older than the repository: the changes since then are in a
// journal. It returns the number of layouts.
func checkIndexes(t *testing.T, dir string, clients []*client) int {
	t.Helper()
	indexes, err := findIndexes(dir)
	qt.Assert(t, qt.IsNil(err))
	deleted := func(path string) bool {
		for _, c := range clients {
			if c.deleted[path] {
				return true
			}
		}
		return false
	}
	for _, name := range indexes {
		repo, err := filepath.Rel(dir, filepath.Dir(name))
		qt.Assert(t, qt.IsNil(err))
		l := layout{dir: filepath.Dir(name), repo: filepath.ToSlash(repo), deleted: deleted}
		if err := l.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	return len(indexes)
}

// findIndexes returns the names of the index.json of all repositories.
func findIndexes(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".berth" || e.Name() == "blobs" || e.Name() == "lost+found"):
			return filepath.SkipDir
		case e.Name() == "index.json":
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// check checks a layout. It has skopeo read one of its images.
func (l *layout) check() error {
	version, err := os.ReadFile(filepath.Join(l.dir, "oci-layout"))
	if err != nil || !json.Valid(version) {
		return fmt.Errorf("oci-layout is %q: %v", version, err)
	}
	data, err := os.ReadFile(filepath.Join(l.dir, "index.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &l.index); err != nil {
		return err
	}
	var tags []string // of complete images
	for _, d := range l.index.Manifests {
		complete, err := l.checkManifest(d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Digest, err)
		}
		if tag := d.Annotations[ocispec.AnnotationRefName]; complete && tag != "" {
			tags = append(tags, tag)
		}
	}
	if len(tags) == 0 {
		return nil
	}
	return l.copy(tags[rand.IntN(len(tags))])
}

// checkManifest checks a manifest and the content that it names. It reports whether
// it is an image of which nothing was deleted.
func (l *layout) checkManifest(d ocispec.Descriptor) (complete bool, err error) {
	data, err := os.ReadFile(l.file(d.Digest))
	if err != nil {
		return false, err
	}
	if got := digest.FromBytes(data); got != d.Digest || int64(len(data)) != d.Size {
		return false, fmt.Errorf("its file has %d bytes with the digest %s, want %d", len(data), got, d.Size)
	}
	var m struct {
		Config            *ocispec.Descriptor
		Layers, Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return false, err
	}
	for _, child := range m.Manifests {
		if _, err := l.checkManifest(child); err != nil {
			return false, fmt.Errorf("manifest %s: %w", child.Digest, err)
		}
	}
	if m.Config == nil {
		return false, nil
	}
	complete = true
	for _, b := range append(m.Layers, *m.Config) {
		err := l.checkBlob(b)
		if err != nil && !l.deleted(blobPath(l.repo, b.Digest)) {
			return false, fmt.Errorf("blob %s: %w", b.Digest, err)
		}
		complete = complete && err == nil
	}
	return complete, nil
}

func (l *layout) checkBlob(d ocispec.Descriptor) error {
	data, err := os.ReadFile(l.file(d.Digest))
	if err == nil && digest.FromBytes(data) != d.Digest {
		err = fmt.Errorf("its file has %d bytes with the digest %s, want %d", len(data), digest.FromBytes(data), d.Size)
	}
	return err
}

// file returns the name of the file with a digest.
func (l *layout) file(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// copy copies an image with skopeo, if it is installed.
func (l *layout) copy(tag string) error {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		return nil
	}
	tmp, err := os.MkdirTemp("", "skopeo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if out, err := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+l.dir+":"+tag, "dir:"+tmp).CombinedOutput(); err != nil {
		return fmt.Errorf("skopeo copy of %s: %w: %s", tag, err, out)
	}
	return nil
}

// checkTags closes the store in a directory, and checks that each index.json then has
// the clients' tags.
func checkTags(t *testing.T, dir string, clients []*client) {
	t.Helper()
	store, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(store.Close()))
	indexes, err := findIndexes(dir)
	qt.Assert(t, qt.IsNil(err))
	tags := make(state)
	for _, name := range indexes {
		data, err := os.ReadFile(name)
		qt.Assert(t, qt.IsNil(err))
		var index ocispec.Index
		qt.Assert(t, qt.IsNil(json.Unmarshal(data, &index)))
		repo, err := filepath.Rel(dir, filepath.Dir(name))
		qt.Assert(t, qt.IsNil(err))
		for _, d := range index.Manifests {
			if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
				tags[manifestPath(filepath.ToSlash(repo), tag)] = d.Digest
			}
		}
	}
	for _, c := range clients {
		for path, want := range c.state {
			if c.isTag(path, c.shared) || c.isTag(path, c.own) {
				qt.Check(t, qt.Equals(tags[path], want), qt.Commentf("%s in index.json", path))
			}
		}
	}
}

// wantSkopeo logs that skopeo is not installed. In CI it must be.
func wantSkopeo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err == nil {
		return
	} else if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Log("skopeo is not installed: not checking that it can read the layouts")
}

// checkFiles checks that each file in a layout's blobs folder has the digest in its
// name, and that no unknown files exist. It returns the number of blob files.
func checkFiles(t *testing.T, dir string) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		switch parent := filepath.Base(filepath.Dir(name)); {
		case parent == "sha256":
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			qt.Check(t, qt.Equals(digest.FromBytes(data).Encoded(), e.Name()))
			files++
		case slices.Contains([]string{"index.json", ".index.journal", ".index.cache", "oci-layout"}, e.Name()), parent == ".berth", parent == "uploads":
		case strings.HasSuffix(e.Name(), ".tmp"): // being written at the last kill
		default:
			t.Errorf("unexpected file %s", name)
		}
		return nil
	})
	qt.Assert(t, qt.IsNil(err))
	return files
}
