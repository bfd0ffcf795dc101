// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// large returns a text that takes several reads.
func large() string { return strings.Repeat("0123456789abcdef", 1<<16) }

// TestOneFetch pulls a blob with many clients at once: the upstream sends it once.
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		text := large()
		_, blob := o.push(t, "library/nginx", "1", text)
		o.set(registrytest.Throttle(1 << 20))
		c := newClient(t, o, &registry.MemStore{}, nil)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				got := c.get("/v2/docker.io/library/nginx/blobs/" + string(blob))
				qt.Check(t, qt.Equals(got.status, 200))
				qt.Check(t, qt.IsTrue(got.body == text))
			})
		}
		wg.Wait()
		qt.Check(t, qt.Equals(o.calls(), 1))
		synctest.Wait()
		o.stop()
		qt.Check(t, qt.IsTrue(c.get("/v2/docker.io/nginx/blobs/"+string(blob)).body == text))
	})
}

// TestClientLeaves has the only client leave: the fetch goes on, and the next client needs
// no call.
func TestClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		text := large()
		_, blob := o.push(t, "library/nginx", "1", text)
		o.set(registrytest.Throttle(1 << 18))
		c := newClient(t, o, &registry.MemStore{}, nil)
		resp, err := c.Get("http://mirror.test/v2/docker.io/library/nginx/blobs/" + string(blob))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(resp.ContentLength, int64(len(text)))) // the header is not held back
		resp.Body.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		o.stop()
		got := c.get("/v2/docker.io/library/nginx/blobs/" + string(blob))
		qt.Check(t, qt.IsTrue(got.body == text))
		qt.Check(t, qt.Equals(o.calls(), 1))
	})
}

// TestHeader reads the header of a response while the upstream has sent no more, and then
// the first bytes.
func TestHeader(t *testing.T) {
	text := large()
	more := make(chan bool)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, text[:200<<10])
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, text[200<<10:])
	}))
	defer upstream.Close()
	c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
		opts.Upstreams[0].URL, opts.Transport = upstream.URL, nil
	})
	resp, err := c.Get("http://mirror.test/v2/docker.io/library/nginx/blobs/" + string(digest.FromString(text)))
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	more <- true
	first := make([]byte, 200<<10)
	_, err = io.ReadFull(resp.Body, first)
	qt.Assert(t, qt.IsNil(err))
	more <- true
	rest, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(string(first)+string(rest) == text))
}

// TestUnknownLength has an upstream that does not say how long a blob is, nor what a manifest
// is, as some servers of files.
func TestUnknownLength(t *testing.T) {
	o := newOrigin()
	text := large()
	_, blob := o.push(t, "library/nginx", "1", text)
	o.set(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			h.ServeHTTP(recorded, r)
			if recorded.Code != http.StatusOK {
				w.WriteHeader(recorded.Code)
				return
			}
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush() // so that there is no length
			w.Write(recorded.Body.Bytes())
		})
	})
	c := newClient(t, o, &registry.MemStore{}, nil)
	got := c.get("/v2/docker.io/nginx/manifests/1")
	qt.Check(t, qt.Equals(got.status, 200))
	qt.Check(t, qt.Equals(got.header.Get("Content-Type"), "application/vnd.oci.image.manifest.v1+json"))
	path := "/v2/docker.io/nginx/blobs/" + string(blob)
	got = c.do(http.MethodHead, path, "", "")
	qt.Check(t, qt.Equals(got.status, 200))
	qt.Check(t, qt.Equals(got.header.Get("Content-Length"), fmt.Sprint(len(text))))
	qt.Check(t, qt.IsTrue(c.get(path).body == text))
}

// TestRanges reads ranges of a blob while it is fetched.
func TestRanges(t *testing.T) {
	for _, test := range []struct {
		name  string
		of    func(size int) string
		calls int // with the fetch itself
	}{
		{"the beginning", func(size int) string { return "bytes=0-99" }, 1},
		{"near", func(size int) string { return "bytes=1000-1099" }, 1},
		{"far", func(size int) string { return fmt.Sprintf("bytes=%d-%d", size-2000, size-1001) }, 2},
		{"the end", func(size int) string { return "bytes=-1000" }, 2},
		{"several", func(size int) string { return fmt.Sprintf("bytes=0-9,%d-%d", size-20, size-11) }, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				text := registrytest.Random(1, 4<<20)
				_, blob := o.push(t, "library/nginx", "1", text)
				o.set(registrytest.Throttle(1 << 16))
				c := newClient(t, o, &registry.MemStore{}, nil)
				path := "/v2/docker.io/library/nginx/blobs/" + string(blob)
				got := c.do(http.MethodGet, path, "Range: "+test.of(len(text)), "")
				qt.Check(t, qt.Equals(got.status, 206))
				qt.Check(t, qt.IsNil(got.err))
				qt.Check(t, qt.Equals(o.calls(), test.calls))
				o.set(nil)
				want := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/v2/library/nginx/blobs/"+string(blob), nil)
				r.Header.Set("Range", test.of(len(text)))
				o.ServeHTTP(want, r)
				if test.name != "several" { // whose parts are separated by random text
					qt.Check(t, qt.Equals(got.body, want.Body.String()))
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				o.stop()
				qt.Check(t, qt.IsTrue(c.get(path).body == text))
			})
		})
	}
}

// TestCut has upstreams that break off: the rest of the blob is requested from the exact
// byte, three times.
func TestCut(t *testing.T) {
	for _, test := range []struct {
		name  string
		cuts  int
		fault func(http.Handler) http.Handler
		ok    bool
	}{
		{"once", 1, registrytest.Disconnect(300_000), true},
		{"three times", 3, registrytest.Disconnect(200_000), true},
		{"four times", 4, registrytest.Disconnect(100_000), false},
		{"a stall", 1, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(len(large())))
				io.WriteString(w, large()[:100_000])
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		}, true},
		{"an upstream without ranges", 1, registrytest.Disconnect(300_000), true},
		{"a slow upstream without ranges", 1, registrytest.Disconnect(900_000), true},
		{"no response, twice", 3, func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					<-r.Context().Done()
					return
				}
				registrytest.Disconnect(300_000)(h).ServeHTTP(w, r)
			})
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				text := large()
				_, blob := o.push(t, "library/nginx", "1", text)
				var mu sync.Mutex
				cuts := 0
				var ranges []string
				o.set(func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						mu.Lock()
						ranges = append(ranges, r.Header.Get("Range"))
						cut := cuts < test.cuts
						cuts++
						mu.Unlock()
						if strings.HasSuffix(test.name, "upstream without ranges") {
							r.Header.Del("Range")
						}
						if cut {
							test.fault(h).ServeHTTP(w, r)
							return
						}
						if strings.HasPrefix(test.name, "a slow") {
							h = registrytest.Throttle(50_000)(h) // for longer than the timeout
						}
						h.ServeHTTP(w, r)
					})
				})
				c := newClient(t, o, &registry.MemStore{}, nil)
				got := c.get("/v2/docker.io/library/nginx/blobs/" + string(blob))
				t.Log(ranges)
				qt.Check(t, qt.Equals(got.status, 200))
				synctest.Wait()
				o.stop()
				if !test.ok {
					qt.Check(t, qt.IsNotNil(got.err))
					qt.Check(t, qt.Equals(c.get("/v2/docker.io/library/nginx/blobs/"+string(blob)).status, 502))
					return
				}
				qt.Check(t, qt.IsNil(got.err))
				qt.Check(t, qt.IsTrue(got.body == text))
				qt.Check(t, qt.IsTrue(c.get("/v2/docker.io/library/nginx/blobs/"+string(blob)).body == text))
				for _, r := range ranges[1:] {
					qt.Check(t, qt.Matches(r, `bytes=[1-9][0-9]*-`))
				}
			})
		})
	}
}

// TestWrongDigest has an upstream send other bytes: no client gets all of them, and nothing
// is stored.
func TestWrongDigest(t *testing.T) {
	for _, size := range []int{10, 64 << 10, 64<<10 + 1, 1 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				text := strings.Repeat("x", size)
				_, blob := o.push(t, "library/nginx", "1", text)
				o.set(registrytest.Corrupt())
				c := newClient(t, o, &registry.MemStore{}, nil)
				path := "/v2/docker.io/library/nginx/blobs/" + string(blob)
				got := c.get(path)
				if size <= 64<<10 || got.status != 200 { // if all has come before the header is sent
					qt.Check(t, qt.Equals(got.status, 502))
				} else {
					qt.Check(t, qt.IsNotNil(got.err))
					qt.Check(t, qt.IsTrue(len(got.body) <= size-64<<10))
				}
				o.set(nil)
				synctest.Wait()
				got = c.get(path)
				qt.Check(t, qt.Equals(got.status, 200))
				qt.Check(t, qt.IsTrue(got.body == text))
			})
		})
	}
}

// TestSharedBlobs fetches a blob of two repositories once, if the upstream says that both
// have it.
func TestSharedBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		text := large()
		_, blob := o.push(t, "library/nginx", "1", text)
		o.push(t, "library/redis", "1", text)
		c := newClient(t, o, &registry.MemStore{}, nil)
		for repo, want := range map[string]int{"nginx": 200, "redis": 200, "other": 404} {
			got := c.get("/v2/docker.io/library/" + repo + "/blobs/" + string(blob))
			qt.Check(t, qt.Equals(got.status, want))
			synctest.Wait() // the mirror keeps a blob just after the client has got it
		}
		var sent int64
		for _, e := range o.journal.Entries() {
			if e.Method == http.MethodGet {
				sent += e.Sent
			}
		}
		qt.Check(t, qt.IsTrue(sent < int64(len(text))+1000), qt.Commentf("the upstream sent %d bytes", sent))
	})
}
