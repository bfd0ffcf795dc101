// SPDX-License-Identifier: Apache-2.0

// Package storetest tests whether an implementation of [registry.Store] satisfies
// its contract. The test of a store is short:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) registry.Store { return open(t.TempDir()) })
//	}
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// Run tests a store. For each test it calls open, which must return a new, empty
// store.
func Run(t *testing.T, open func(t *testing.T) registry.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s tester)
	}{
		{"blobs", testBlobs},
		{"blob_readers", testBlobReaders},
		{"blob_repositories", testBlobRepositories},
		{"stat_blob", testStatBlob},
		{"blob_list", testBlobList},
		{"mounts", testMounts},
		{"find_blob", testFindBlob},
		{"delete_blob_while_reading", testDeleteBlobWhileReading},
		{"uploads", testUploads},
		{"upload_algorithms", testUploadAlgorithms},
		{"upload_rollback", testUploadRollback},
		{"upload_leases", testUploadLeases},
		{"upload_cancel", testUploadCancel},
		{"upload_cancel_stalled", testUploadCancelStalled},
		{"upload_read_errors", testUploadReadErrors},
		{"upload_ids", testUploadIDs},
		{"upload_repositories", testUploadRepositories},
		{"stalled_transfers", testStalledTransfers},
		{"manifests", testManifests},
		{"manifest_list", testManifestList},
		{"push_other_type", testPushOtherType},
		{"delete_manifest", testDeleteManifest},
		{"move_tags", testMoveTags},
		{"allow_tags", testAllowTags},
		{"referrers", testReferrers},
		{"lists", testLists},
		{"list_during_changes", testListDuringChanges},
		{"repository_lifetime", testRepositoryLifetime},
		{"collect", testCollect},
		{"required_content", testRequiredContent},
		{"concurrent_pushes", testConcurrentPushes},
		{"concurrent_referrers", testConcurrentReferrers},
		{"concurrent_manifest_and_blobs", testConcurrentManifestAndBlobs},
		{"concurrent_tag_moves", testConcurrentTagMoves},
		{"concurrent_tag_creation", testConcurrentTagCreation},
		{"concurrent_types", testConcurrentTypes},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, tester{open(t), t.Context()})
		})
	}
}

// tester is the store under test, with a context and helper methods.
type tester struct {
	registry.Store
	ctx context.Context
}

// push pushes data as a blob.
func (s tester) push(t *testing.T, repo, data string) digest.Digest {
	t.Helper()
	d := digest.FromString(data)
	check(t, registry.PushBlob(s.ctx, s, repo, d, strings.NewReader(data)), nil)
	return d
}

// open opens an upload and appends data to it.
func (s tester) open(t *testing.T, repo, data string) registry.Upload {
	t.Helper()
	u, err := s.CreateUpload(s.ctx, repo, registry.UploadOptions{})
	check(t, err, nil)
	appendTo(t, u, data)
	return u
}

// resume resumes an upload.
func (s tester) resume(t *testing.T, repo, id string) registry.Upload {
	t.Helper()
	u, err := s.ResumeUpload(s.ctx, repo, id)
	check(t, err, nil)
	return u
}

// appendTo appends data to an upload.
func appendTo(t *testing.T, u registry.Upload, data string) {
	t.Helper()
	n, err := u.ReadFrom(strings.NewReader(data))
	check(t, err, nil)
	if n != int64(len(data)) {
		t.Fatalf("ReadFrom returned %d, want %d", n, len(data))
	}
}

// wantBlob checks the content of a blob.
func (s tester) wantBlob(t *testing.T, repo string, d digest.Digest, want string) {
	t.Helper()
	r, err := s.OpenBlob(s.ctx, repo, d)
	check(t, err, nil)
	defer r.Close()
	got, err := io.ReadAll(r)
	check(t, err, nil)
	if string(got) != want {
		t.Fatalf("blob %s of %s: got other content of %d bytes, want %d bytes", d, repo, len(got), len(want))
	}
}

// wantNoBlob checks that OpenBlob returns the error want.
func (s tester) wantNoBlob(t *testing.T, repo string, d digest.Digest, want error) {
	t.Helper()
	r, err := s.OpenBlob(s.ctx, repo, d)
	if err == nil {
		r.Close()
	}
	check(t, err, want)
}

// manifest returns a manifest whose content is data.
func manifest(data string) registry.Manifest {
	return registry.Manifest{MediaType: "application/vnd.example+json", Digest: digest.FromString(data), Content: []byte(data)}
}

// put stores a manifest.
func (s tester) put(t *testing.T, repo string, m registry.Manifest, tags ...string) registry.Manifest {
	t.Helper()
	check(t, s.PutManifest(s.ctx, repo, m, tags, nil), nil)
	return m
}

// wantTag checks which manifest a tag points at.
func (s tester) wantTag(t *testing.T, repo, tag string, want registry.Manifest) {
	t.Helper()
	got, err := s.GetTag(s.ctx, repo, tag)
	check(t, err, nil)
	wantManifest(t, got, want)
}

func wantManifest(t *testing.T, got, want registry.Manifest) {
	t.Helper()
	if got.Digest != want.Digest || got.MediaType != want.MediaType || !bytes.Equal(got.Content, want.Content) {
		t.Fatalf("got %s %s %q, want %s %s %q", got.MediaType, got.Digest, got.Content, want.MediaType, want.Digest, want.Content)
	}
}

// check fails the test unless errors.Is(err, want). If want is one of the spec's 14
// errors, err must have its code; if it is another *registry.Error, its code and
// status.
func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// collect returns the items of a list.
func collect[V any](t *testing.T, seq iter.Seq2[V, error]) (all []V) {
	t.Helper()
	for v, err := range seq {
		check(t, err, nil)
		all = append(all, v)
	}
	return all
}

// wantNames checks a list of names.
func wantNames(t *testing.T, seq iter.Seq2[string, error], want ...string) {
	t.Helper()
	if got := collect(t, seq); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// wantListError checks that a list yields only an error.
func wantListError[V any](t *testing.T, seq iter.Seq2[V, error], want error) {
	t.Helper()
	n := 0
	for _, err := range seq {
		check(t, err, want)
		n++
	}
	if n != 1 {
		t.Fatalf("the list has %d items, want only the error", n)
	}
}

// concurrently calls f(0) to f(n-1) concurrently, and waits for all of them.
func concurrently(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(i)
		}()
	}
	wg.Wait()
}

// unknown is a digest that no content has.
var unknown = digest.FromString("unknown")
