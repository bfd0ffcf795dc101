// SPDX-License-Identifier: Apache-2.0

// Tests of concurrent operations.

package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// testConcurrentPushes pushes and mounts the same content concurrently.
func testConcurrentPushes(t *testing.T, s tester) {
	concurrently(16, func(i int) {
		repo := fmt.Sprintf("repo%d", i%4)
		data := fmt.Sprintf("data%d", i/8)
		d := digest.FromString(data)
		if err := registry.PushBlob(s.ctx, s, repo, d, strings.NewReader(data)); err != nil {
			t.Error(err)
		}
		if err := s.PutManifest(s.ctx, repo, manifest(data), []string{fmt.Sprintf("tag%d", i)}, nil); err != nil {
			t.Error(err)
		}
		if err := s.MountBlob(s.ctx, "mounted", repo, d); err != nil {
			t.Error(err)
		}
	})
	for i := range 16 {
		repo := fmt.Sprintf("repo%d", i%4)
		data := fmt.Sprintf("data%d", i/8)
		s.wantBlob(t, repo, digest.FromString(data), data)
		s.wantBlob(t, "mounted", digest.FromString(data), data)
		s.wantTag(t, repo, fmt.Sprintf("tag%d", i), manifest(data))
	}
}

// testConcurrentReferrers checks that no referrer is lost if many are pushed
// concurrently.
func testConcurrentReferrers(t *testing.T, s tester) {
	const n = 100
	subject := digest.FromString("subject")
	concurrently(n, func(i int) {
		content := fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"subject":{"mediaType":"x/y","size":1,"digest":%q},"annotations":{"n":"%d"}}`, subject, i)
		_, err := registry.PushManifest(s.ctx, s, "a", registry.ManifestPush{MediaType: ocispec.MediaTypeImageIndex, Content: []byte(content)})
		if err != nil {
			t.Error(err)
		}
	})
	if got := collect(t, s.Referrers(s.ctx, "a", subject, "")); len(got) != n {
		t.Fatalf("got %d referrers, want %d", len(got), n)
	}
}

// testConcurrentTagMoves moves a tag while it is read, and checks that each reader
// gets a complete manifest.
func testConcurrentTagMoves(t *testing.T, s tester) {
	s.put(t, "a", manifest("0"), "tag")
	concurrently(16, func(i int) {
		for j := range 10 {
			if i%2 == 0 {
				if err := s.PutManifest(s.ctx, "a", manifest(fmt.Sprint(i, j)), []string{"tag"}, nil); err != nil {
					t.Error(err)
				}
				continue
			}
			m, err := s.GetTag(s.ctx, "a", "tag")
			if err != nil {
				t.Error(err)
			} else if digest.FromBytes(m.Content) != m.Digest {
				t.Errorf("%s has the content of another manifest", m.Digest)
			}
		}
	})
}

// testConcurrentTagCreation checks that exactly one of many conditional pushes
// creates a tag.
func testConcurrentTagCreation(t *testing.T, s tester) {
	var mu sync.Mutex
	created := 0
	concurrently(16, func(i int) {
		err := s.PutManifest(s.ctx, "a", manifest(fmt.Sprint(i)), []string{"tag"}, func(_ string, current digest.Digest) error {
			if current != "" {
				return registry.ErrDenied
			}
			return nil
		})
		switch {
		case err == nil:
			mu.Lock()
			created++
			mu.Unlock()
		case !errors.Is(err, registry.ErrDenied):
			t.Error(err)
		}
	})
	if created != 1 {
		t.Fatalf("%d pushes created the tag, want 1", created)
	}
}

// testConcurrentTypes pushes the same bytes with two media types concurrently, each
// with a tag: all pushes with one of the types succeed, and all others fail without
// effect.
func testConcurrentTypes(t *testing.T, s tester) {
	for round := range 5 {
		const n = 8
		var errs [n]error
		manifests := [2]registry.Manifest{manifest(fmt.Sprint(round)), manifest(fmt.Sprint(round))}
		manifests[1].MediaType = "application/x-other"
		tag := func(i int) string { return fmt.Sprintf("tag-%d-%d", round, i) }
		concurrently(n, func(i int) {
			errs[i] = s.PutManifest(s.ctx, "a", manifests[i%2], []string{tag(i)}, nil)
		})
		got, err := s.GetManifest(s.ctx, "a", manifests[0].Digest)
		check(t, err, nil)
		for i, err := range errs {
			if m := manifests[i%2]; m.MediaType == got.MediaType {
				check(t, err, nil)
				s.wantTag(t, "a", tag(i), m)
				continue
			}
			check(t, err, registry.ErrManifestInvalid)
			_, err := s.GetTag(s.ctx, "a", tag(i))
			check(t, err, registry.ErrManifestUnknown)
		}
	}
}

// testConcurrentManifestAndBlobs pushes and deletes a manifest, which is never a
// blob, not even for a moment.
func testConcurrentManifestAndBlobs(t *testing.T, s tester) {
	s.push(t, "a", "blob")
	m := manifest("manifest")
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := s.StatBlob(s.ctx, "a", m.Digest); err == nil {
				t.Error("StatBlob returns a manifest")
				return
			}
			if r, err := s.OpenBlob(s.ctx, "a", m.Digest); err == nil {
				r.Close()
				t.Error("OpenBlob returns a manifest")
				return
			}
			for info, err := range s.Blobs(s.ctx, "a", "") {
				if err == nil && info.Digest == m.Digest {
					t.Error("Blobs yields a manifest")
					return
				}
			}
		}
	}()
	for range 20 {
		s.put(t, "a", m, "tag")
		check(t, s.DeleteManifest(s.ctx, "a", m.Digest), nil)
	}
	close(stop)
	<-done
}
