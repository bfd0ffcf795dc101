// SPDX-License-Identifier: Apache-2.0

// Tests of StatBlob, Blobs and Manifests.

package storetest

import (
	"context"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// testStatBlob checks StatBlob for blobs that were pushed, mounted, deleted, pushed
// again, and for unknown ones.
func testStatBlob(t *testing.T, s tester) {
	s.wantNoStat(t, "a", unknown, registry.ErrNameUnknown)
	d := s.push(t, "a", "data")
	s.wantStat(t, "a", d, 4)
	s.wantNoStat(t, "a", unknown, registry.ErrBlobUnknown)
	s.wantNoStat(t, "b", d, registry.ErrNameUnknown)
	s.put(t, "b", manifest("m"))
	s.wantNoStat(t, "b", d, registry.ErrBlobUnknown)
	s.wantNoStat(t, "b", manifest("m").Digest, registry.ErrBlobUnknown)

	check(t, s.MountBlob(s.ctx, "b", "a", d), nil)
	first := s.wantStat(t, "b", d, 4)
	empty := s.push(t, "b", "")
	s.wantStat(t, "b", empty, 0)
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	s.wantNoStat(t, "a", d, registry.ErrNameUnknown)

	// Pushing a blob again renews its time.
	time.Sleep(1100 * time.Millisecond) // some clocks have a resolution of a second
	s.push(t, "b", "data")
	if again := s.wantStat(t, "b", d, 4); !again.Time.After(first.Time) {
		t.Fatalf("time after the second push: %v, want one after %v", again.Time, first.Time)
	}
}

// testBlobList checks Blobs, also for a repository that holds only manifests, and
// for a blob that is also a manifest.
func testBlobList(t *testing.T, s tester) {
	wantListError(t, s.Blobs(s.ctx, "a", ""), registry.ErrNameUnknown)
	s.put(t, "a", manifest("m"))
	wantInfos(t, s.Blobs(s.ctx, "a", ""))
	testInfoList(t, s, s.Blobs, func(repo, data string) digest.Digest { return s.push(t, repo, data) })

	for _, info := range collect(t, s.Blobs(s.ctx, "a", "")) {
		check(t, s.DeleteBlob(s.ctx, "a", info.Digest), nil)
	}
	wantInfos(t, s.Blobs(s.ctx, "a", ""))

	// The same content may be a manifest and a blob.
	m := s.put(t, "a", manifest("both"))
	wantInfos(t, s.Blobs(s.ctx, "a", ""))
	s.push(t, "a", "both")
	wantInfos(t, s.Blobs(s.ctx, "a", ""), m.Digest)
	check(t, s.DeleteManifest(s.ctx, "a", m.Digest), nil)
	wantInfos(t, s.Blobs(s.ctx, "a", ""), m.Digest)
}

// testManifestList checks Manifests, also for a repository that holds only blobs,
// and for a manifest that is pushed again.
func testManifestList(t *testing.T, s tester) {
	wantListError(t, s.Manifests(s.ctx, "a", ""), registry.ErrNameUnknown)
	d := s.push(t, "a", "blob")
	wantInfos(t, s.Manifests(s.ctx, "a", ""))
	testInfoList(t, s, s.Manifests, func(repo, data string) digest.Digest {
		return s.put(t, repo, manifest(data), "tag-of-"+data[:1]).Digest
	})
	s.wantStat(t, "a", d, 4)

	first := collect(t, s.Manifests(s.ctx, "a", ""))
	time.Sleep(1100 * time.Millisecond) // some clocks have a resolution of a second
	s.put(t, "a", manifest(infoData[0]))
	for _, info := range collect(t, s.Manifests(s.ctx, "a", "")) {
		i := slices.IndexFunc(first, func(old registry.Info) bool { return old.Digest == info.Digest })
		if i < 0 {
			t.Fatalf("%s was not in the first list", info.Digest)
		}
		if old := first[i]; info.Digest == digest.FromString(infoData[0]) && !info.Time.After(old.Time) {
			t.Fatalf("time after the second push: %v, want one after %v", info.Time, old.Time)
		}
		check(t, s.DeleteManifest(s.ctx, "a", info.Digest), nil)
	}
	wantInfos(t, s.Manifests(s.ctx, "a", ""))
}

// infoData is the content that testInfoList pushes.
var infoData = []string{"1", "22", "333", "4444", "55555", strings.Repeat("6", 100_000)}

// testInfoList pushes content, and checks the list of it, from the start and after
// each digest.
func testInfoList(t *testing.T, s tester, list func(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error], push func(repo, data string) digest.Digest) {
	t.Helper()
	size := make(map[digest.Digest]int)
	var digests []digest.Digest
	for _, data := range infoData {
		d := push("a", data)
		push("a/b", data+"x")
		size[d] = len(data)
		digests = append(digests, d)
	}
	slices.Sort(digests)
	for i, after := range append([]digest.Digest{""}, digests...) {
		wantInfos(t, list(s.ctx, "a", after), digests[i:]...)
	}
	wantInfos(t, list(s.ctx, "a", "sha256:"), digests...)
	wantInfos(t, list(s.ctx, "a", "sha256:zz"))
	for _, info := range collect(t, list(s.ctx, "a", "")) {
		wantInfo(t, info, info.Digest, size[info.Digest])
	}
	for range list(s.ctx, "a", "") {
		break // callers may stop early
	}
}

// wantInfo checks the Info of content that was just pushed. The store's clock may
// differ from ours.
func wantInfo(t *testing.T, got registry.Info, d digest.Digest, size int) {
	t.Helper()
	if got.Digest != d || got.Size != int64(size) {
		t.Fatalf("got %s, %d bytes, want %s, %d bytes", got.Digest, got.Size, d, size)
	}
	if age := time.Since(got.Time).Abs(); age > 10*time.Minute {
		t.Fatalf("%s: got time %v, %v from now", d, got.Time, age)
	}
}

// wantInfos checks the digests of a list.
func wantInfos(t *testing.T, seq iter.Seq2[registry.Info, error], want ...digest.Digest) {
	t.Helper()
	var got []digest.Digest
	for _, info := range collect(t, seq) {
		got = append(got, info.Digest)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// wantStat checks the Info of a blob that was just pushed, and returns it.
func (s tester) wantStat(t *testing.T, repo string, d digest.Digest, size int) registry.Info {
	t.Helper()
	info, err := s.StatBlob(s.ctx, repo, d)
	check(t, err, nil)
	wantInfo(t, info, d, size)
	return info
}

// wantNoStat checks that StatBlob returns the error want.
func (s tester) wantNoStat(t *testing.T, repo string, d digest.Digest, want error) {
	t.Helper()
	_, err := s.StatBlob(s.ctx, repo, d)
	check(t, err, want)
}
