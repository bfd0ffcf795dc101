// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// fails returns a fault for all requests.
func fails(h http.HandlerFunc) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler { return h }
}

// status responds with a status, and a header "Name: value".
func status(code int, header string) func(http.Handler) http.Handler {
	return fails(func(w http.ResponseWriter, r *http.Request) {
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
	})
}

// TestFailures has a row for each way in which an upstream fails: the responses for a tag
// that is stored, and whose time to live is over, and for one that is not.
func TestFailures(t *testing.T) {
	html := fails(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte("<h1>Please log in</h1>"))
	})
	for _, test := range []struct {
		name    string
		fault   func(http.Handler) http.Handler // nil: no connection
		private bool
		keep    bool

		stored     int // the status, with a Warning if it is 200
		storedCode string
		cold       int
		coldCode   string
		retryAfter string
		calls      int // for the two requests, at most
	}{
		{name: "unreachable", stored: 200, cold: 502, coldCode: "UNAVAILABLE"},
		{name: "no response", fault: fails(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), stored: 200, cold: 504, coldCode: "UNAVAILABLE", calls: 1},
		{name: "401", fault: status(401, `WWW-Authenticate: Basic realm="x"`), stored: 200, cold: 403, coldCode: "DENIED", calls: 2},
		{name: "401 without a challenge", fault: status(401, ""), stored: 200, cold: 403, coldCode: "DENIED", calls: 2},
		{name: "403", fault: status(403, ""), stored: 200, cold: 403, coldCode: "DENIED", calls: 2},
		{name: "403, private", fault: status(403, ""), private: true, stored: 403, storedCode: "DENIED", cold: 403, coldCode: "DENIED", calls: 2},
		{name: "401, private", fault: status(401, ""), private: true, stored: 403, storedCode: "DENIED", cold: 403, coldCode: "DENIED", calls: 2},
		{name: "404", fault: status(404, ""), stored: 404, storedCode: "MANIFEST_UNKNOWN", cold: 404, coldCode: "MANIFEST_UNKNOWN", calls: 2},
		{name: "404, kept", fault: status(404, ""), keep: true, stored: 200, cold: 404, coldCode: "MANIFEST_UNKNOWN", calls: 2},
		{name: "410", fault: status(410, ""), stored: 404, storedCode: "MANIFEST_UNKNOWN", cold: 404, coldCode: "MANIFEST_UNKNOWN", calls: 2},
		{name: "429", fault: status(429, "Retry-After: 30"), stored: 200, cold: 429, coldCode: "TOOMANYREQUESTS", retryAfter: "30", calls: 1},
		{name: "429 without a time", fault: status(429, ""), stored: 200, cold: 429, coldCode: "TOOMANYREQUESTS", retryAfter: "60", calls: 1},
		{name: "500", fault: status(500, ""), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 4},
		{name: "502", fault: status(502, ""), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 4},
		{name: "503", fault: status(503, "Retry-After: 30"), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 4},
		{name: "504", fault: status(504, ""), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 4},
		{name: "418", fault: status(418, ""), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 2},
		{name: "HTML", fault: html, stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 2},
		{name: "another digest", fault: fails(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", "sha256:"+strings.Repeat("1", 64))
			w.Write([]byte(`{"schemaVersion":2}`))
		}), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 3},
		{name: "not JSON", fault: fails(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Write([]byte(`{`))
		}), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 3},
		{name: "endless", fault: fails(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			for r.Method == http.MethodGet {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 3},
		{name: "a broken connection", fault: registrytest.DropResponse(), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 2},
		{name: "from https to http", fault: status(307, "Location: http://elsewhere.test/"), stored: 200, cold: 502, coldCode: "UNAVAILABLE", calls: 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				manifest, _ := o.push(t, "library/nginx", "1", "a layer")
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
					u := &opts.Upstreams[0]
					u.Private, u.KeepDeleted = test.private, test.keep
					u.URL = "https://registry-1.docker.test"
				})
				qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
				o.set(test.fault)
				if test.fault == nil {
					o.stop()
				}
				before := o.calls()

				stored := c.get("/v2/docker.io/nginx/manifests/1")
				qt.Check(t, qt.Equals(stored.status, test.stored))
				if test.stored == 200 {
					qt.Check(t, qt.Equals(stored.header.Get("Docker-Content-Digest"), string(manifest)))
					qt.Check(t, qt.Matches(stored.header.Get("Warning"), `299 berth "the upstream docker.io .*"`))
				} else {
					qt.Check(t, qt.Equals(stored.code(), test.storedCode))
				}
				cold := c.get("/v2/docker.io/nginx/manifests/2")
				qt.Check(t, qt.Equals(cold.status, test.cold))
				qt.Check(t, qt.Equals(cold.code(), test.coldCode))
				qt.Check(t, qt.Equals(cold.header.Get("Retry-After"), test.retryAfter))
				for _, name := range []string{"Www-Authenticate", "Set-Cookie"} {
					qt.Check(t, qt.Equals(cold.header.Get(name), ""))
				}
				if calls := o.calls() - before; calls > test.calls {
					t.Errorf("%d calls, want at most %d:\n%s", calls, test.calls, o.journal.String())
				}

				// Content named by its digest needs no call.
				before = o.calls()
				qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/"+string(manifest)).status, 200))
				qt.Check(t, qt.Equals(o.calls(), before))

				// The upstream is asked again when it may be.
				o.set(nil)
				time.Sleep(61 * time.Second)
				after := c.get("/v2/docker.io/nginx/manifests/1")
				qt.Check(t, qt.Equals(after.status, 200))
				qt.Check(t, qt.Equals(after.header.Get("Warning"), ""))
			})
		})
	}
}

// TestMovedTags has tags that move upstream in unusual ways.
func TestMovedTags(t *testing.T) {
	for _, test := range []struct {
		name   string
		header string // Docker-Content-Digest of HEAD responses, unless empty
		ask    bool   // for the new manifest before it is there
	}{
		{name: "the digest has just been unknown", ask: true},
		{name: "the digest of a manifest that is gone", header: "sha256:" + strings.Repeat("1", 64)},
		{name: "no digest", header: "none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, later := newOrigin(), newOrigin()
				o.push(t, "library/nginx", "1", "a layer")
				moved, _ := later.push(t, "library/nginx", "1", "another layer")
				c := newClient(t, o, &registry.MemStore{}, nil)
				qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
				if test.ask {
					qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/"+string(moved)).status, 404))
				}
				o.push(t, "library/nginx", "1", "another layer")
				o.set(func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Method == http.MethodHead && test.header != "" {
							w.Header().Set("Docker-Content-Digest", test.header)
							w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
							return
						}
						h.ServeHTTP(w, r)
					})
				})
				got := c.get("/v2/docker.io/nginx/manifests/1")
				qt.Check(t, qt.Equals(got.status, 200))
				qt.Check(t, qt.Equals(got.header.Get("Docker-Content-Digest"), string(moved)))
				qt.Check(t, qt.Equals(got.header.Get("Warning"), ""))
			})
		})
	}
}

// TestBlobFailures has the responses for a blob that is not stored.
func TestBlobFailures(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault func(http.Handler) http.Handler // nil: no connection
		want  int
		code  string
	}{
		{"unreachable", nil, 502, "UNAVAILABLE"},
		{"no response", fails(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), 504, "UNAVAILABLE"},
		{"401", status(401, ""), 403, "DENIED"},
		{"403", status(403, ""), 403, "DENIED"},
		{"404", status(404, ""), 404, "BLOB_UNKNOWN"},
		{"429", status(429, "Retry-After: 5"), 429, "TOOMANYREQUESTS"},
		{"500", status(500, ""), 502, "UNAVAILABLE"},
		{"HTML", fails(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Write([]byte("<h1>Please log in</h1>"))
		}), 502, "UNAVAILABLE"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			t.Run(test.name+"/"+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOrigin()
					_, blob := o.push(t, "library/nginx", "1", "a layer")
					c := newClient(t, o, &registry.MemStore{}, nil)
					o.set(test.fault)
					if test.fault == nil {
						o.stop()
					}
					got := c.do(method, "/v2/docker.io/library/nginx/blobs/"+string(blob), "", "")
					qt.Check(t, qt.Equals(got.status, test.want))
					if method == http.MethodGet {
						qt.Check(t, qt.Equals(got.code(), test.code))
					}
					o.set(nil)
					time.Sleep(61 * time.Second)
					got = c.do(method, "/v2/docker.io/library/nginx/blobs/"+string(blob), "", "")
					qt.Check(t, qt.Equals(got.status, 200))
				})
			})
		}
	}
}

// TestGoneForGood has an upstream that denies access to a tag, or has it no longer, and then
// can't be reached: the stored tag does not come back.
func TestGoneForGood(t *testing.T) {
	for _, test := range []struct {
		status  int
		private bool
		want    int
	}{{404, false, 502}, {403, true, 502}, {403, false, 200}} {
		t.Run(fmt.Sprint(test.status, test.private), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				o.push(t, "library/nginx", "1", "a layer")
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Upstreams[0].Private = test.private })
				c.get("/v2/docker.io/nginx/manifests/1")
				o.set(status(test.status, ""))
				c.get("/v2/docker.io/nginx/manifests/1")
				time.Sleep(time.Minute)
				o.stop()
				qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, test.want))
			})
		})
	}
}

// TestStalledRange has an upstream that stalls in a range far from what has been fetched:
// the fetch brings it.
func TestStalledRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		text := registrytest.Random(1, 4<<20)
		_, blob := o.push(t, "library/nginx", "1", text)
		o.set(func(h http.Handler) http.Handler {
			slow := registrytest.Throttle(1 << 18)(h)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					slow.ServeHTTP(w, r)
					return
				}
				w.Header().Set("Content-Range", "bytes 3000000-4194303/4194304")
				w.WriteHeader(http.StatusPartialContent)
				w.Write([]byte(text[3000000:3000010]))
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		})
		c := newClient(t, o, &registry.MemStore{}, nil)
		got := c.do(http.MethodGet, "/v2/docker.io/nginx/blobs/"+string(blob), "Range: bytes=3000000-3000099", "")
		qt.Check(t, qt.Equals(got.status, 206))
		qt.Check(t, qt.IsNil(got.err))
		qt.Check(t, qt.Equals(got.body, text[3000000:3000100]))
	})
}

// fullStore has no room for manifests once it is full.
type fullStore struct {
	*registry.MemStore
	full atomic.Bool
}

func (s *fullStore) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	if s.full.Load() {
		return registry.ErrTooManyRequests
	}
	return s.MemStore.PutManifest(ctx, repo, m, tags, allow)
}

// TestNoRoomForManifests moves a tag upstream while nothing more can be stored: clients get the new
// manifest each time, not the stored one again.
func TestNoRoomForManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		s := &fullStore{MemStore: &registry.MemStore{}}
		c := newClient(t, o, s, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Minute })
		qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
		moved, _ := o.push(t, "library/nginx", "1", "another layer")
		time.Sleep(2 * time.Minute)
		s.full.Store(true)
		for range 3 {
			for _, ref := range []string{"1", string(moved)} {
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					got := c.do(method, "/v2/docker.io/nginx/manifests/"+ref, "", "")
					qt.Check(t, qt.Equals(got.status, 200), qt.Commentf("%s %s", method, ref))
					qt.Check(t, qt.Equals(got.header.Get("Docker-Content-Digest"), string(moved)))
				}
			}
		}
	})
}
