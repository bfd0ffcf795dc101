// SPDX-License-Identifier: Apache-2.0

// Lists that read an object for each entry.

package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// manyEntries is more than two batches of parallel reads.
const manyEntries = 40

// pushMany pushes blobs to the repository a, and returns their digests in order.
func pushMany(t *testing.T, s *bucket.Store) (digests []digest.Digest) {
	t.Helper()
	for i := range manyEntries {
		digests = append(digests, push(t, s, "a", fmt.Sprint("data", i)))
	}
	slices.Sort(digests)
	return digests
}

func digestsOf(infos []registry.Info) (digests []digest.Digest) {
	for _, info := range infos {
		digests = append(digests, info.Digest)
	}
	return digests
}

func TestLongLists(t *testing.T) {
	s := open(t, "mem://", nil)
	want := pushMany(t, s)
	all, err := collect(s.Blobs(t.Context(), "a", ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(digestsOf(all), want))
	after, err := collect(s.Blobs(t.Context(), "a", want[20]))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(digestsOf(after), want[21:]))
	for _, stop := range []int{1, 16, 17, manyEntries} {
		n := 0
		for range s.Blobs(t.Context(), "a", "") {
			if n++; n == stop {
				break
			}
		}
		qt.Assert(t, qt.Equals(n, stop))
	}
}

// TestManifestSizes lists manifests whose headers differ in length.
func TestManifestSizes(t *testing.T) {
	s := open(t, "mem://", nil)
	want := make(map[digest.Digest]int64)
	for _, descriptor := range []int{0, 10, 2900, 3000, 3050, 3100, 100_000} {
		m := manifest(fmt.Sprint("a manifest with a line\nand a descriptor of ", descriptor))
		if descriptor > 0 {
			m.Subject = digest.FromString("subject")
			m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte(strings.Repeat("x", descriptor))}
		}
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", m, nil, nil)))
		want[m.Digest] = int64(len(m.Content))
	}
	all, err := collect(s.Manifests(t.Context(), "a", ""))
	qt.Assert(t, qt.IsNil(err))
	got := make(map[digest.Digest]int64)
	for _, info := range all {
		got[info.Digest] = info.Size
	}
	qt.Assert(t, qt.DeepEquals(got, want))
}

// TestListOperations counts the requests to S3 of StatBlob and of lists.
func TestListOperations(t *testing.T) {
	s, p := withProxy(t, nil)
	digests := pushMany(t, s)
	qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", manifest("m"), nil, nil)))
	_, err := s.Now(t.Context()) // which it then knows for some minutes
	qt.Assert(t, qt.IsNil(err))
	s.Wait()
	p.takeCounts()
	_, err = s.StatBlob(t.Context(), "a", digests[0])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(format(p.takeCounts()), "1 GET"))
	_, err = collect(s.Blobs(t.Context(), "a", ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(format(p.takeCounts()), "40 GET, 1 LIST"))
	_, err = collect(s.Manifests(t.Context(), "a", ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(format(p.takeCounts()), "1 GET, 1 LIST"))
	for range s.Blobs(t.Context(), "a", "") {
		break
	}
	qt.Check(t, qt.Equals(format(p.takeCounts()), "16 GET, 1 LIST"))
}

// TestListDuringDeletes deletes blobs after they were listed and before they are
// read.
func TestListDuringDeletes(t *testing.T) {
	s, p := withProxy(t, nil)
	digests := pushMany(t, s)
	other := open(t, p.direct, nil)
	p.before("GET", "/_blobs/", func() {
		for _, d := range digests[20:] {
			qt.Check(t, qt.IsNil(other.DeleteBlob(t.Context(), "a", d)))
		}
	})
	all, err := collect(s.Blobs(t.Context(), "a", ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(digestsOf(all), digests[:20]))
}

// TestListCancelled cancels a list while it reads from a bucket that has stopped
// responding.
func TestListCancelled(t *testing.T) {
	s, p := withProxy(t, nil)
	digests := pushMany(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []digest.Digest
	var last error
	for info, err := range s.Blobs(ctx, "a", "") {
		if err != nil {
			last = err
			continue // the list ends after an error
		}
		if got = append(got, info.Digest); len(got) == 1 {
			p.setFaults(func(r *http.Request) fault {
				cancel()
				<-r.Context().Done()
				return overloaded
			})
		}
	}
	qt.Assert(t, qt.IsTrue(errors.Is(last, context.Canceled)))
	qt.Assert(t, qt.DeepEquals(got, digests[:16]))
}
