// SPDX-License-Identifier: Apache-2.0

// The races that the protocols must survive, each in its most harmful order.

package bucket_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// before runs f once, before the first request that has the method and a path that
// contains part.
func (p *proxy) before(method, part string, f func()) {
	var once sync.Once
	p.setFaults(func(r *http.Request) fault {
		if r.Method == method && strings.Contains(r.URL.Path, part) {
			once.Do(f)
		}
		return none
	})
}

func TestInterleavings(t *testing.T) {
	t.Parallel()
	server := miniotest.Start(t)
	m := manifest("m")
	m.Subject = digest.FromString("subject")
	m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte("{}")}
	put := func(t *testing.T, s *bucket.Store) {
		t.Helper()
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", m, []string{"tag"}, nil)))
	}
	wantComplete := func(t *testing.T, s *bucket.Store) { // m, its tag, referrer and name
		t.Helper()
		got, err := s.GetTag(t.Context(), "a", "tag")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(got.Digest, m.Digest))
		referrers, err := collect(s.Referrers(t.Context(), "a", m.Subject, ""))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(referrers, 1))
		names, err := collect(s.Repositories(t.Context(), ""))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(names, []string{"a"}))
	}
	d := digest.FromString("data")
	shared := strings.Repeat("shared", 200_000) // pushes look for the data only of large blobs
	sharedDigest := digest.FromString(shared)
	ctx := t.Context()

	other := m // the same bytes with another media type
	other.MediaType = "application/vnd.other+json"
	other.Referrer.Descriptor = []byte(`{"other":true}`)
	putOther := func(t *testing.T, s *bucket.Store) {
		t.Helper()
		qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest)))
		qt.Check(t, qt.IsNil(s.PutManifest(ctx, "a", other, nil, nil)))
	}
	wantOther := func(t *testing.T, s *bucket.Store, wantTags ...string) { // by default without the tags of m
		t.Helper()
		got, err := s.GetManifest(ctx, "a", m.Digest)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got.MediaType, other.MediaType))
		tags, err := collect(s.Tags(ctx, "a", ""))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals(tags, wantTags))
		referrers, err := collect(s.Referrers(ctx, "a", m.Subject, ""))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(referrers, 1))
		qt.Check(t, qt.Equals(string(referrers[0].Descriptor), string(other.Referrer.Descriptor)))
	}

	// keepsOld checks that a collection keeps the manifest that rejectedAfterMove
	// pushes first.
	keepsOld := func(t *testing.T, s *bucket.Store, unused time.Duration) {
		t.Helper()
		deleted, err := s.CollectManifests(ctx, "a", []digest.Digest{manifest("old").Digest}, time.Now().Add(-unused))
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(deleted, 0))
	}
	onlyNew := func(_ string, current digest.Digest) error {
		if current != "" {
			return registry.ErrDenied
		}
		return nil
	}

	for _, test := range []struct {
		name string
		// run pauses an operation of slow in the proxy p, and meanwhile uses s,
		// which has the same bucket without the proxy.
		run func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store)
	}{
		{"delete_while_put_before_the_tag", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/", func() { qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest))) })
			put(t, slow)
			wantComplete(t, s)
		}},
		{"delete_while_put_again_before_the_manifest_is_read", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("GET", "/_manifests/", func() { qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest))) })
			put(t, slow)
			wantComplete(t, s)
		}},
		{"delete_while_put_again_before_the_manifest_is_rewritten", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("GET", "/_manifests/", func() {
				p.before("PUT", "/_manifests/", func() { qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest))) })
			})
			put(t, slow)
			wantComplete(t, s)
		}},
		{"put_with_another_type_while_put_again", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("GET", "/_manifests/", func() {
				p.before("PUT", "/_manifests/", func() { putOther(t, s) })
			})
			err := slow.PutManifest(ctx, "a", m, []string{"tag"}, nil)
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestInvalid)))
			wantOther(t, s)
		}},
		{"put_with_another_type_while_first_put", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_manifests/", func() { qt.Check(t, qt.IsNil(s.PutManifest(ctx, "a", other, nil, nil))) })
			err := slow.PutManifest(ctx, "a", m, []string{"tag"}, nil)
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestInvalid)))
			wantOther(t, s)
		}},
		{"put_with_another_type_while_put_before_the_tag", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/", func() { putOther(t, s) })
			err := slow.PutManifest(ctx, "a", m, []string{"tag"}, nil)
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestInvalid)))
			wantOther(t, s)
		}},
		{"put_with_another_type_while_deleted_before_the_referrer", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("DELETE", "/_referrers/", func() { qt.Check(t, qt.IsNil(s.PutManifest(ctx, "a", other, nil, nil))) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			wantOther(t, s)
		}},
		{"put_while_deleted_before_the_referrer", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("DELETE", "/_referrers/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			wantComplete(t, s)
		}},
		{"put_before_the_manifest_is_deleted", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("GET", "/_tags/", func() { // the manifest is about to leave
				put(t, s)
				wantComplete(t, s)
			})
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			_, err := s.GetTag(ctx, "a", "tag")
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
		}},
		{"put_while_deleted_before_the_tag_is_deleted", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("PUT", "/_tags/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			wantComplete(t, s)
		}},
		{"put_while_deleted_before_the_name_is_deleted", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("PUT", "/names/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			wantComplete(t, s)
		}},
		{"tag_moved_after_allow", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/", func() { put(t, s) })
			err := slow.PutManifest(ctx, "a", manifest("other"), []string{"tag"}, onlyNew)
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrDenied)))
			wantComplete(t, s)
		}},
		{"second_tag_rejected_after_the_first_moved", rejectedAfterMove(0, func(*testing.T, *bucket.Store) {}, "first", "tag")},
		{"pushed_manifest_deleted_before_its_tag_moves_back", rejectedAfterMove(0, func(t *testing.T, s *bucket.Store) {
			qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", manifest("other").Digest)))
		}, "first", "tag")},
		{"tag_deleted_before_it_moves_back", rejectedAfterMove(0, func(t *testing.T, s *bucket.Store) {
			qt.Check(t, qt.IsNil(s.DeleteTag(ctx, "a", "first", nil)))
		}, "tag")},
		{"old_manifest_deleted_before_its_tag_moves_back", rejectedAfterMove(0, func(t *testing.T, s *bucket.Store) {
			qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", manifest("old").Digest)))
		}, "tag")},
		{"old_manifest_collected_before_its_tag_moves_back", rejectedAfterMove(old, func(t *testing.T, s *bucket.Store) {
			keepsOld(t, s, old-grace)
		}, "first", "tag")},
		{"hint_and_old_manifest_collected_before_its_tag_moves_back", rejectedAfterMove(old, func(t *testing.T, s *bucket.Store) {
			gcAfter(t, s, old)
			keepsOld(t, s, old-grace)
		}, "first", "tag")},
		{"new_hint_collected_before_the_tag_moves_back", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			rejectedAfterMove(0, func(t *testing.T, s *bucket.Store) {
				p.before("PUT", "/_tags/first", func() { // the hint is written
					time.Sleep(grace + 50*time.Millisecond)
					gc(t, s)
				})
			}, "first", "tag")(t, slow, p, s)
			time.Sleep(2*grace + 50*time.Millisecond)
			keepsOld(t, s, grace)
		}},
		{"bucket_fails_before_the_tag_moves_back", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/tag", func() {
				put(t, s)
				p.setFaults(func(r *http.Request) fault {
					if r.Method == http.MethodPut {
						return overloaded
					}
					return none
				})
			})
			err := slow.PutManifest(ctx, "a", manifest("other"), []string{"first", "tag"}, onlyNew)
			qt.Assert(t, qt.Equals(err, error(registry.ErrUnavailable))) // and nothing else
		}},
		{"put_with_another_type_after_the_first_tag_moved", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", manifest("old"), []string{"first"}, nil)))
			p.before("PUT", "/_tags/tag", func() { putOther(t, s) })
			err := slow.PutManifest(ctx, "a", m, []string{"first", "tag"}, nil)
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestInvalid)))
			wantOther(t, s, "first")
			got, err := s.GetTag(ctx, "a", "first")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(got.Digest, manifest("old").Digest))
		}},
		{"name_deleted_before_a_push_fails", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("PUT", "/_manifests/", func() {
				qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest)))
				p.setFaults(func(r *http.Request) fault {
					if strings.Contains(r.URL.Path, "/_manifests/") {
						return none
					}
					return overloaded
				})
			})
			err := slow.PutManifest(ctx, "a", manifest("other"), nil, nil)
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrUnavailable)))
			time.Sleep(grace + 50*time.Millisecond)
			gc(t, s)
			names, err := collect(s.Repositories(ctx, ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(names, []string{"a"})) // it has the other manifest
		}},
		{"hint_collected_before_the_tag_moves_back", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			rejectedAfterMove(old, func(t *testing.T, s *bucket.Store) { gc(t, s) }, "first", "tag")(t, slow, p, s)
			qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", manifest("old").Digest)))
			tags, err := collect(s.Tags(ctx, "a", ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(tags, []string{"tag"}))
		}},
		{"tag_moved_while_read", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", manifest("old"), []string{"tag"}, nil)))
			p.before("GET", "/_manifests/", func() {
				put(t, s)
				qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", manifest("old").Digest)))
			})
			wantComplete(t, slow)
		}},
		{"cancelled_while_committed", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := newSession(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			defer u.Close()
			p.before("PUT", "/state", func() { qt.Check(t, qt.IsNil(s.CancelUpload(ctx, "a", id))) })
			qt.Assert(t, qt.ErrorIs(u.Commit(ctx, d), error(registry.ErrBlobUploadUnknown)))
			_, err = s.OpenBlob(ctx, "a", d)
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
		}},
		{"cancelled_while_published", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := newSession(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			defer u.Close()
			p.before("PUT", "/_blobs/", func() {
				qt.Check(t, qt.ErrorIs(s.CancelUpload(ctx, "a", id), error(registry.ErrBlobUploadUnknown)))
			})
			qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
			wantBlob(t, s, "a", d)
		}},
		{"size_requested_while_closed", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := newSession(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			_, err = u.ReadFrom(strings.NewReader("more"))
			qt.Assert(t, qt.IsNil(err))
			p.before("PUT", "/state", func() { // late enough to reset the idle timer
				time.Sleep(idle / 3)
				_, err := s.UploadSize(ctx, "a", id)
				qt.Check(t, qt.IsNil(err))
			})
			qt.Assert(t, qt.IsNil(u.Close()))
			size, err := s.UploadSize(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(size, 8))
		}},
		// A push finds data that another repository links. Before each step of
		// the push, that repository deletes the blob, and GC deletes the data.
		{"deleted_while_pushed_before_the_inverse", deletedWhilePushed("/links/")},
		{"deleted_while_pushed_before_the_link", deletedWhilePushed("/_blobs/")},
		{"deleted_while_pushed_before_the_name", deletedWhilePushed("/names/")},
		// The link follows its inverse so late that GC deletes the inverse as
		// left behind. Later the other repository deletes the blob.
		{"slow_link", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			push(t, s, "x", shared)
			p.before("PUT", "/_blobs/", func() {
				time.Sleep(grace + 50*time.Millisecond)
				gc(t, s)
			})
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, slow, "a", sharedDigest, strings.NewReader(shared))))
			qt.Assert(t, qt.IsNil(s.DeleteBlob(ctx, "x", sharedDigest)))
			condemn(t, s)
			gc(t, s)
			wantBlob(t, s, "a", sharedDigest)
		}},
		// As above, but GC has already looked for links when the push writes its
		// link, and waits before it deletes the data.
		{"data_deleted_after_push", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			push(t, s, "x", shared)
			gcs, gcProxy := behindProxy(t, server, p.direct, nil)
			shortenGrace(gcs)
			pushed, done := make(chan struct{}), make(chan struct{})
			p.before("PUT", "/links/", func() {
				qt.Check(t, qt.IsNil(s.DeleteBlob(ctx, "x", sharedDigest)))
				condemn(t, s)
				aboutToDelete := make(chan struct{})
				gcProxy.before("DELETE", "/data/", func() {
					close(aboutToDelete)
					<-pushed
				})
				go func() {
					defer close(done)
					gc(t, gcs)
				}()
				<-aboutToDelete
			})
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, slow, "a", sharedDigest, strings.NewReader(shared))))
			close(pushed)
			<-done
			wantBlob(t, s, "a", sharedDigest)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			direct := server.URL(t)
			opts := &bucket.Options{UploadIdle: idle}
			slow, p := behindProxy(t, server, direct, opts)
			s := open(t, direct, opts)
			shortenGrace(slow, s)
			test.run(t, slow, p, s)
		})
	}
}

const idle = 3 * time.Second

// old is an age at which content can be collected. It leaves some seconds for slow
// machines, and for buckets that round times to seconds.
const old = 4 * grace

// rejectedAfterMove pushes a manifest with three tags, of which another replica
// creates the last when the first has moved: so the push is rejected, and the first
// moves back. Before that, meanwhile happens. These tags must be there in the end. The
// old manifest is older than age.
func rejectedAfterMove(age time.Duration, meanwhile func(*testing.T, *bucket.Store), wantTags ...string) func(*testing.T, *bucket.Store, *proxy, *bucket.Store) {
	return func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
		ctx := t.Context()
		before, other := manifest("old"), manifest("other")
		qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", before, []string{"first"}, nil)))
		if age > 0 {
			time.Sleep(age + 50*time.Millisecond)
		}
		p.before("PUT", "/_tags/tag", func() {
			qt.Check(t, qt.IsNil(s.PutManifest(ctx, "a", manifest("m"), []string{"tag"}, nil)))
			meanwhile(t, s)
		})
		err := slow.PutManifest(ctx, "a", other, []string{"first", "new", "tag"}, func(tag string, current digest.Digest) error {
			if tag == "tag" && current != "" {
				return registry.ErrDenied
			}
			return nil
		})
		qt.Assert(t, qt.ErrorIs(err, error(registry.ErrDenied)))
		tags, err := collect(s.Tags(ctx, "a", ""))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(tags, wantTags))
		if wantTags[0] == "first" {
			got, err := s.GetTag(ctx, "a", "first")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(got.Digest, before.Digest))
		}
	}
}

// newSession opens an upload session that contains data.
func newSession(t *testing.T, s *bucket.Store) (id string) {
	t.Helper()
	u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("data"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))
	return u.ID()
}

// condemn makes GC condemn data without links, and waits until the next run can
// delete it.
func condemn(t *testing.T, s *bucket.Store) {
	t.Helper()
	time.Sleep(grace + 50*time.Millisecond)
	gc(t, s)
	time.Sleep(grace + 50*time.Millisecond)
}

func deletedWhilePushed(before string) func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
	return func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
		shared := strings.Repeat("shared", 200_000)
		d := push(t, s, "x", shared)
		p.before("PUT", before, func() {
			qt.Check(t, qt.IsNil(s.DeleteBlob(t.Context(), "x", d)))
			condemn(t, s)
			gc(t, s)
		})
		qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), slow, "a", d, strings.NewReader(shared))))
		wantBlob(t, s, "a", d)
		time.Sleep(grace + 50*time.Millisecond)
		gc(t, s)
		wantBlob(t, s, "a", d)
		condemn(t, s)
		gc(t, s)
		wantBlob(t, s, "a", d)
	}
}
