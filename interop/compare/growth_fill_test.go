// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Filling the directories of TestGrowth.

package compare

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fill pushes manifests until each repository has size of them, at least until the
// deadline. It reports whether it could.
func (d *disk) fill(t testing.TB, size int, deadline time.Time) bool {
	t.Helper()
	if d.kind == "olareg" {
		d.writeLayouts(t, size) // it writes the whole index.json for each push
		return true
	}
	s, _ := d.start(t)
	defer s.stop(t)
	if d.filled == 0 {
		c := s.connect(t)
		for _, repo := range []string{growing, referred} {
			for _, data := range [][]byte{growthConfig, growthLayer} {
				if err := c.push(repo, data, digest.FromBytes(data), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := c.want(201, "PUT", "/v2/"+referred+"/manifests/subject", growthImage(-1, nil), "Content-Type: "+imageType); err != nil {
			t.Fatal(err)
		}
	}
	for _, push := range []func(*conn, int) error{pushTagged, pushReferrerTo} {
		if !s.concurrently(t, 32, d.filled, size, deadline, push) {
			return false
		}
	}
	d.filled = size
	return true
}

// concurrently calls op for first to end-1, on n connections. It reports whether
// it finished before the deadline.
func (s *server) concurrently(t testing.TB, n, first, end int, deadline time.Time, op func(*conn, int) error) bool {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(first))
	errs := make([]error, n)
	var wg sync.WaitGroup
	for w := range n {
		c := s.connect(t)
		wg.Go(func() {
			defer c.Close()
			for errs[w] == nil && time.Now().Before(deadline) {
				i := int(next.Add(1)) - 1
				if i >= end {
					return
				}
				errs[w] = op(c, i)
			}
		})
	}
	wg.Wait()
	if err := cmp.Or(errs...); err != nil {
		t.Fatal(err)
	}
	return int(next.Load()) >= end
}

// writeLayouts writes the repositories as olareg does: as OCI image layouts, in
// which an annotation marks a list of referrers.
func (d *disk) writeLayouts(t testing.TB, size int) {
	t.Helper()
	tags := &layoutWriter{t: t, dir: filepath.Join(d.dir, growing)}
	var tagged []ocispec.Descriptor
	for i := range size {
		tagged = append(tagged, tags.add(imageType, growthImage(i, nil), ocispec.AnnotationRefName, growthTag(i)))
	}
	tags.finish(tagged)

	list := &layoutWriter{t: t, dir: filepath.Join(d.dir, referred)}
	subject := growthSubject()
	var referrers []ocispec.Descriptor
	for i := range size {
		entry := list.add(imageType, growthImage(i, &subject), "number", fmt.Sprint(i))
		entry.ArtifactType = "application/vnd.example.signature"
		referrers = append(referrers, entry)
	}
	list.finish([]ocispec.Descriptor{
		list.add(imageType, growthImage(-1, nil), ocispec.AnnotationRefName, "subject"),
		list.add(indexType, indexOf(referrers), "org.olareg.referrer.subject", subject.Digest.String()),
	})
}

// indexOf returns an index whose lists of referrers olareg takes as its own.
func indexOf(manifests []ocispec.Descriptor) []byte {
	index := ocispec.Index{MediaType: indexType, Manifests: manifests, Annotations: map[string]string{"org.olareg.referrer.convert": "true"}}
	index.SchemaVersion = 2
	data, _ := json.Marshal(index) // cannot fail
	return data
}

// layoutWriter writes an OCI image layout.
type layoutWriter struct {
	t   testing.TB
	dir string
}

// add writes a manifest, and returns its entry with an annotation.
func (w *layoutWriter) add(mediaType string, data []byte, annotation, value string) ocispec.Descriptor {
	desc := describe(mediaType, data)
	desc.Annotations = map[string]string{annotation: value}
	w.write("blobs/sha256/"+desc.Digest.Encoded(), data)
	return desc
}

// finish writes the blobs that all manifests share, and the files of the layout.
func (w *layoutWriter) finish(manifests []ocispec.Descriptor) {
	for _, data := range [][]byte{growthConfig, growthLayer} {
		w.write("blobs/sha256/"+digest.FromBytes(data).Encoded(), data)
	}
	w.write(ocispec.ImageIndexFile, indexOf(manifests))
	w.write(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
}

func (w *layoutWriter) write(name string, data []byte) {
	name = filepath.Join(w.dir, name)
	err := os.MkdirAll(filepath.Dir(name), 0o777)
	if err == nil {
		err = os.WriteFile(name, data, 0o666)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
