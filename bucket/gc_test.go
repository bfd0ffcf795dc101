// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// The times that GC and pushes rely on in these tests.
const (
	trustedFor = 400 * time.Millisecond
	grace      = time.Second
)

func shortenGrace(stores ...*bucket.Store) {
	for _, s := range stores {
		s.SetGrace(trustedFor, grace)
	}
}

func collect[V any](seq iter.Seq2[V, error]) (all []V, err error) {
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

func wantBlob(t testing.TB, s *bucket.Store, repo string, d digest.Digest) {
	t.Helper()
	r, err := s.OpenBlob(t.Context(), repo, d)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	v := d.Verifier()
	_, err = io.Copy(v, r)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(v.Verified()))
}

func gc(t testing.TB, s *bucket.Store) bucket.GCStats {
	t.Helper()
	return gcAfter(t, s, grace)
}

func gcAfter(t testing.TB, s *bucket.Store, grace time.Duration) bucket.GCStats {
	t.Helper()
	s.Wait()
	stats, err := s.GC(t.Context(), bucket.GCOptions{Grace: grace})
	qt.Assert(t, qt.IsNil(err))
	stats.Marks = 0 // they can't be deleted everywhere
	return stats
}

func TestGCRejectsShortGrace(t *testing.T) {
	_, err := open(t, "mem://", nil).GC(t.Context(), bucket.GCOptions{Grace: time.Minute})
	qt.Assert(t, qt.ErrorMatches(err, ".*too short.*"))
}

func TestGC(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		shortenGrace(stores...)
		s := stores[0]
		const size = 1200 << 10 // pushes look for the data only of large blobs
		data := func(name string) string { return name + strings.Repeat("x", size-len(name)) }
		kept := push(t, s, "a", data("kept"))
		gone := push(t, s, "a", data("gone"))
		shared := push(t, s, "a", data("shared"))
		qt.Assert(t, qt.IsNil(s.MountBlob(t.Context(), "b", "a", shared)))
		push(t, stores[1], "c", data("shared"))
		qt.Assert(t, qt.IsNil(s.DeleteBlob(t.Context(), "a", gone)))
		qt.Assert(t, qt.IsNil(s.DeleteBlob(t.Context(), "a", shared)))
		qt.Assert(t, qt.Equals(gcAfter(t, s, time.Hour), bucket.GCStats{Blobs: 3})) // too young

		time.Sleep(grace + 50*time.Millisecond)
		qt.Assert(t, qt.Equals(gc(t, s), bucket.GCStats{Blobs: 3, Condemned: 1}))
		qt.Assert(t, qt.Equals(gcAfter(t, stores[1], time.Hour), bucket.GCStats{Blobs: 3}))
		again := push(t, stores[2], "d", data("gone")) // it is condemned, so it is written again
		qt.Assert(t, qt.Equals(again, gone))
		time.Sleep(grace + 50*time.Millisecond)
		qt.Assert(t, qt.Equals(gc(t, stores[1]), bucket.GCStats{Blobs: 4, Deleted: 1, Bytes: size}))
		qt.Assert(t, qt.Equals(gc(t, stores[1]), bucket.GCStats{Blobs: 3}))

		wantBlob(t, s, "a", kept)
		wantBlob(t, s, "b", shared)
		wantBlob(t, s, "c", shared)
		wantBlob(t, s, "d", gone)
	})
}

func TestGCUploads(t *testing.T) {
	const idle = 2 * time.Second
	opts := &bucket.Options{UploadIdle: idle}
	onReplicas(t, opts, func(t *testing.T, stores []*bucket.Store) {
		shortenGrace(stores...)
		var ids []string
		for range 3 {
			u, err := stores[0].CreateUpload(t.Context(), "a", registry.UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			_, err = u.ReadFrom(strings.NewReader("data"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(u.Close()))
			ids = append(ids, u.ID())
		}
		for range 8 { // a request for the size resets the idle timer
			time.Sleep(idle / 8)
			_, err := stores[1].UploadSize(t.Context(), "a", ids[0])
			qt.Assert(t, qt.IsNil(err))
		}
		time.Sleep(idle / 4)
		_, err := stores[2].ResumeUpload(t.Context(), "a", ids[1]) // idle for too long
		qt.Assert(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
		qt.Assert(t, qt.Equals(gc(t, stores[1]).Uploads, 1))
		_, err = stores[1].UploadSize(t.Context(), "a", ids[0])
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(stores[1].CancelUpload(t.Context(), "a", ids[0])))
	})
}

// TestGCDuringPushes keeps two GCs running while replicas push, mount and delete
// the same few blobs: a blob whose push was acknowledged can be read until it is
// deleted.
func TestGCDuringPushes(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		shortenGrace(stores...)
		var stop atomic.Bool
		var runs, deleted atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			concurrently(2, func(i int) {
				for !stop.Load() {
					stats, err := stores[i].GC(t.Context(), bucket.GCOptions{Grace: grace})
					if err != nil {
						t.Error(err)
						return
					}
					runs.Add(1)
					deleted.Add(int64(stats.Deleted))
					time.Sleep(5 * time.Millisecond) // or a bucket in memory would do nothing else
				}
			})
		}()
		end := time.Now().Add(4 * time.Second)
		var pushes atomic.Int64
		concurrently(6, func(i int) {
			// Each writer has its own repository, so it knows the content. All
			// use the same blobs.
			s, repo := stores[i%len(stores)], fmt.Sprint("repo", i)
			for n := 0; time.Now().Before(end); n++ {
				data := fmt.Sprint("data", (n+i)%3)
				d := digest.FromString(data)
				from := fmt.Sprint("repo", (i+1)%6)
				err := error(registry.ErrBlobUnknown)
				if n%2 == 0 {
					err = s.MountBlob(t.Context(), repo, from, d)
				}
				if errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrNameUnknown) {
					err = registry.PushBlob(t.Context(), s, repo, d, strings.NewReader(data))
				}
				if err != nil {
					t.Error(err)
					return
				}
				pushes.Add(1)
				for range n % 4 {
					time.Sleep(grace / 3)
					r, err := stores[(i+1)%len(stores)].OpenBlob(t.Context(), repo, d)
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(r)
					r.Close()
					if err != nil || string(got) != data {
						t.Errorf("%s of %s: %q, %v", d, repo, got, err)
						return
					}
				}
				if err := s.DeleteBlob(t.Context(), repo, d); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(grace / 3 * time.Duration(n%5))
			}
		})
		stop.Store(true)
		<-done
		t.Logf("%d runs of GC deleted %d data objects during %d pushes", runs.Load(), deleted.Load(), pushes.Load())
		if deleted.Load() == 0 {
			t.Error("GC deleted nothing, so the test proves nothing")
		}
	})
}
