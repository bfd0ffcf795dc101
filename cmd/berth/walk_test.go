// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// TestListRepeated lists indexes that name the next one many times: as a tree it would
// have 50⁵ manifests.
func TestListRepeated(t *testing.T) {
	s := new(registry.MemStore)
	d := pushManifest(t, s, "app", ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[]}`, "")
	for n := range 5 {
		entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, ocispec.MediaTypeImageIndex, d)
		d = pushManifest(t, s, "app", ocispec.MediaTypeImageIndex, fmt.Sprintf(`{"schemaVersion":2,"annotations":{"n":"%d"},"manifests":[%s]}`, n, strings.Repeat(entry+",", 49)+entry), "", "v1")
	}
	var out bytes.Buffer
	l := &lister{store: s, w: &out}
	if err := l.repository(t.Context(), ref{repo: "app", tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(out.String(), "\n"), 2+5*50; got != want {
		t.Errorf("%d lines, want %d", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l = &lister{store: s}
	if _, err := l.node(ctx, "app", registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Digest: d}, 0); err != context.Canceled {
		t.Error("a list that was interrupted:", err)
	}
}

// endless is a contentSource whose manifests name ever more manifests.
type endless struct{ n int }

func (s *endless) manifest(context.Context, string, digest.Digest) (registry.Manifest, error) {
	var index ocispec.Index
	for range 2000 {
		s.n++
		index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString(fmt.Sprint(s.n)), Size: 1})
	}
	index.SchemaVersion = 2
	content, err := json.Marshal(index)
	return registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Content: content, Digest: digest.FromBytes(content)}, err
}

func (s *endless) referrers(context.Context, digest.Digest) ([]reference, error) { return nil, nil }

// TestWalkEndless checks that a walk ends that finds new content in each step.
func TestWalkEndless(t *testing.T) {
	defer func(n int) { maxWalk = n }(maxWalk)
	maxWalk = 10_000
	src := lockedSource{contentSource: new(endless), lock: make(chan struct{}, 1)}
	_, err := walk(t.Context(), src, []reference{{Digest: digest.FromString("root")}}, true)
	if err == nil || err.Error() != "it leads to more than 10000 manifests and blobs" {
		t.Error(err)
	}
}

// lockedSource is a contentSource for one caller at a time.
type lockedSource struct {
	contentSource
	lock chan struct{}
}

func (s lockedSource) manifest(ctx context.Context, mediaType string, d digest.Digest) (registry.Manifest, error) {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	return s.contentSource.manifest(ctx, mediaType, d)
}
