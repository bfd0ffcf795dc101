// SPDX-License-Identifier: Apache-2.0

// Several stores in one bucket, standing in for several processes.

package bucket_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// onReplicas runs a test on three stores that share a bucket: in memory, in MinIO,
// and in the emulators of Google and Azure.
func onReplicas(t *testing.T, opts *bucket.Options, test func(t *testing.T, stores []*bucket.Store)) {
	t.Run("memory", func(t *testing.T) {
		b := objects.NewMemory()
		var stores []*bucket.Store
		for range 3 {
			s := bucket.NewOn(b, opts)
			t.Cleanup(s.Wait)
			stores = append(stores, s)
		}
		test(t, stores)
	})
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			url := start(t)
			test(t, []*bucket.Store{open(t, url, opts), open(t, url, opts), open(t, url, opts)})
		})
	}
}

func manifest(data string) registry.Manifest {
	return registry.Manifest{MediaType: "application/vnd.example+json", Digest: digest.FromString(data), Content: []byte(data)}
}

func push(t testing.TB, s *bucket.Store, repo, data string) digest.Digest {
	t.Helper()
	d := digest.FromString(data)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, repo, d, strings.NewReader(data))))
	return d
}

// TestUploadMoves sends each chunk of an upload to another replica.
func TestUploadMoves(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		u, err := stores[0].CreateUpload(t.Context(), "a", registry.UploadOptions{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(u.Close()))
		var data strings.Builder
		for i, size := range []int{1, 0, 5000, 3 << 20, 1 << 20, 17} {
			chunk := strings.Repeat(fmt.Sprint(i), size)
			s := stores[i%len(stores)]
			u, err := s.ResumeUpload(t.Context(), "a", u.ID())
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(u.Size(), int64(data.Len())))
			_, err = u.ReadFrom(strings.NewReader(chunk))
			qt.Assert(t, qt.IsNil(err))
			data.WriteString(chunk)
			qt.Assert(t, qt.IsNil(u.Close()))
			size, err := stores[(i+1)%len(stores)].UploadSize(t.Context(), "a", u.ID())
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(size, int64(data.Len())))
		}
		u, err = stores[1].ResumeUpload(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		d := digest.FromString(data.String())
		qt.Assert(t, qt.IsNil(u.Commit(t.Context(), d)))
		qt.Assert(t, qt.IsNil(u.Close()))
		for _, s := range stores {
			wantBlob(t, s, "a", d)
			_, err := s.UploadSize(t.Context(), "a", u.ID())
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
		}
	})
}

// TestConcurrentLeases leases a session on all replicas at once: the bytes of one
// lease are kept, in full.
func TestConcurrentLeases(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		for _, size := range []int{1, 2 << 20} {
			u, err := stores[0].CreateUpload(t.Context(), "a", registry.UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(u.Close()))
			var leases []registry.Upload
			for i, s := range stores {
				u, err := s.ResumeUpload(t.Context(), "a", u.ID())
				qt.Assert(t, qt.IsNil(err))
				_, err = u.ReadFrom(strings.NewReader(strings.Repeat(fmt.Sprint(i), size)))
				qt.Assert(t, qt.IsNil(err))
				leases = append(leases, u)
			}
			qt.Assert(t, qt.IsNil(leases[1].Close()))
			qt.Assert(t, qt.ErrorIs(leases[0].Close(), error(registry.ErrUploadBusy)))
			qt.Assert(t, qt.ErrorIs(leases[2].Commit(t.Context(), digest.FromString(strings.Repeat("2", size))), error(registry.ErrUploadBusy)))
			qt.Assert(t, qt.ErrorIs(leases[2].Close(), error(registry.ErrUploadBusy)))
			u, err = stores[0].ResumeUpload(t.Context(), "a", u.ID())
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(u.Commit(t.Context(), digest.FromString(strings.Repeat("1", size)))))
			qt.Assert(t, qt.IsNil(u.Close()))
		}
	})
}

// TestCancelElsewhere cancels a session that another replica has leased: the lease
// can no longer publish it.
func TestCancelElsewhere(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		u, err := stores[0].CreateUpload(t.Context(), "a", registry.UploadOptions{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(u.Close()))
		u, err = stores[0].ResumeUpload(t.Context(), "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(strings.NewReader("data"))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(stores[1].CancelUpload(t.Context(), "a", u.ID())))
		qt.Assert(t, qt.ErrorIs(u.Commit(t.Context(), digest.FromString("data")), error(registry.ErrBlobUploadUnknown)))
		u.Close()
		_, err = stores[2].OpenBlob(t.Context(), "a", digest.FromString("data"))
		qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
	})
}

// TestTagsOnReplicas creates and moves the same tags conditionally, on all replicas
// at once: each acknowledged change is seen by the next.
func TestTagsOnReplicas(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		const writers, tags = 12, 4
		var created [tags]atomic.Int64
		concurrently(writers, func(i int) {
			s := stores[i%len(stores)]
			for tag := range tags {
				err := s.PutManifest(t.Context(), "a", manifest(fmt.Sprint(i)), []string{fmt.Sprint("new", tag)}, func(_ string, current digest.Digest) error {
					if current != "" {
						return registry.ErrDenied
					}
					return nil
				})
				switch {
				case err == nil:
					created[tag].Add(1)
				case !errors.Is(err, registry.ErrDenied):
					t.Error(err)
				}
			}
		})
		for tag := range tags {
			qt.Check(t, qt.Equals(created[tag].Load(), 1))
		}

		// A counter: each writer moves the tag to the next manifest, unless
		// another has moved it since it was read.
		number := map[digest.Digest]int{"": 0}
		for i := range 200 {
			number[manifest(fmt.Sprint("count", i)).Digest] = i
		}
		var moved atomic.Int64
		concurrently(6, func(i int) {
			s := stores[i%len(stores)]
			for range 5 {
				var current digest.Digest
				m, err := s.GetTag(t.Context(), "a", "counter")
				if err == nil {
					current = m.Digest
				}
				next := manifest(fmt.Sprint("count", number[current]+1))
				err = s.PutManifest(t.Context(), "a", next, []string{"counter"}, func(_ string, now digest.Digest) error {
					if now != current {
						return registry.ErrDenied
					}
					return nil
				})
				switch {
				case err == nil:
					moved.Add(1)
				case !errors.Is(err, registry.ErrDenied):
					t.Error(err)
				}
			}
		})
		m, err := stores[0].GetTag(t.Context(), "a", "counter")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(int64(number[m.Digest]), moved.Load()))
	})
}

// TestPutWhileDeleted pushes a manifest with a tag while another replica deletes
// it: after the last acknowledged push, the manifest exists with its tag and its
// entry in the list of referrers.
func TestPutWhileDeleted(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		subject := digest.FromString("subject")
		m := manifest("m")
		m.Subject = subject
		m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte(`{"a":"<b>"}`)}
		for range 20 {
			concurrently(3, func(i int) {
				if i == 2 {
					err := stores[2].DeleteManifest(t.Context(), "a", m.Digest)
					if err != nil && !errors.Is(err, registry.ErrManifestUnknown) && !errors.Is(err, registry.ErrNameUnknown) {
						t.Error(err)
					}
					return
				}
				if err := stores[i].PutManifest(t.Context(), "a", m, []string{fmt.Sprint(i)}, nil); err != nil {
					t.Error(err)
				}
			})
			// Whatever the order, the result is consistent.
			tags, err := collect(stores[0].Tags(t.Context(), "a", ""))
			if !errors.Is(err, registry.ErrNameUnknown) {
				qt.Assert(t, qt.IsNil(err))
			}
			for _, tag := range tags {
				_, err := stores[1].GetTag(t.Context(), "a", tag)
				qt.Assert(t, qt.IsNil(err))
			}
			referrers, err := collect(stores[0].Referrers(t.Context(), "a", subject, ""))
			qt.Assert(t, qt.IsNil(err))
			_, err = stores[0].GetManifest(t.Context(), "a", m.Digest)
			if err == nil {
				qt.Assert(t, qt.HasLen(referrers, 1))
				qt.Assert(t, qt.Equals(string(referrers[0].Descriptor), string(m.Referrer.Descriptor)))
			} else {
				qt.Assert(t, qt.HasLen(referrers, 0))
			}
			qt.Assert(t, qt.IsNil(stores[0].PutManifest(t.Context(), "a", m, []string{"0"}, nil)))
			_, err = stores[1].GetTag(t.Context(), "a", "0")
			qt.Assert(t, qt.IsNil(err))
		}
	})
}

// TestReferrersOnReplicas pushes referrers to all replicas at once.
func TestReferrersOnReplicas(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		const n = 60
		subject := digest.FromString("subject")
		var want []digest.Digest
		for i := range n {
			want = append(want, digest.FromString(fmt.Sprint(i)))
		}
		concurrently(n, func(i int) {
			m := manifest(fmt.Sprint(i))
			m.Subject, m.Referrer = subject, registry.Referrer{Digest: m.Digest, Descriptor: []byte("{}")}
			if err := stores[i%len(stores)].PutManifest(t.Context(), "a", m, nil, nil); err != nil {
				t.Error(err)
			}
		})
		slices.Sort(want)
		for _, s := range stores {
			all, err := collect(s.Referrers(t.Context(), "a", subject, ""))
			qt.Assert(t, qt.IsNil(err))
			var got []digest.Digest
			for _, r := range all {
				got = append(got, r.Digest)
			}
			qt.Assert(t, qt.DeepEquals(got, want))
		}
	})
}

// TestCatalogOnReplicas fills and empties a repository on all replicas at once: the
// catalog lists it as long as it has content.
func TestCatalogOnReplicas(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		for range 10 {
			concurrently(3, func(i int) {
				s := stores[i]
				data := fmt.Sprint(i)
				d := digest.FromString(data)
				if err := registry.PushBlob(t.Context(), s, "a/b", d, strings.NewReader(data)); err != nil {
					t.Error(err)
				}
				if i == 0 {
					return // one blob stays
				}
				if err := s.DeleteBlob(t.Context(), "a/b", d); err != nil {
					t.Error(err)
				}
			})
			names, err := collect(stores[1].Repositories(t.Context(), ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(names, []string{"a/b"}))
			qt.Assert(t, qt.IsNil(stores[2].DeleteBlob(t.Context(), "a/b", digest.FromString("0"))))
			names, err = collect(stores[1].Repositories(t.Context(), ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(names, 0))
		}
	})
}

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
