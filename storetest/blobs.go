// SPDX-License-Identifier: Apache-2.0

// Tests of blobs.

package storetest

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// testBlobs pushes, pulls and deletes blobs of several sizes.
func testBlobs(t *testing.T, s tester) {
	s.wantNoBlob(t, "a", unknown, registry.ErrNameUnknown)
	check(t, s.DeleteBlob(s.ctx, "a", unknown), registry.ErrNameUnknown)

	for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 3<<20 + 17} {
		data := strings.Repeat("0123456789abcde", size/15+1)[:size]
		d := s.push(t, "a/b", data)
		s.wantBlob(t, "a/b", d, data)
		s.push(t, "a/b", data) // again
		s.wantBlob(t, "a/b", d, data)
	}
	s.wantNoBlob(t, "a/b", unknown, registry.ErrBlobUnknown)
	check(t, s.DeleteBlob(s.ctx, "a/b", unknown), registry.ErrBlobUnknown)
	// The parent path is another repository.
	s.wantNoBlob(t, "a", digest.FromString(""), registry.ErrNameUnknown)

	d := s.push(t, "a/b", "data")
	check(t, s.DeleteBlob(s.ctx, "a/b", d), nil)
	s.wantNoBlob(t, "a/b", d, registry.ErrBlobUnknown)
	check(t, s.DeleteBlob(s.ctx, "a/b", d), registry.ErrBlobUnknown)
	s.push(t, "a/b", "data")
	s.wantBlob(t, "a/b", d, "data")
}

// testBlobReaders seeks in a blob and reads parts of it.
func testBlobReaders(t *testing.T, s tester) {
	data := strings.Repeat("0123456789abcde", 100_000)
	r, err := s.OpenBlob(s.ctx, "a", s.push(t, "a", data))
	check(t, err, nil)
	defer r.Close()
	size, err := r.Seek(0, io.SeekEnd)
	check(t, err, nil)
	if size != int64(len(data)) {
		t.Fatalf("got size %d, want %d", size, len(data))
	}
	for _, at := range []int64{0, size - 1, 4096, 1, 1 << 20, size} {
		if got, err := r.Seek(at, io.SeekStart); got != at || err != nil {
			t.Fatalf("Seek(%d) returned %d, %v", at, got, err)
		}
		part, err := io.ReadAll(io.LimitReader(r, 5000))
		check(t, err, nil)
		if want := data[at:min(at+5000, size)]; string(part) != want {
			t.Fatalf("wrong content at %d", at)
		}
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Fatal("Seek(-1) succeeded")
	}
}

// testBlobRepositories checks that a blob can be read only through the repositories
// that it was pushed to.
func testBlobRepositories(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	s.push(t, "b", "other")
	s.wantNoBlob(t, "b", d, registry.ErrBlobUnknown)
	check(t, s.DeleteBlob(s.ctx, "b", d), registry.ErrBlobUnknown)
	s.push(t, "b", "data")
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	s.wantBlob(t, "b", d, "data")
	s.wantNoBlob(t, "a", d, registry.ErrNameUnknown)
}

// testMounts mounts a blob, and checks that both repositories then hold it
// independently.
func testMounts(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	check(t, s.MountBlob(s.ctx, "b", "unknown", d), registry.ErrNameUnknown)
	check(t, s.MountBlob(s.ctx, "b", "a", unknown), registry.ErrBlobUnknown)
	s.wantNoBlob(t, "b", d, registry.ErrNameUnknown)
	check(t, s.MountBlob(s.ctx, "b", "a", d), nil)
	check(t, s.MountBlob(s.ctx, "b", "a", d), nil)
	check(t, s.MountBlob(s.ctx, "b", "b", d), nil)
	s.wantBlob(t, "b", d, "data")
	// Each repository holds the blob on its own.
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	s.wantBlob(t, "b", d, "data")
	check(t, s.MountBlob(s.ctx, "b", "a", d), registry.ErrNameUnknown)
	check(t, s.DeleteBlob(s.ctx, "b", d), nil)
	s.wantNoBlob(t, "b", d, registry.ErrNameUnknown)
}

// testFindBlob checks which repositories FindBlob yields. A store without an index
// may yield none, but must not yield a wrong one.
func testFindBlob(t *testing.T, s tester) {
	wantNames(t, s.FindBlob(s.ctx, unknown))
	d := s.push(t, "b", "data")
	s.push(t, "a", "data")
	s.push(t, "c", "other")
	if got := collect(t, s.FindBlob(s.ctx, d)); len(got) > 0 {
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("got %q, want \"a\" and \"b\"", got)
		}
		check(t, s.DeleteBlob(s.ctx, "a", d), nil)
		wantNames(t, s.FindBlob(s.ctx, d), "b")
	}
}

// testDeleteBlobWhileReading checks that a blob can be read to its end if it is
// deleted meanwhile.
func testDeleteBlobWhileReading(t *testing.T, s tester) {
	data := strings.Repeat("0123456789abcde", 100_000)
	d := s.push(t, "a", data)
	r, err := s.OpenBlob(s.ctx, "a", d)
	check(t, err, nil)
	defer r.Close()
	var got bytes.Buffer
	_, err = io.CopyN(&got, r, 10)
	check(t, err, nil)
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	_, err = got.ReadFrom(r)
	check(t, err, nil)
	if got.String() != data {
		t.Fatal("wrong content after the delete")
	}
}
