// SPDX-License-Identifier: Apache-2.0

// Tests of Collector.

package storetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// testCollect uses content in each way, and collects it: content that was used since a
// time stays, and all other content goes.
func testCollect(t *testing.T, s tester) {
	if _, err := s.Now(s.ctx); errors.Is(err, registry.ErrUnsupported) {
		t.Skip("the store has no Collector")
	}
	idle, stat, named, mounted := s.push(t, "a", "idle"), s.push(t, "a", "stat"), s.push(t, "a", "named"), s.push(t, "a", "mounted")
	tagged := s.put(t, "a", manifest("tagged"), "tag")
	untagged, pushed, child := s.put(t, "a", manifest("untagged")), s.put(t, "a", manifest("pushed")), s.put(t, "a", manifest("child"))
	found := s.put(t, "a", manifest("found"))
	subject := digest.FromString("subject")
	referrer := manifest("referrer")
	referrer.Subject, referrer.Referrer = subject, registry.Referrer{Digest: referrer.Digest, Descriptor: []byte("{}")}
	s.put(t, "a", referrer)
	blobs := []digest.Digest{idle, stat, named, mounted, unknown}
	manifests := []digest.Digest{tagged.Digest, untagged.Digest, pushed.Digest, child.Digest, found.Digest, referrer.Digest, unknown}

	// All was used a moment ago.
	s.wantCollected(t, s.CollectBlobs, "a", blobs, s.now(t).Add(-time.Minute))
	s.wantCollected(t, s.CollectManifests, "a", manifests, s.now(t).Add(-time.Minute))

	resolution := s.resolution()
	time.Sleep(resolution)
	since := s.now(t)
	time.Sleep(resolution)
	s.wantStat(t, "a", stat, 4)
	check(t, s.MountBlob(s.ctx, "a", "a", mounted), nil)
	s.wantStat(t, "a", named, 5) // as the registry does before a PutManifest that names it
	if _, err := s.StatManifest(s.ctx, "a", child.Digest); err != nil {
		t.Fatal(err)
	}
	index := manifest("index")
	index.Blobs, index.Manifests = []digest.Digest{named}, []digest.Digest{child.Digest}
	s.put(t, "a", index)
	s.put(t, "a", pushed)
	if info, err := s.StatManifest(s.ctx, "a", found.Digest); err != nil || info.Size != int64(len(found.Content)) {
		t.Fatalf("StatManifest: %+v, %v", info, err)
	}
	if _, err := s.StatManifest(s.ctx, "a", unknown); !errors.Is(err, registry.ErrManifestUnknown) {
		t.Fatalf("StatManifest of an unknown manifest: %v", err)
	}

	s.wantCollected(t, s.CollectBlobs, "a", blobs, since, idle)
	s.wantCollected(t, s.CollectManifests, "a", manifests, since, untagged.Digest, referrer.Digest)
	s.wantNoBlob(t, "a", idle, registry.ErrBlobUnknown)
	for d, data := range map[digest.Digest]string{stat: "stat", named: "named", mounted: "mounted"} {
		s.wantBlob(t, "a", d, data)
	}
	s.wantTag(t, "a", "tag", tagged)
	for _, m := range []registry.Manifest{pushed, child, found} {
		got, err := s.GetManifest(s.ctx, "a", m.Digest)
		check(t, err, nil)
		wantManifest(t, got, m)
	}
	for _, m := range []registry.Manifest{untagged, referrer} {
		_, err := s.GetManifest(s.ctx, "a", m.Digest)
		check(t, err, registry.ErrManifestUnknown)
	}
	if list := collect(t, s.Referrers(s.ctx, "a", subject, "")); len(list) != 0 {
		t.Fatalf("referrers after the collection: %v", list)
	}

	// The last content of a repository takes the repository with it.
	last := s.push(t, "b", "last")
	time.Sleep(resolution)
	since = s.now(t)
	s.wantCollected(t, s.CollectBlobs, "b", []digest.Digest{last}, since, last)
	wantNames(t, s.Repositories(s.ctx, ""), "a")
	_, err := s.CollectRest(s.ctx, since)
	check(t, err, nil)
}

// resolution returns a time within which the store may not tell one use from another.
func (s tester) resolution() time.Duration {
	inner := s.Store
	for {
		if _, ok := inner.(*registry.MemStore); ok {
			return time.Millisecond
		}
		outer, ok := inner.(interface{ Unwrap() registry.Store })
		if !ok {
			return 1100 * time.Millisecond
		}
		inner = outer.Unwrap()
	}
}

func (s tester) now(t *testing.T) time.Time {
	t.Helper()
	now, err := s.Now(s.ctx)
	check(t, err, nil)
	return now
}

// testRequiredContent checks that PutManifest rejects a manifest if the repository
// lacks what it requires, in stores that check that.
func testRequiredContent(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	m := manifest("m")
	m.Blobs = []digest.Digest{d, unknown}
	switch err := s.PutManifest(s.ctx, "a", m, nil, nil); {
	case err == nil:
		return // it leaves that to the registry
	case !errors.Is(err, registry.ErrManifestBlobUnknown) || !strings.Contains(err.Error(), string(unknown)):
		t.Fatal(err)
	}
	_, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, registry.ErrManifestUnknown)
	m.Sparse = true
	s.put(t, "a", m)
	got, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, nil)
	if got.Blobs != nil || got.Manifests != nil || got.Sparse {
		t.Errorf("GetManifest returned %+v", got)
	}
}

// wantCollected collects content, and checks what was deleted.
func (s tester) wantCollected(t *testing.T, f collectFunc, repo string, content []digest.Digest, since time.Time, want ...digest.Digest) {
	t.Helper()
	infos, err := f(s.ctx, repo, content, since)
	check(t, err, nil)
	var got []digest.Digest
	for _, info := range infos {
		got = append(got, info.Digest)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("collected %v, want %v", got, want)
	}
}

type collectFunc func(ctx context.Context, repo string, content []digest.Digest, since time.Time) ([]registry.Info, error)
