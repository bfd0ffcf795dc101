// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

// scrub checks the number of problems that Scrub finds and repairs.
func scrub(t *testing.T, s *bucket.Store, repair bool, problems, repaired int) bucket.ScrubStats {
	t.Helper()
	s.Wait()
	var found []string
	stats, err := s.Scrub(t.Context(), bucket.ScrubOptions{
		Repair:  repair,
		Problem: func(p bucket.Problem) { found = append(found, p.String()) },
	})
	qt.Assert(t, qt.IsNil(err))
	list := strings.Join(found, "\n")
	qt.Assert(t, qt.HasLen(found, problems), qt.Commentf("%s", list))
	qt.Assert(t, qt.Equals(stats.Problems, problems))
	qt.Assert(t, qt.Equals(stats.Repaired, repaired), qt.Commentf("%s", list))
	return stats
}

func TestScrub(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		s := stores[0]
		for i := range 40 {
			push(t, s, fmt.Sprint("repo", i%3), fmt.Sprint("data", i))
		}
		m := manifest("m")
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "repo0", m, []string{"a", "b"}, nil)))
		r := manifest("r")
		r.Subject, r.Referrer = m.Digest, registry.Referrer{Digest: r.Digest, Descriptor: []byte("{}")}
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "repo0", r, nil, nil)))
		s.Wait()
		var last, total int64
		stats, err := stores[1].Scrub(t.Context(), bucket.ScrubOptions{Progress: func(done, all int64) {
			if done <= last {
				t.Errorf("%d after %d", done, last)
			}
			last, total = done, all
		}})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(stats, bucket.ScrubStats{Repositories: 3, Blobs: 40, Bytes: 230, Manifests: 2, Tags: 2}))
		qt.Assert(t, qt.Equals(last, 230))
		qt.Assert(t, qt.Equals(total, 230))
	})
}

// TestScrubRepairs damages a bucket in many ways.
func TestScrubRepairs(t *testing.T) {
	data := corruptSizes["large"]
	for name, test := range map[string]struct {
		damage             func(b *damagedBucket)
		problems, repaired int
		status             int // of the blob in repository a, after the repair
	}{
		"data":         {func(b *damagedBucket) { b.flip(b.file("/data/")) }, 2, 2, http.StatusNotFound},
		"short_data":   {func(b *damagedBucket) { b.write(b.file("/data/"), "x") }, 2, 2, http.StatusNotFound},
		"missing_data": {func(b *damagedBucket) { os.Remove(b.file("/data/")) }, 1, 1, http.StatusNotFound},
		"data_with_copy": {func(b *damagedBucket) {
			file := b.file("/data/")
			b.write(filepath.Join(filepath.Dir(file), "COPY"), data)
			b.flip(file)
		}, 2, 2, http.StatusOK},
		"missing_data_with_copy": {func(b *damagedBucket) {
			file := b.file("/data/")
			os.Rename(file, filepath.Join(filepath.Dir(file), "COPY"))
		}, 1, 1, http.StatusOK},
		"missing_data_with_condemned_copy": {func(b *damagedBucket) {
			file := b.file("/data/")
			os.Rename(file, filepath.Join(filepath.Dir(file), "COPY"))
			condemned := filepath.Join(filepath.Dir(filepath.Dir(file)), "condemned")
			os.MkdirAll(condemned, 0o700)
			b.write(filepath.Join(condemned, "COPY"), "")
		}, 1, 1, http.StatusOK},
		"missing_data_with_damaged_copy": {func(b *damagedBucket) {
			file := b.file("/data/")
			b.flip(file)
			os.Rename(file, filepath.Join(filepath.Dir(file), "COPY"))
		}, 2, 2, http.StatusNotFound},
		"link":            {func(b *damagedBucket) { b.write(b.file("/_blobs/"), strings.Repeat("x", 1000)) }, 1, 1, http.StatusOK},
		"missing_inverse": {func(b *damagedBucket) { os.Remove(b.file("/links/")) }, 1, 1, http.StatusOK},
		"size": {func(b *damagedBucket) {
			file := b.file("/_blobs/")
			object, _ := os.ReadFile(file)
			b.write(file, strings.Replace(string(object), `"size":2`, `"size":3`, 1))
		}, 1, 1, http.StatusOK},
		"name": {func(b *damagedBucket) { os.Remove(b.file("/names/")) }, 1, 1, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newDamagedBucket(t)
			blob := "a/blobs/" + push(t, b.s, "a", data).String()
			b.scrub(false, 0, 0)
			test.damage(b)
			b.scrub(false, test.problems, 0)
			b.scrub(true, test.problems, test.repaired)
			b.scrub(false, 0, 0)
			if strings.Contains(name, "condemned") { // GC may delete that copy at any moment
				qt.Assert(t, qt.HasLen(b.files("/data/"), 2))
			}
			want := data
			if test.status != http.StatusOK {
				want = ""
			}
			b.want("GET", blob, "", test.status, want)
			push(t, b.s, "a", data)
			b.want("GET", blob, "", http.StatusOK, data)
			repos, err := collect(b.s.Repositories(t.Context(), ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(repos, []string{"a"}))
			b.scrub(false, 0, 0)
		})
	}
}

// TestScrubManifests damages tags and referrers.
func TestScrubManifests(t *testing.T) {
	b := newDamagedBucket(t)
	m := manifest("m")
	qt.Assert(t, qt.IsNil(b.s.PutManifest(t.Context(), "a", m, nil, nil)))
	for i := range 40 {
		r := manifest(fmt.Sprint("referrer", i))
		r.Subject = m.Digest
		r.Referrer = registry.Referrer{Digest: r.Digest, Descriptor: []byte(fmt.Sprintf("{%q:%d}", "size", i))}
		qt.Assert(t, qt.IsNil(b.s.PutManifest(t.Context(), "a", r, []string{fmt.Sprint("tag", i)}, nil)))
	}
	list, err := collect(b.s.Referrers(t.Context(), "a", m.Digest, ""))
	qt.Assert(t, qt.IsNil(err))
	packs := b.files("/_packs/")
	qt.Assert(t, qt.IsTrue(len(packs) > 5))
	b.scrub(false, 0, 0)

	os.Remove(b.files("/_referrers/")[3])
	b.scrub(true, 1, 1)
	pack, err := os.ReadFile(packs[0])
	qt.Assert(t, qt.IsNil(err))
	b.write(packs[0], strings.Replace(string(pack), `"descriptor":"e`, `"descriptor":"f`, 1))
	b.scrub(true, 1, 1)
	again, err := collect(b.s.Referrers(t.Context(), "a", m.Digest, ""))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(again, list))

	entry := b.files("/_referrers/")[5]
	other := strings.Replace(entry, path.Join("sha256", m.Digest.Encoded()), path.Join("sha256", digest.FromString("x").Encoded()), 1)
	qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(other), 0o700)))
	b.write(other, "")
	b.scrub(true, 1, 1)

	qt.Assert(t, qt.IsNil(b.s.PutManifest(t.Context(), "b", m, []string{"one", "two"}, nil)))
	os.Remove(b.file("/b/_manifests/"))
	b.scrub(false, 2, 0)
	push(t, b.s, "b", "data")
	b.scrub(true, 2, 2)
	b.scrub(false, 0, 0)
}

// TestScrubDuringPushes scrubs while clients push and delete.
func TestScrubDuringPushes(t *testing.T) {
	onReplicas(t, nil, func(t *testing.T, stores []*bucket.Store) {
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			concurrently(3, func(i int) {
				s, repo := stores[i%2], fmt.Sprint("repo", i)
				for n := 0; !stop.Load(); n++ {
					d := push(t, s, repo, fmt.Sprint("data", n%3))
					m := manifest(fmt.Sprint("m", n%3))
					m.Subject = manifest("subject").Digest
					m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte("{}")}
					if err := s.PutManifest(t.Context(), repo, m, []string{"tag"}, nil); err != nil {
						t.Error(err)
					}
					if err := s.DeleteManifest(t.Context(), repo, m.Digest); err != nil {
						t.Error(err)
					}
					if err := s.DeleteBlob(t.Context(), repo, d); err != nil {
						t.Error(err)
					}
				}
			})
		}()
		for range 5 {
			_, err := stores[2].Scrub(t.Context(), bucket.ScrubOptions{Repair: true, Problem: func(p bucket.Problem) { t.Error(p) }})
			qt.Check(t, qt.IsNil(err))
		}
		stop.Store(true)
		<-done
	})
}
