// SPDX-License-Identifier: Apache-2.0

// The races that the protocols are made for, each in the order that would hurt.

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

// before has f run once, before the first request with a method for a path that
// contains a part.
func (p *proxy) before(method, part string, f func()) {
	var once sync.Once
	p.spoiled(func(r *http.Request) fault {
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
	whole := func(t *testing.T, s *bucket.Store) { // m with all that belongs to it
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
	ctx := t.Context()

	for _, test := range []struct {
		name string
		// run has one store stopped by the proxy, while another, that is not
		// behind it, goes on.
		run func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store)
	}{
		{"delete_while_put_before_the_tag", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/", func() { qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest))) })
			put(t, slow)
			whole(t, s)
		}},
		{"delete_while_put_after_the_tag", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("HEAD", "/_manifests/", func() { qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", m.Digest))) })
			put(t, slow)
			whole(t, s)
		}},
		{"put_while_deleted_before_the_referrer", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("DELETE", "/_referrers/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			whole(t, s)
		}},
		{"put_while_deleted_before_the_tag_is_read", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("GET", "/_tags/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			whole(t, s)
		}},
		{"put_while_deleted_before_the_tag_is_deleted", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("PUT", "/_tags/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			whole(t, s)
		}},
		{"put_while_deleted_before_the_name_goes", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			put(t, s)
			p.before("DELETE", "/names/", func() { put(t, s) })
			qt.Assert(t, qt.IsNil(slow.DeleteManifest(ctx, "a", m.Digest)))
			whole(t, s)
		}},
		{"tag_moved_while_asked", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			p.before("PUT", "/_tags/", func() { put(t, s) })
			err := slow.PutManifest(ctx, "a", manifest("other"), []string{"tag"}, func(_ string, current digest.Digest) error {
				if current != "" {
					return registry.ErrDenied
				}
				return nil
			})
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrDenied)))
			whole(t, s)
		}},
		{"second_tag_refused_after_the_first_moved", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", manifest("old"), []string{"first"}, nil)))
			p.before("PUT", "/_tags/tag", func() { put(t, s) })
			err := slow.PutManifest(ctx, "a", manifest("other"), []string{"first", "new", "tag"}, func(tag string, current digest.Digest) error {
				if tag == "tag" && current != "" {
					return registry.ErrDenied
				}
				return nil
			})
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrDenied)))
			whole(t, s)
			got, err := s.GetTag(ctx, "a", "first")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(got.Digest, manifest("old").Digest))
			tags, err := collect(s.Tags(ctx, "a", ""))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.DeepEquals(tags, []string{"first", "tag"}))
		}},
		{"tag_moved_while_read", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			qt.Assert(t, qt.IsNil(s.PutManifest(ctx, "a", manifest("old"), []string{"tag"}, nil)))
			p.before("GET", "/_manifests/", func() {
				put(t, s)
				qt.Check(t, qt.IsNil(s.DeleteManifest(ctx, "a", manifest("old").Digest)))
			})
			whole(t, slow)
		}},
		{"cancelled_while_committed", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := session(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			defer u.Close()
			p.before("PUT", "/state", func() { qt.Check(t, qt.IsNil(s.CancelUpload(ctx, "a", id))) })
			qt.Assert(t, qt.ErrorIs(u.Commit(ctx, d), error(registry.ErrBlobUploadUnknown)))
			_, err = s.OpenBlob(ctx, "a", d)
			qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameUnknown)))
		}},
		{"cancelled_while_published", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := session(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			defer u.Close()
			p.before("PUT", "/data/", func() {
				qt.Check(t, qt.ErrorIs(s.CancelUpload(ctx, "a", id), error(registry.ErrBlobUploadUnknown)))
			})
			qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
			wantBlob(t, s, "a", d)
		}},
		{"asked_while_closed", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			id := session(t, s)
			u, err := slow.ResumeUpload(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			_, err = u.ReadFrom(strings.NewReader("more"))
			qt.Assert(t, qt.IsNil(err))
			p.before("PUT", "/state", func() { // late enough to be noted as used
				time.Sleep(idle / 3)
				_, err := s.UploadSize(ctx, "a", id)
				qt.Check(t, qt.IsNil(err))
			})
			qt.Assert(t, qt.IsNil(u.Close()))
			size, err := s.UploadSize(ctx, "a", id)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(size, 8))
		}},
		// A push that has found data in a repository that gives it up just then,
		// and GC that deletes it, up to each of the steps of the push.
		{"deleted_while_pushed_before_the_inverse", deletedWhilePushed("/links/")},
		{"deleted_while_pushed_before_the_link", deletedWhilePushed("/_blobs/")},
		{"deleted_while_pushed_before_the_name", deletedWhilePushed("/names/")},
		// GC takes the inverse of a link that is long in coming for one that was
		// left behind, and the other repository gives the data up later.
		{"slow_link", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			push(t, s, "x", "data")
			p.before("PUT", "/_blobs/", func() {
				time.Sleep(grace + 50*time.Millisecond)
				gc(t, s)
			})
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, slow, "a", d, strings.NewReader("data"))))
			qt.Assert(t, qt.IsNil(s.DeleteBlob(ctx, "x", d)))
			condemn(t, s)
			gc(t, s)
			wantBlob(t, s, "a", d)
		}},
		// The same as above, where GC has looked for links already, and then waits.
		{"doomed_while_pushed", func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
			push(t, s, "x", "data")
			gcs, gcProxy := behindProxy(t, server, p.direct, nil)
			hurry(gcs)
			pushed, done := make(chan struct{}), make(chan struct{})
			p.before("PUT", "/links/", func() {
				qt.Check(t, qt.IsNil(s.DeleteBlob(ctx, "x", d)))
				condemn(t, s)
				looked := make(chan struct{})
				gcProxy.before("DELETE", "/data/", func() {
					close(looked)
					<-pushed
				})
				go func() {
					defer close(done)
					gc(t, gcs)
				}()
				<-looked
			})
			qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, slow, "a", d, strings.NewReader("data"))))
			close(pushed)
			<-done
			wantBlob(t, s, "a", d)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			direct := server.URL(t)
			opts := &bucket.Options{UploadIdle: idle}
			slow, p := behindProxy(t, server, direct, opts)
			s := open(t, direct, opts)
			hurry(slow, s)
			test.run(t, slow, p, s)
		})
	}
}

const idle = 3 * time.Second

// session makes an upload session with data.
func session(t *testing.T, s *bucket.Store) (id string) {
	t.Helper()
	u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("data"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))
	return u.ID()
}

// condemn has GC condemn what no link names, and wait until it is due.
func condemn(t *testing.T, s *bucket.Store) {
	t.Helper()
	time.Sleep(grace + 50*time.Millisecond)
	gc(t, s)
	time.Sleep(grace + 50*time.Millisecond)
}

func deletedWhilePushed(before string) func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
	return func(t *testing.T, slow *bucket.Store, p *proxy, s *bucket.Store) {
		d := push(t, s, "x", "data")
		p.before("PUT", before, func() {
			qt.Check(t, qt.IsNil(s.DeleteBlob(t.Context(), "x", d)))
			condemn(t, s)
			gc(t, s)
		})
		qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), slow, "a", d, strings.NewReader("data"))))
		wantBlob(t, s, "a", d)
		time.Sleep(grace + 50*time.Millisecond)
		gc(t, s)
		wantBlob(t, s, "a", d)
		condemn(t, s)
		gc(t, s)
		wantBlob(t, s, "a", d)
	}
}
