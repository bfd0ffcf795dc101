// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

var (
	scaleTags = flag.Int("copy-tags", 200, "number of tags that TestCopyScale copies")
	scaleTo   = flag.String("copy-to", "dir:", "kind of store that TestCopyScale copies to: dir:, file:// or mem:")

	scaleManifests = flag.Int("copy-manifests", 1000, "number of manifests that TestCopyMemory copies")
)

// TestCopyScale copies a repository, and prints how long it takes with half of its
// tags, with all, and when there is nothing to copy. With many tags:
//
//	go test -v -timeout 20m -run TestCopyScale ./cmd/berth -copy-tags=10000
func TestCopyScale(t *testing.T) {
	half := timeCopies(t, *scaleTags/2)
	all := timeCopies(t, *scaleTags)
	t.Logf("%d tags take %.2f times as long as %d", *scaleTags, all.Seconds()/half.Seconds(), *scaleTags/2)
}

func timeCopies(t *testing.T, tags int) (first time.Duration) {
	t.Helper()
	from := new(registry.MemStore)
	for n := range tags {
		layer := pushBlob(t, from, "big", fmt.Sprint("layer ", n))
		image := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"digest":%q}]}`, pushBlob(t, from, "big", "{}"), layer)
		pushManifest(t, from, "big", "application/vnd.oci.image.manifest.v1+json", image, "", fmt.Sprint("t", n))
	}
	name := *scaleTo
	if name != "mem:" {
		name += filepath.Join(t.TempDir(), "to")
	}
	if *scaleTo == "file://" {
		name += "?create_dir=1"
	}
	to, closer, err := openStore(t.Context(), name, storeOptions{warn: func(string) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer closer.Close()
	var took [2]time.Duration
	for i := range took {
		began := time.Now()
		job := copyAll(t, from, to)
		took[i] = time.Since(began)
		if err := job.failures.err(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d tags: %v; when there is nothing to copy: %v, %.1f times as fast", tags, took[0], took[1], took[0].Seconds()/took[1].Seconds())
	return took[0]
}

// generatedStore is a source with manifests of 50 KB, made when they are read.
type generatedStore struct {
	registry.UnimplementedStore
	tags  []string
	infos []registry.Info
	index map[digest.Digest]int // of tags
}

func newGeneratedStore(n int) *generatedStore {
	s := &generatedStore{index: make(map[digest.Digest]int)}
	for i := range n {
		m := s.manifest(i)
		s.tags = append(s.tags, fmt.Sprintf("t%09d", i))
		s.index[m.Digest] = i
		s.infos = append(s.infos, registry.Info{Digest: m.Digest, Size: int64(len(m.Content))})
	}
	slices.SortFunc(s.infos, func(a, b registry.Info) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return s
}

func (s *generatedStore) manifest(i int) registry.Manifest {
	content := fmt.Appendf(nil, "%50000d", i)
	return registry.Manifest{MediaType: "text/plain", Content: content, Digest: digest.FromBytes(content)}
}

func (s *generatedStore) Repositories(context.Context, string) iter.Seq2[string, error] {
	return values([]string{"big"})
}

// Tags yields half of the tags: the other manifests have none.
func (s *generatedStore) Tags(context.Context, string, string) iter.Seq2[string, error] {
	return values(s.tags[:len(s.tags)/2])
}

func (s *generatedStore) GetTag(_ context.Context, _, tag string) (registry.Manifest, error) {
	i, _ := slices.BinarySearch(s.tags, tag)
	return s.manifest(i), nil
}

func (s *generatedStore) GetManifest(_ context.Context, _ string, d digest.Digest) (registry.Manifest, error) {
	return s.manifest(s.index[d]), nil
}

func (s *generatedStore) Manifests(context.Context, string, digest.Digest) iter.Seq2[registry.Info, error] {
	return values(s.infos)
}

func (s *generatedStore) Blobs(context.Context, string, digest.Digest) iter.Seq2[registry.Info, error] {
	return values[registry.Info](nil)
}

// discardStore is a destination that keeps nothing, and measures memory.
type discardStore struct {
	registry.MemStore
	puts atomic.Int64
	at   int64 // the push at which memory is measured
	heap atomic.Uint64
}

func (s *discardStore) PutManifest(context.Context, string, registry.Manifest, []string, registry.AllowFunc) error {
	if s.puts.Add(1) == s.at {
		s.heap.Store(heapSize())
	}
	return nil
}

// heapSize returns the least of some measurements: the copy makes garbage meanwhile.
func heapSize() uint64 {
	least := uint64(math.MaxUint64)
	for range 5 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		least = min(least, stats.HeapAlloc)
	}
	return least
}

// TestCopyMemory checks that a copy holds no content. With many manifests:
//
//	go test -v -run TestCopyMemory ./cmd/berth -copy-manifests=100000
func TestCopyMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures memory")
	}
	n := *scaleManifests
	from, to := newGeneratedStore(n), &discardStore{at: int64(n) - 100}
	before := heapSize()
	job := copyAll(t, from, to)
	if got := job.copied.manifests.Load(); got != int64(n) {
		t.Fatalf("copied %d manifests: %v", got, job.failures.list)
	}
	used := int64(to.heap.Load()) - int64(before)
	t.Logf("%d manifests of 50 KB: %.1f MB in use at the end", n, float64(used)/1e6)
	if limit := int64(10<<20 + 500*n); used > limit {
		t.Errorf("more than %d bytes", limit)
	}
	runtime.KeepAlive(from)
}
