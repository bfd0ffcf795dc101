// SPDX-License-Identifier: Apache-2.0

// Tests of uploads.

package storetest

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// testUploads pushes a blob in several parts, with a failed Commit in between, and
// checks that the session then no longer exists. It also chooses a session's ID.
func testUploads(t *testing.T, s tester) {
	u := s.open(t, "a", "one ")
	if u.Size() != 4 || u.ID() == "" {
		t.Fatalf("got size %d and ID %q, want size 4 and an ID", u.Size(), u.ID())
	}
	appendTo(t, u, "two ")
	check(t, u.Close(), nil)
	size, err := s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, nil)
	if size != 8 {
		t.Fatalf("UploadSize returned %d, want 8", size)
	}

	u = s.resume(t, "a", u.ID())
	appendTo(t, u, "three")
	if u.Size() != 13 {
		t.Fatalf("got size %d, want 13", u.Size())
	}
	check(t, u.Commit(s.ctx, unknown), registry.ErrDigestInvalid)
	s.wantNoBlob(t, "a", unknown, registry.ErrNameUnknown)
	const data = "one two three"
	d := digest.FromString(data)
	s.wantNoBlob(t, "a", d, registry.ErrNameUnknown)
	check(t, u.Commit(s.ctx, d), nil)
	check(t, u.Rollback(), nil) // no effect: the bytes are published
	check(t, u.Close(), nil)
	s.wantBlob(t, "a", d, data)

	_, err = s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	_, err = s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), registry.ErrBlobUploadUnknown)
	s.wantBlob(t, "a", d, data)

	u, err = s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
	check(t, err, nil)
	if u.ID() != "mine" {
		t.Fatalf("got ID %q, want \"mine\"", u.ID())
	}
	_, err = s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
	check(t, err, registry.ErrBlobUploadInvalid)
	check(t, u.Close(), nil)
}

// testUploadAlgorithms commits uploads with digests of each algorithm, whatever
// algorithm they were opened with.
func testUploadAlgorithms(t *testing.T, s tester) {
	for _, declared := range []digest.Algorithm{"", digest.SHA256, digest.SHA384, digest.SHA512} {
		for _, used := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			u, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{Algorithm: declared})
			check(t, err, nil)
			data := string(declared + " " + used)
			appendTo(t, u, data[:3])
			check(t, u.Close(), nil)
			u = s.resume(t, "a", u.ID())
			appendTo(t, u, data[3:])
			check(t, u.Commit(s.ctx, used.FromString(data+"x")), registry.ErrDigestInvalid)
			check(t, u.Commit(s.ctx, used.FromString(data)), nil)
			check(t, u.Close(), nil)
			s.wantBlob(t, "a", used.FromString(data), data)
		}
	}
}

// testUploadRollback checks that Rollback discards exactly the bytes of its lease,
// and that the upload can continue from there.
func testUploadRollback(t *testing.T, s tester) {
	for _, size := range []int{0, 1, 4095, 4096, 5000, 1 << 20} {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			u, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{Algorithm: algorithm})
			check(t, err, nil)
			kept := strings.Repeat("k", size)
			appendTo(t, u, kept)
			check(t, u.Close(), nil)
			for _, discarded := range []int{0, 1, 4096, 2 << 20} {
				u = s.resume(t, "a", u.ID())
				appendTo(t, u, strings.Repeat("d", discarded))
				check(t, u.Rollback(), nil)
				if u.Size() != int64(size) {
					t.Fatalf("got size %d after the rollback, want %d", u.Size(), size)
				}
				check(t, u.Close(), nil)
			}
			u = s.resume(t, "a", u.ID())
			appendTo(t, u, "end")
			d := algorithm.FromString(kept + "end")
			check(t, u.Commit(s.ctx, d), nil)
			check(t, u.Close(), nil)
			s.wantBlob(t, "a", d, kept+"end")
		}
	}
}

// testUploadLeases checks that one caller at a time holds the lease of an upload,
// and that a lease has no effect after Close.
func testUploadLeases(t *testing.T, s tester) {
	u := s.open(t, "a", "data")
	_, err := s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrUploadBusy)
	_, err = s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, nil)
	check(t, u.Close(), nil)

	// A closed lease has no effect on the session's next lease.
	next := s.resume(t, "a", u.ID())
	check(t, u.Close(), nil)
	check(t, u.Rollback(), nil)
	check(t, u.Commit(s.ctx, digest.FromString("data")), registry.ErrBlobUploadUnknown)
	_, err = u.ReadFrom(strings.NewReader("more"))
	check(t, err, registry.ErrBlobUploadUnknown)
	_, err = s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrUploadBusy)
	check(t, next.Close(), nil)

	// Of many concurrent callers, one at a time holds the lease.
	var mu sync.Mutex
	leases := 0
	concurrently(20, func(int) {
		u, err := s.ResumeUpload(s.ctx, "a", u.ID())
		if err != nil {
			if !errors.Is(err, registry.ErrUploadBusy) {
				t.Error(err)
			}
			return
		}
		if _, err := u.ReadFrom(strings.NewReader("data")); err != nil {
			t.Error(err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		leases++
		mu.Unlock()
	})
	data := strings.Repeat("data", leases+1)
	u = s.resume(t, "a", u.ID())
	check(t, u.Commit(s.ctx, digest.FromString(data)), nil)
	check(t, u.Close(), nil)
}

// testUploadCancel cancels uploads, both leased and not.
func testUploadCancel(t *testing.T, s tester) {
	check(t, s.CancelUpload(s.ctx, "a", "unknown"), registry.ErrBlobUploadUnknown)
	u := s.open(t, "a", "data")
	check(t, u.Close(), nil)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), nil)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), registry.ErrBlobUploadUnknown)
	_, err := s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)

	// Cancel an upload while it is leased.
	u = s.open(t, "a", "data")
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), nil)
	check(t, u.Commit(s.ctx, digest.FromString("data")), registry.ErrBlobUploadUnknown)
	_, err = u.ReadFrom(strings.NewReader("more"))
	check(t, err, registry.ErrBlobUploadUnknown)
	u.Close()
	s.wantNoBlob(t, "a", digest.FromString("data"), registry.ErrNameUnknown)
}

// testUploadCancelStalled cancels an upload whose lease waits for bytes: the ID can
// be used again at once, and the lease has no effect on the new upload.
func testUploadCancelStalled(t *testing.T, s tester) {
	for _, size := range []int{10, 3 << 20} {
		for _, resumed := range []bool{false, true} {
			u, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
			check(t, err, nil)
			if resumed {
				check(t, u.Close(), nil)
				u = s.resume(t, "a", "mine")
			}
			r, w := io.Pipe()
			done := make(chan error)
			go func() {
				_, err := u.ReadFrom(r)
				r.Close()
				done <- err
			}()
			_, err = io.WriteString(w, strings.Repeat("s", size))
			check(t, err, nil)
			check(t, s.CancelUpload(s.ctx, "a", "mine"), nil)
			check(t, s.CancelUpload(s.ctx, "a", "mine"), registry.ErrBlobUploadUnknown)
			_, err = s.UploadSize(s.ctx, "a", "mine")
			check(t, err, registry.ErrBlobUploadUnknown)
			_, err = s.ResumeUpload(s.ctx, "a", "mine")
			check(t, err, registry.ErrBlobUploadUnknown)

			next, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
			check(t, err, nil)
			appendTo(t, next, "next")
			io.WriteString(w, "more")
			w.Close()
			check(t, <-done, registry.ErrBlobUploadUnknown)
			u.Size()
			check(t, u.Commit(s.ctx, digest.FromString("")), registry.ErrBlobUploadUnknown)
			check(t, u.Rollback(), nil)
			check(t, u.Close(), nil)

			check(t, next.Close(), nil)
			next = s.resume(t, "a", "mine")
			if next.Size() != 4 {
				t.Fatalf("got size %d, want 4", next.Size())
			}
			check(t, next.Commit(s.ctx, digest.FromString("next")), nil)
			check(t, next.Close(), nil)
			s.wantBlob(t, "a", digest.FromString("next"), "next")
		}
	}
}

// testUploadIDs uses the same ID in two repositories: the uploads are independent.
func testUploadIDs(t *testing.T, s tester) {
	for _, end := range []string{"commit", "cancel"} {
		one, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
		check(t, err, nil)
		two, err := s.CreateUpload(s.ctx, "a/b", registry.UploadOptions{ID: "mine"}) // both leased
		check(t, err, nil)
		appendTo(t, one, "one "+end)
		check(t, one.Close(), nil)
		appendTo(t, two, "two "+end)
		check(t, two.Close(), nil)
		three, err := s.CreateUpload(s.ctx, "b", registry.UploadOptions{ID: "mine"}) // the others are not
		check(t, err, nil)
		check(t, three.Close(), nil)
		_, err = s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
		check(t, err, registry.ErrBlobUploadInvalid)
		_, err = s.ResumeUpload(s.ctx, "c", "mine")
		check(t, err, registry.ErrBlobUploadUnknown)

		one, two = s.resume(t, "a", "mine"), s.resume(t, "a/b", "mine")
		if end == "commit" {
			check(t, one.Commit(s.ctx, digest.FromString("one "+end)), nil)
		} else {
			check(t, s.CancelUpload(s.ctx, "a", "mine"), nil)
		}
		check(t, one.Close(), nil)
		_, err = s.UploadSize(s.ctx, "a", "mine")
		check(t, err, registry.ErrBlobUploadUnknown)
		size, err := s.UploadSize(s.ctx, "b", "mine")
		check(t, err, nil)
		if size != 0 {
			t.Fatalf("UploadSize returned %d, want 0", size)
		}
		check(t, two.Commit(s.ctx, digest.FromString("two "+end)), nil)
		check(t, two.Close(), nil)
		s.wantBlob(t, "a/b", digest.FromString("two "+end), "two "+end)
		check(t, s.CancelUpload(s.ctx, "b", "mine"), nil)
	}
}

// failingReader returns an error at the end of data.
type failingReader struct {
	data io.Reader
	err  error
}

func (r failingReader) Read(p []byte) (int, error) {
	n, err := r.data.Read(p)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}

// testUploadReadErrors checks that ReadFrom returns the reader's error, and keeps
// the bytes before it.
func testUploadReadErrors(t *testing.T, s tester) {
	u := s.open(t, "a", "one ")
	failure := fmt.Errorf("%w: the connection broke", registry.ErrSizeInvalid)
	n, err := u.ReadFrom(failingReader{strings.NewReader("two "), failure})
	check(t, err, failure)
	if n != 4 || u.Size() != 8 {
		t.Fatalf("ReadFrom returned %d and the size is %d, want 4 and 8", n, u.Size())
	}
	check(t, u.Close(), nil)
	u = s.resume(t, "a", u.ID())
	appendTo(t, u, "three")
	check(t, u.Commit(s.ctx, digest.FromString("one two three")), nil)
	check(t, u.Close(), nil)
}

// testUploadRepositories checks that an upload can be used only through its own
// repository, and does not create the repository.
func testUploadRepositories(t *testing.T, s tester) {
	u := s.open(t, "a", "data")
	check(t, u.Close(), nil)
	s.push(t, "b", "data")
	_, err := s.ResumeUpload(s.ctx, "b", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	_, err = s.UploadSize(s.ctx, "b", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	check(t, s.CancelUpload(s.ctx, "b", u.ID()), registry.ErrBlobUploadUnknown)
	_, err = s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, nil)
	wantNames(t, s.Repositories(s.ctx, ""), "b") // an upload does not create its repository
}

// testStalledTransfers checks that an upload, a download and a list in progress
// delay no other operation.
func testStalledTransfers(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	for i := range 3 {
		s.put(t, "a", manifest("m"), fmt.Sprint(i))
	}
	up, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{})
	check(t, err, nil)
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := up.ReadFrom(r)
		done <- err
	}()
	io.WriteString(w, "stalled")

	down, err := s.OpenBlob(s.ctx, "a", d)
	check(t, err, nil)
	down.Read(make([]byte, 1))
	for range s.Tags(s.ctx, "a", "") {
		s.push(t, "a", "other")
		s.wantBlob(t, "a", d, "data")
		s.put(t, "a", manifest("other"), "tag")
		check(t, s.DeleteTag(s.ctx, "a", "tag", nil), nil)
		check(t, s.DeleteManifest(s.ctx, "a", manifest("other").Digest), nil)
		_, err := s.UploadSize(s.ctx, "a", up.ID())
		check(t, err, nil)
		break
	}
	down.Close()
	w.Close()
	check(t, <-done, nil)
	check(t, up.Commit(s.ctx, digest.FromString("stalled")), nil)
	check(t, up.Close(), nil)
}

// RunUploadLimit tests the limit of uploads in progress. It calls open, which must
// return an empty store with the given limit. An upload that exceeds the limit must
// be rejected with ErrTooManyUploads.
func RunUploadLimit(t *testing.T, open func(t *testing.T, uploads int) registry.Store) {
	s := tester{open(t, 2), t.Context()}
	one, two := s.open(t, "a", "one"), s.open(t, "b", "two")
	_, err := s.CreateUpload(s.ctx, "c", registry.UploadOptions{})
	check(t, err, registry.ErrTooManyUploads)
	check(t, one.Commit(s.ctx, digest.FromString("one")), nil)
	check(t, one.Close(), nil)
	three := s.open(t, "c", "three")
	check(t, two.Close(), nil)
	check(t, s.CancelUpload(s.ctx, "b", two.ID()), nil)
	check(t, three.Close(), nil)
	four := s.open(t, "d", "four")
	check(t, four.Close(), nil)
}
