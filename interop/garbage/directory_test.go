// SPDX-License-Identifier: Apache-2.0

package garbage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// writeLayouts writes the content that fill pushes, as a tool would: files are not
// synced. All were used an hour ago.
func writeLayouts(t *testing.T, dir string, of size) {
	t.Helper()
	indexes := make(map[string]*ocispec.Index)
	made := make(map[string]bool)
	write := func(name string, data []byte) {
		name = filepath.Join(dir, name)
		if parent := filepath.Dir(name); !made[parent] {
			qt.Assert(t, qt.IsNil(os.MkdirAll(parent, 0o777)))
			made[parent] = true
		}
		qt.Assert(t, qt.IsNil(os.WriteFile(name, data, 0o666)))
		used := time.Now().Add(-time.Hour)
		qt.Assert(t, qt.IsNil(os.Chtimes(name, used, used)))
	}
	blob := func(repo string, data []byte) digest.Digest {
		d := digest.FromBytes(data)
		write(filepath.Join(repo, "blobs", "sha256", d.Encoded()), data)
		return d
	}
	for image := range of.Images {
		repo := of.repo(image)
		index := indexes[repo]
		if index == nil {
			index = &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
			indexes[repo] = index
			write(filepath.Join(repo, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`))
			blob(repo, []byte("{}"))
		}
		for n := range layersPerImage {
			blob(repo, []byte(layer(image, n)))
		}
		content := manifest(image, "")
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: blob(repo, content), Size: int64(len(content))}
		if !isGarbage(image) {
			d.Annotations = map[string]string{ocispec.AnnotationRefName: fmt.Sprint("image", image)}
		}
		index.Manifests = append(index.Manifests, d)
	}
	for repo, index := range indexes {
		data, err := json.Marshal(index)
		qt.Assert(t, qt.IsNil(err))
		write(filepath.Join(repo, ocispec.ImageIndexFile), data)
	}
}

// timedStore notes how long each batch of a collection takes.
type timedStore struct {
	registry.Store
	manifests, blobs []time.Duration
}

func (s *timedStore) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	start := time.Now()
	defer func() { s.manifests = append(s.manifests, time.Since(start)) }()
	return s.Store.CollectManifests(ctx, repo, manifests, since)
}

func (s *timedStore) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	start := time.Now()
	defer func() { s.blobs = append(s.blobs, time.Since(start)) }()
	return s.Store.CollectBlobs(ctx, repo, blobs, since)
}

// TestDirectory measures how a push waits for a collection of the same repository, the
// only one of a directory.
func TestDirectory(t *testing.T) {
	of, quiet := size{1, 200}, 100*time.Millisecond
	if *figures {
		of, quiet = size{1, 10_000}, 10*time.Second
	}
	dir := t.TempDir()
	start := time.Now()
	writeLayouts(t, dir, of)
	t.Logf("filled in %v", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	t.Logf("opened in %v", time.Since(start).Round(time.Millisecond))

	// push pushes blobs and manifests, one after the other, until done is closed.
	push := func(note string, done <-chan struct{}) (blobs, manifests []time.Duration) {
		for i := 0; ; i++ {
			select {
			case <-done:
				return blobs, manifests
			default:
			}
			start := time.Now()
			data := fmt.Sprint("blob ", note, i)
			qt.Check(t, qt.IsNil(registry.PushBlob(t.Context(), s, of.repo(0), digest.FromString(data), strings.NewReader(data))))
			pushed := time.Now()
			blobs = append(blobs, pushed.Sub(start))
			_, err := registry.PushManifest(t.Context(), s, of.repo(0), registry.ManifestPush{Content: manifest(i%9, fmt.Sprint(note, i)), Tags: []string{fmt.Sprint(note, i)}})
			qt.Check(t, qt.IsNil(err))
			manifests = append(manifests, time.Since(pushed))
			time.Sleep(10 * time.Millisecond)
		}
	}
	done := make(chan struct{})
	time.AfterFunc(quiet, func() { close(done) })
	quietBlobs, quietManifests := push("quiet", done)

	timed := &timedStore{Store: s}
	done = make(chan struct{})
	var c collected
	go func() {
		defer close(done)
		var err error
		c, err = collect(t.Context(), timed)
		qt.Check(t, qt.IsNil(err))
	}()
	busyBlobs, busyManifests := push("busy", done)
	qt.Check(t, qt.Equals(c.Report.Manifests, of.Images/10))
	qt.Check(t, qt.IsTrue(c.Report.Blobs >= of.Images/10*layersPerImage))
	t.Logf("collection in %v: %d MB allocated, %d batches of blobs, each %v to %v, %d batches of manifests, each %v to %v", c.Duration.Round(time.Millisecond), c.Allocated>>20,
		len(timed.blobs), slices.Min(timed.blobs), slices.Max(timed.blobs), len(timed.manifests), slices.Min(timed.manifests), slices.Max(timed.manifests))
	t.Logf("pushes of a blob     without a collection %s", quantiles(quietBlobs))
	t.Logf("pushes of a blob     during a collection  %s", quantiles(busyBlobs))
	t.Logf("pushes of a manifest without a collection %s", quantiles(quietManifests))
	t.Logf("pushes of a manifest during a collection  %s", quantiles(busyManifests))
}
