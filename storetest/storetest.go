// SPDX-License-Identifier: Apache-2.0

// Package storetest tests that an implementation of [registry.Store] keeps the
// contract. A backend's test is one line:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) registry.Store { return open(t.TempDir()) })
//	}
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Run runs the tests, each on a store that open returns, which must be empty
// and its own.
func Run(t *testing.T, open func(t *testing.T) registry.Store) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s tester)
	}{
		{"blobs", testBlobs},
		{"blob_readers", testBlobReaders},
		{"blobs_belong_to_repositories", testBlobsBelongToRepositories},
		{"mounts", testMounts},
		{"find_blob", testFindBlob},
		{"uploads", testUploads},
		{"upload_algorithms", testUploadAlgorithms},
		{"upload_rollback", testUploadRollback},
		{"upload_leases", testUploadLeases},
		{"upload_cancel", testUploadCancel},
		{"upload_read_errors", testUploadReadErrors},
		{"uploads_belong_to_repositories", testUploadsBelongToRepositories},
		{"stalled_upload", testStalledUpload},
		{"manifests", testManifests},
		{"tags_move", testTagsMove},
		{"tags_move_if_allowed", testTagsMoveIfAllowed},
		{"delete_manifest", testDeleteManifest},
		{"lists", testLists},
		{"lists_while_names_change", testListsWhileNamesChange},
		{"referrers", testReferrers},
		{"repositories_come_and_go", testRepositoriesComeAndGo},
		{"concurrent_pushes", testConcurrentPushes},
		{"concurrent_referrers", testConcurrentReferrers},
		{"concurrent_tag", testConcurrentTag},
		{"one_may_create_a_tag", testOneMayCreateATag},
		{"delete_while_reading", testDeleteWhileReading},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, tester{open(t), t.Context()})
		})
	}
}

// tester is a store with a context, and helpers.
type tester struct {
	registry.Store
	ctx context.Context
}

func (s tester) push(t *testing.T, repo, data string) digest.Digest {
	t.Helper()
	d := digest.FromString(data)
	check(t, registry.PushBlob(s.ctx, s, repo, d, strings.NewReader(data)), nil)
	return d
}

// open opens an upload and appends data.
func (s tester) open(t *testing.T, repo, data string) registry.Upload {
	t.Helper()
	u, err := s.CreateUpload(s.ctx, repo, registry.UploadOptions{})
	check(t, err, nil)
	appendTo(t, u, data)
	return u
}

func (s tester) resume(t *testing.T, repo, id string) registry.Upload {
	t.Helper()
	u, err := s.ResumeUpload(s.ctx, repo, id)
	check(t, err, nil)
	return u
}

func appendTo(t *testing.T, u registry.Upload, data string) {
	t.Helper()
	n, err := u.ReadFrom(strings.NewReader(data))
	check(t, err, nil)
	if n != int64(len(data)) {
		t.Fatalf("ReadFrom: %d bytes, want %d", n, len(data))
	}
}

func (s tester) wantBlob(t *testing.T, repo string, d digest.Digest, want string) {
	t.Helper()
	r, err := s.OpenBlob(s.ctx, repo, d)
	check(t, err, nil)
	defer r.Close()
	got, err := io.ReadAll(r)
	check(t, err, nil)
	if string(got) != want {
		t.Fatalf("blob %s of %s: %d bytes, want %d", d, repo, len(got), len(want))
	}
}

func (s tester) wantNoBlob(t *testing.T, repo string, d digest.Digest, want error) {
	t.Helper()
	r, err := s.OpenBlob(s.ctx, repo, d)
	if err == nil {
		r.Close()
	}
	check(t, err, want)
}

func manifest(data string) registry.Manifest {
	return registry.Manifest{MediaType: "application/vnd.example+json", Digest: digest.FromString(data), Content: []byte(data)}
}

func (s tester) put(t *testing.T, repo string, m registry.Manifest, tags ...string) registry.Manifest {
	t.Helper()
	check(t, s.PutManifest(s.ctx, repo, m, tags, nil), nil)
	return m
}

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

// check fails the test unless err is want, by its code.
func check(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func collect[V any](t *testing.T, seq iter.Seq2[V, error]) (all []V) {
	t.Helper()
	for v, err := range seq {
		check(t, err, nil)
		all = append(all, v)
	}
	return all
}

func wantNames(t *testing.T, seq iter.Seq2[string, error], want ...string) {
	t.Helper()
	if got := collect(t, seq); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// wantListError checks that a list gives an error, and ends with it.
func wantListError[V any](t *testing.T, seq iter.Seq2[V, error], want error) {
	t.Helper()
	n := 0
	for _, err := range seq {
		check(t, err, want)
		n++
	}
	if n != 1 {
		t.Fatalf("%d items, want the error alone", n)
	}
}

// unknown is the digest of nothing that is stored.
var unknown = digest.FromString("unknown")

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
	// Its parent is another repository.
	s.wantNoBlob(t, "a", digest.FromString(""), registry.ErrNameUnknown)

	d := s.push(t, "a/b", "data")
	check(t, s.DeleteBlob(s.ctx, "a/b", d), nil)
	s.wantNoBlob(t, "a/b", d, registry.ErrBlobUnknown)
	check(t, s.DeleteBlob(s.ctx, "a/b", d), registry.ErrBlobUnknown)
	s.push(t, "a/b", "data")
	s.wantBlob(t, "a/b", d, "data")
}

func testBlobReaders(t *testing.T, s tester) {
	data := strings.Repeat("0123456789abcde", 100_000)
	r, err := s.OpenBlob(s.ctx, "a", s.push(t, "a", data))
	check(t, err, nil)
	defer r.Close()
	size, err := r.Seek(0, io.SeekEnd)
	check(t, err, nil)
	if size != int64(len(data)) {
		t.Fatalf("size %d, want %d", size, len(data))
	}
	for _, at := range []int64{0, size - 1, 4096, 1, 1 << 20, size} {
		if got, err := r.Seek(at, io.SeekStart); got != at || err != nil {
			t.Fatalf("Seek(%d): %d, %v", at, got, err)
		}
		part, err := io.ReadAll(io.LimitReader(r, 5000))
		check(t, err, nil)
		if want := data[at:min(at+5000, size)]; string(part) != want {
			t.Fatalf("at %d: wrong content", at)
		}
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Fatal("Seek(-1) gave no error")
	}
}

func testBlobsBelongToRepositories(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	s.push(t, "b", "other")
	s.wantNoBlob(t, "b", d, registry.ErrBlobUnknown)
	check(t, s.DeleteBlob(s.ctx, "b", d), registry.ErrBlobUnknown)
	s.push(t, "b", "data")
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	s.wantBlob(t, "b", d, "data")
	s.wantNoBlob(t, "a", d, registry.ErrNameUnknown)
}

func testMounts(t *testing.T, s tester) {
	d := s.push(t, "a", "data")
	check(t, s.MountBlob(s.ctx, "b", "unknown", d), registry.ErrNameUnknown)
	check(t, s.MountBlob(s.ctx, "b", "a", unknown), registry.ErrBlobUnknown)
	s.wantNoBlob(t, "b", d, registry.ErrNameUnknown)
	check(t, s.MountBlob(s.ctx, "b", "a", d), nil)
	check(t, s.MountBlob(s.ctx, "b", "a", d), nil)
	check(t, s.MountBlob(s.ctx, "b", "b", d), nil)
	s.wantBlob(t, "b", d, "data")
	// Each has it on its own.
	check(t, s.DeleteBlob(s.ctx, "a", d), nil)
	s.wantBlob(t, "b", d, "data")
	check(t, s.MountBlob(s.ctx, "b", "a", d), registry.ErrNameUnknown)
	check(t, s.DeleteBlob(s.ctx, "b", d), nil)
	s.wantNoBlob(t, "b", d, registry.ErrNameUnknown)
}

func testFindBlob(t *testing.T, s tester) {
	wantNames(t, s.FindBlob(s.ctx, unknown))
	d := s.push(t, "b", "data")
	s.push(t, "a", "data")
	s.push(t, "c", "other")
	// A backend may be unable to tell; what it tells must be true.
	if got := collect(t, s.FindBlob(s.ctx, d)); len(got) > 0 {
		slices.Sort(got)
		if !slices.Equal(got, []string{"a", "b"}) {
			t.Fatalf("got %q", got)
		}
		check(t, s.DeleteBlob(s.ctx, "a", d), nil)
		wantNames(t, s.FindBlob(s.ctx, d), "b")
	}
}

func testUploads(t *testing.T, s tester) {
	u := s.open(t, "a", "one ")
	if u.Size() != 4 || u.ID() == "" {
		t.Fatalf("size %d, ID %q", u.Size(), u.ID())
	}
	appendTo(t, u, "two ")
	check(t, u.Close(), nil)
	size, err := s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, nil)
	if size != 8 {
		t.Fatalf("UploadSize %d, want 8", size)
	}

	u = s.resume(t, "a", u.ID())
	appendTo(t, u, "three")
	if u.Size() != 13 {
		t.Fatalf("size %d, want 13", u.Size())
	}
	check(t, u.Commit(s.ctx, unknown), registry.ErrDigestInvalid)
	s.wantNoBlob(t, "a", unknown, registry.ErrNameUnknown)
	const data = "one two three"
	d := digest.FromString(data)
	s.wantNoBlob(t, "a", d, registry.ErrNameUnknown)
	check(t, u.Commit(s.ctx, d), nil)
	check(t, u.Rollback(), nil) // of nothing: it is published
	check(t, u.Close(), nil)
	s.wantBlob(t, "a", d, data)

	_, err = s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	_, err = s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), registry.ErrBlobUploadUnknown)
	s.wantBlob(t, "a", d, data)

	mine, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
	check(t, err, nil)
	if mine.ID() != "mine" {
		t.Fatalf("ID %q", mine.ID())
	}
	_, err = s.CreateUpload(s.ctx, "a", registry.UploadOptions{ID: "mine"})
	check(t, err, registry.ErrBlobUploadInvalid)
	check(t, mine.Close(), nil)
}

func testUploadAlgorithms(t *testing.T, s tester) {
	for _, announced := range []digest.Algorithm{"", digest.SHA256, digest.SHA384, digest.SHA512} {
		for _, used := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			u, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{Algorithm: announced})
			check(t, err, nil)
			data := string(announced + " " + used)
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

func testUploadRollback(t *testing.T, s tester) {
	for _, size := range []int{0, 1, 4095, 4096, 5000, 1 << 20} {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			u, err := s.CreateUpload(s.ctx, "a", registry.UploadOptions{Algorithm: algorithm})
			check(t, err, nil)
			kept := strings.Repeat("k", size)
			appendTo(t, u, kept)
			check(t, u.Close(), nil)
			for _, dropped := range []int{0, 1, 4096, 2 << 20} {
				u = s.resume(t, "a", u.ID())
				appendTo(t, u, strings.Repeat("d", dropped))
				check(t, u.Rollback(), nil)
				if u.Size() != int64(size) {
					t.Fatalf("size %d after the rollback, want %d", u.Size(), size)
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

func testUploadLeases(t *testing.T, s tester) {
	u := s.open(t, "a", "data")
	_, err := s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrUploadBusy)
	_, err = s.UploadSize(s.ctx, "a", u.ID())
	check(t, err, nil)
	check(t, u.Close(), nil)

	// A lease that has ended is over, whoever has the session now.
	next := s.resume(t, "a", u.ID())
	check(t, u.Close(), nil)
	check(t, u.Rollback(), nil)
	check(t, u.Commit(s.ctx, digest.FromString("data")), registry.ErrBlobUploadUnknown)
	_, err = u.ReadFrom(strings.NewReader("more"))
	check(t, err, registry.ErrBlobUploadUnknown)
	_, err = s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrUploadBusy)
	check(t, next.Close(), nil)

	// Of many who want it, one at a time has it.
	var wg sync.WaitGroup
	var mu sync.Mutex
	had := 0
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
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
			had++
			mu.Unlock()
		}()
	}
	wg.Wait()
	data := strings.Repeat("data", had+1)
	u = s.resume(t, "a", u.ID())
	check(t, u.Commit(s.ctx, digest.FromString(data)), nil)
	check(t, u.Close(), nil)
}

func testUploadCancel(t *testing.T, s tester) {
	check(t, s.CancelUpload(s.ctx, "a", "unknown"), registry.ErrBlobUploadUnknown)
	u := s.open(t, "a", "data")
	check(t, u.Close(), nil)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), nil)
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), registry.ErrBlobUploadUnknown)
	_, err := s.ResumeUpload(s.ctx, "a", u.ID())
	check(t, err, registry.ErrBlobUploadUnknown)

	// While it is leased.
	u = s.open(t, "a", "data")
	check(t, s.CancelUpload(s.ctx, "a", u.ID()), nil)
	check(t, u.Commit(s.ctx, digest.FromString("data")), registry.ErrBlobUploadUnknown)
	_, err = u.ReadFrom(strings.NewReader("more"))
	check(t, err, registry.ErrBlobUploadUnknown)
	u.Close()
	s.wantNoBlob(t, "a", digest.FromString("data"), registry.ErrNameUnknown)
}

// failingReader gives data, and then an error.
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

func testUploadReadErrors(t *testing.T, s tester) {
	u := s.open(t, "a", "one ")
	failure := fmt.Errorf("%w: the connection broke", registry.ErrSizeInvalid)
	n, err := u.ReadFrom(failingReader{strings.NewReader("two "), failure})
	check(t, err, failure)
	if n != 4 || u.Size() != 8 {
		t.Fatalf("%d bytes, size %d", n, u.Size())
	}
	check(t, u.Close(), nil)
	u = s.resume(t, "a", u.ID())
	appendTo(t, u, "three")
	check(t, u.Commit(s.ctx, digest.FromString("one two three")), nil)
	check(t, u.Close(), nil)
}

func testUploadsBelongToRepositories(t *testing.T, s tester) {
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
	wantNames(t, s.Repositories(s.ctx, ""), "b") // an upload makes no repository
}

// testStalledUpload has an upload, a download and a list in the middle, while
// others go on.
func testStalledUpload(t *testing.T, s tester) {
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

func testManifests(t *testing.T, s tester) {
	m := manifest("{ \"any\":\n\"bytes\" }")
	_, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, registry.ErrNameUnknown)
	_, err = s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrNameUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", m.Digest), registry.ErrNameUnknown)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), registry.ErrNameUnknown)

	s.put(t, "a", m)
	got, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, nil)
	wantManifest(t, got, m)
	_, err = s.GetManifest(s.ctx, "a", unknown)
	check(t, err, registry.ErrManifestUnknown)
	_, err = s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrManifestUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", unknown), registry.ErrManifestUnknown)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), registry.ErrManifestUnknown)
	wantNames(t, s.Tags(s.ctx, "a", ""))

	s.put(t, "a", m, "one", "two")
	s.wantTag(t, "a", "one", m)
	s.wantTag(t, "a", "two", m)
	s.put(t, "b", manifest("b"))
	_, err = s.GetManifest(s.ctx, "b", m.Digest)
	check(t, err, registry.ErrManifestUnknown)

	sha512 := m
	sha512.Digest = digest.SHA512.FromBytes(m.Content)
	s.put(t, "a", sha512, "two")
	s.wantTag(t, "a", "two", sha512)
	s.wantTag(t, "a", "one", m)
}

func testTagsMove(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "tag", "other")
	two := s.put(t, "a", manifest("two"), "tag")
	s.wantTag(t, "a", "tag", two)
	s.wantTag(t, "a", "other", one)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), nil)
	_, err := s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrManifestUnknown)
	got, err := s.GetManifest(s.ctx, "a", two.Digest)
	check(t, err, nil)
	wantManifest(t, got, two)
}

func testTagsMoveIfAllowed(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "tag")
	two := manifest("two")
	asked := make(map[string]digest.Digest)
	err := s.PutManifest(s.ctx, "a", two, []string{"new", "tag"}, func(tag string, current digest.Digest) error {
		asked[tag] = current
		if current != "" {
			return registry.ErrDenied
		}
		return nil
	})
	check(t, err, registry.ErrDenied)
	if asked["tag"] != one.Digest {
		t.Fatalf("asked %v", asked)
	}
	// All or nothing.
	s.wantTag(t, "a", "tag", one)
	_, err = s.GetTag(s.ctx, "a", "new")
	check(t, err, registry.ErrManifestUnknown)

	deny := func(string, digest.Digest) error { return registry.ErrDenied }
	check(t, s.DeleteTag(s.ctx, "a", "tag", deny), registry.ErrDenied)
	s.wantTag(t, "a", "tag", one)
	check(t, s.PutManifest(s.ctx, "new", two, []string{"tag"}, deny), registry.ErrDenied)
	wantNames(t, s.Repositories(s.ctx, ""), "a")
	check(t, s.PutManifest(s.ctx, "a", two, []string{"tag"}, func(string, digest.Digest) error { return nil }), nil)
	s.wantTag(t, "a", "tag", two)
}

func testDeleteManifest(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "a", "b", "moved")
	two := s.put(t, "a", manifest("two"), "c", "moved")
	check(t, s.DeleteManifest(s.ctx, "a", one.Digest), nil)
	wantNames(t, s.Tags(s.ctx, "a", ""), "c", "moved")
	s.wantTag(t, "a", "moved", two)
	_, err := s.GetManifest(s.ctx, "a", one.Digest)
	check(t, err, registry.ErrManifestUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", one.Digest), registry.ErrManifestUnknown)
	s.put(t, "a", one)
	wantNames(t, s.Tags(s.ctx, "a", ""), "c", "moved") // its tags are not back
}

func testLists(t *testing.T, s tester) {
	wantListError(t, s.Tags(s.ctx, "a", ""), registry.ErrNameUnknown)
	wantNames(t, s.Repositories(s.ctx, ""))
	tags := []string{"10", "9", "A", "_", "a", "a-b", "a.b", "a_b", "aa"} // in byte order
	repos := []string{"a", "a-b/c", "a/b", "a/b/c", "a0", "z"}
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		s.put(t, repos[i], manifest("m"), tags...)
	}
	for i, name := range append([]string{""}, tags...) {
		wantNames(t, s.Tags(s.ctx, "a", name), tags[i:]...)
	}
	for i, name := range append([]string{""}, repos...) {
		wantNames(t, s.Repositories(s.ctx, name), repos[i:]...)
	}
	wantNames(t, s.Tags(s.ctx, "a", "a-"), tags[5:]...)
	wantNames(t, s.Tags(s.ctx, "a", "zzz"))
	wantNames(t, s.Repositories(s.ctx, "a/"), repos[2:]...)
}

func testListsWhileNamesChange(t *testing.T, s tester) {
	var want []string
	for i := range 300 {
		tag := fmt.Sprintf("%03d", i)
		want = append(want, tag)
		s.put(t, "a", manifest("m"), tag)
	}
	var got []string
	for tag, err := range s.Tags(s.ctx, "a", "") {
		check(t, err, nil)
		if strings.HasSuffix(tag, "new") {
			continue
		}
		got = append(got, tag)
		if len(got)%10 == 0 {
			s.put(t, "a", manifest("m"), tag+"new")
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %d names, want %d: %q", len(got), len(want), got)
	}
}

func testReferrers(t *testing.T, s tester) {
	subject := digest.FromString("subject")
	list := func(repo string, subject, after digest.Digest) (digests []digest.Digest) {
		for _, d := range collect(t, s.Referrers(s.ctx, repo, subject, after)) {
			digests = append(digests, d.Digest)
		}
		return digests
	}
	if got := list("a", subject, ""); got != nil {
		t.Fatalf("got %v in no repository", got)
	}
	var want []digest.Digest
	all := make(map[digest.Digest]registry.Referrer)
	for i := range 5 {
		// As PushManifest makes them: a backend may parse the content again.
		mediaType := ocispec.MediaTypeImageManifest
		content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.%d","subject":{"mediaType":"x/y","size":1,"digest":%q},"annotations":{"n":"%d"}}`,
			mediaType, i, subject, i)
		m, err := registry.PushManifest(s.ctx, s, "a", registry.ManifestPush{MediaType: mediaType, Content: []byte(content), Tags: []string{fmt.Sprint(i)}})
		check(t, err, nil)
		want = append(want, m.Digest)
		all[m.Digest] = m.Referrer
	}
	slices.Sort(want)
	if got := list("a", subject, ""); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for _, d := range collect(t, s.Referrers(s.ctx, "a", subject, "")) {
		w := all[d.Digest]
		if d.ArtifactType != w.ArtifactType || string(d.Descriptor) != string(w.Descriptor) {
			t.Fatalf("got %s %s, want %s %s", d.ArtifactType, d.Descriptor, w.ArtifactType, w.Descriptor)
		}
	}
	for i, d := range want {
		if got := list("a", subject, d); !slices.Equal(got, want[i+1:]) {
			t.Fatalf("after %s: got %v, want %v", d, got, want[i+1:])
		}
	}
	s.put(t, "b", manifest("m"))
	if got := list("b", subject, ""); got != nil {
		t.Fatalf("got %v in another repository", got)
	}
	if got := list("a", unknown, ""); got != nil {
		t.Fatalf("got %v of another subject", got)
	}
	// A tag that is deleted leaves the referrer; a manifest does not.
	check(t, s.DeleteTag(s.ctx, "a", "0", nil), nil)
	check(t, s.DeleteManifest(s.ctx, "a", want[2]), nil)
	if got := list("a", subject, ""); !slices.Equal(got, slices.Delete(slices.Clone(want), 2, 3)) {
		t.Fatalf("after a delete: got %v", got)
	}
}

func testRepositoriesComeAndGo(t *testing.T, s tester) {
	d := s.push(t, "blob", "data")
	m := s.put(t, "manifest", manifest("m"), "tag")
	wantNames(t, s.Repositories(s.ctx, ""), "blob", "manifest")
	wantNames(t, s.Tags(s.ctx, "blob", ""))
	check(t, s.DeleteTag(s.ctx, "manifest", "tag", nil), nil)
	wantNames(t, s.Repositories(s.ctx, ""), "blob", "manifest")
	check(t, s.DeleteManifest(s.ctx, "manifest", m.Digest), nil)
	check(t, s.DeleteBlob(s.ctx, "blob", d), nil)
	wantNames(t, s.Repositories(s.ctx, ""))
	wantListError(t, s.Tags(s.ctx, "manifest", ""), registry.ErrNameUnknown)
}

// concurrently runs f for i from 0 to n-1, all at once.
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

func testConcurrentReferrers(t *testing.T, s tester) {
	const n = 100
	subject := digest.FromString("subject")
	concurrently(n, func(i int) {
		content := fmt.Sprintf(`{"schemaVersion":2,"subject":{"mediaType":"x/y","size":1,"digest":%q},"annotations":{"n":"%d"}}`, subject, i)
		_, err := registry.PushManifest(s.ctx, s, "a", registry.ManifestPush{MediaType: ocispec.MediaTypeImageIndex, Content: []byte(content)})
		if err != nil {
			t.Error(err)
		}
	})
	if got := collect(t, s.Referrers(s.ctx, "a", subject, "")); len(got) != n {
		t.Fatalf("%d referrers of %d", len(got), n)
	}
}

// testConcurrentTag moves a tag while it is read: a reader finds one of its
// manifests, whole.
func testConcurrentTag(t *testing.T, s tester) {
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
				t.Errorf("the content of %s is another's", m.Digest)
			}
		}
	})
}

func testOneMayCreateATag(t *testing.T, s tester) {
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
		t.Fatalf("%d created the tag, want one", created)
	}
}

func testDeleteWhileReading(t *testing.T, s tester) {
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
		t.Fatal("the rest of the blob is wrong")
	}
}
