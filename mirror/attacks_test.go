// SPDX-License-Identifier: Apache-2.0

// Tests of what was found by attacks on mirrors.

package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

const (
	indexType  = "Content-Type: application/vnd.oci.image.index.v1+json"
	emptyIndex = `{"schemaVersion":2,"manifests":[]}`
)

// TestCatalog lists repositories before and after the names of fetched content, each once.
func TestCatalog(t *testing.T) {
	for _, fetched := range []bool{false, true} {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		c := newClient(t, o, &registry.MemStore{}, nil)
		theirs := ""
		if fetched {
			qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
			theirs = `"docker.io/library/nginx",`
		}
		for _, name := range []string{"app", "mirror.cache", "mirror.cache0", "nginx", "zoo"} {
			qt.Assert(t, qt.Equals(c.do(http.MethodPut, "/v2/"+name+"/manifests/1", indexType, emptyIndex).status, 201))
		}
		for query, want := range map[string]string{
			"":                     `"app",` + theirs + `"mirror.cache","mirror.cache0","nginx","zoo"`,
			"?last=b":              theirs + `"mirror.cache","mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache":   `"mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache/x": `"mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache0":  `"nginx","zoo"`,
			"?last=n":              `"nginx","zoo"`,
			"?n=2&last=m":          `"mirror.cache","mirror.cache0"`,
			"?last=zoo":            ``,
		} {
			qt.Check(t, qt.Equals(c.get("/v2/_catalog"+query).body, `{"repositories":[`+want+`]}`), qt.Commentf("%s", query))
		}
	}
}

// TestRemovedUpstream removes an upstream: the catalog does not have what can't be read.
func TestRemovedUpstream(t *testing.T) {
	o := newOrigin()
	o.push(t, "library/nginx", "1", "a layer")
	o.push(t, "team/app", "1", "a layer")
	c := newClient(t, o, &registry.MemStore{}, nil)
	for _, repo := range []string{"library/nginx", "team/app"} {
		qt.Assert(t, qt.Equals(c.get("/v2/docker.io/"+repo+"/manifests/1").status, 200))
	}
	for _, test := range []struct {
		upstreams []mirror.Upstream
		want      string
	}{
		{nil, ""},
		{[]mirror.Upstream{{Name: "docker.io", URL: "http://a.test", Repositories: []string{"team/*"}}}, `"docker.io/team/app"`},
		{[]mirror.Upstream{{Name: "docker.io", URL: "http://a.test"}}, `"docker.io/library/nginx","docker.io/team/app"`},
	} {
		qt.Assert(t, qt.IsNil(c.mirror.SetUpstreams("", test.upstreams...)))
		qt.Check(t, qt.Equals(c.get("/v2/_catalog").body, `{"repositories":[`+test.want+`]}`))
	}
}

// TestPoliciesSeeCanonicalNames spells the name of a repository in ways that a rule may not
// have foreseen.
func TestPoliciesSeeCanonicalNames(t *testing.T) {
	for _, test := range []struct {
		method, target string
		want           string // the repositories that the policy is asked about
	}{
		{"GET", "/v2/docker.io/secret/manifests/1", "docker.io/library/secret"},
		{"GET", "/v2/docker%2eio/secret/manifests/1", "docker.io/library/secret"},
		{"GET", "/v2/docker.io/s%65cret/manifests/1", "docker.io/library/secret"},
		{"GET", "/v2/secret/manifests/1?ns=docker%2eio", "docker.io/library/secret"},
		{"GET", "/v2/secret/manifests/1?n%73=docker.io", "docker.io/library/secret"},
		{"GET", "/v2/secret/manifests/1?ns=DOCKER.IO", "docker.io/library/secret"},
		{"GET", "/v2/secret/manifests/1?ns=docker.io&ns=ghcr.io", "docker.io/library/secret"},
		{"POST", "/v2/app/blobs/uploads/?mount=DIGEST&from=docker.io/secret", "app docker.io/library/secret"},
		{"POST", "/v2/app/blobs/uploads/?mount=DIGEST&fr%6fm=docker.io/secret", "app docker.io/library/secret"},
		{"POST", "/v2/app/blobs/uploads/?mount=DIGEST&%66rom=index.docker.io%2fsecret", "app docker.io/library/secret"},
		{"POST", "/v2/app/blobs/uploads/?mount=DIGEST", "app docker.io/library/secret"},
	} {
		t.Run(test.target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				_, blob := o.push(t, "library/secret", "1", "a layer")
				c := newClient(t, o, &registry.MemStore{}, nil)
				qt.Assert(t, qt.Equals(c.get("/v2/docker.io/secret/blobs/"+string(blob)).status, 200))
				synctest.Wait()
				var seen []string
				policy := func(_ context.Context, _ string, _ auth.Action, req registry.Request) error {
					if !slices.Contains(seen, req.Repo) {
						seen = append(seen, req.Repo)
					}
					return nil
				}
				h := c.mirror.Handler(auth.Basic("test", auth.Users{"user": "password"}.Check, policy)(registry.New(registry.WithStore(c.mirror))))
				r := httptest.NewRequest(test.method, strings.ReplaceAll(test.target, "DIGEST", string(blob)), nil)
				r.SetBasicAuth("user", "password")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				qt.Check(t, qt.Equals(w.Code/100, 2))
				qt.Check(t, qt.Equals(strings.Join(seen, " "), test.want))
			})
		})
	}
}

// TestFetchesOfOthers asks for a blob that another client asks for by another name, where the
// upstream does not respond, or does not have it: that does not concern this client.
func TestFetchesOfOthers(t *testing.T) {
	for _, test := range []struct {
		other string
		fault http.HandlerFunc
	}{
		{"evil.test/library/nginx", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"docker.io/library/other", func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5 * time.Second)
			w.WriteHeader(404)
		}},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+test.other, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOrigin()
					_, blob := o.push(t, "library/nginx", "1", large())
					o.set(func(h http.Handler) http.Handler {
						return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if r.Method == http.MethodGet && (strings.Contains(r.Host, "evil") || strings.Contains(r.URL.Path, "other")) {
								test.fault(w, r)
								return
							}
							h.ServeHTTP(w, r)
						})
					})
					c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
						opts.Upstreams = append(opts.Upstreams, mirror.Upstream{Name: "evil.test", URL: "http://evil.test"})
					})
					var wg sync.WaitGroup
					wg.Go(func() { c.get("/v2/" + test.other + "/blobs/" + string(blob)) })
					time.Sleep(time.Second)
					for range 2 {
						wg.Go(func() {
							got := c.do(method, "/v2/docker.io/nginx/blobs/"+string(blob), "", "")
							qt.Check(t, qt.Equals(got.status, 200))
						})
					}
					wg.Wait()
				})
			})
		}
	}
}

// TestSlowUpstream fetches as many blobs as possible from an upstream that does not send
// them: others are served.
func TestSlowUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, blob := o.push(t, "library/nginx", "1", "a layer")
		o.set(func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Host, "evil") {
					<-r.Context().Done()
					return
				}
				h.ServeHTTP(w, r)
			})
		})
		c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
			opts.Upstreams = append(opts.Upstreams, mirror.Upstream{Name: "evil.test", URL: "http://evil.test"})
		})
		var wg sync.WaitGroup
		var served atomic.Int64
		for i := range 100 {
			wg.Go(func() {
				c.get("/v2/evil.test/app/blobs/" + string(digest.FromString(fmt.Sprint(i))))
				served.Add(1)
			})
		}
		synctest.Wait()
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/blobs/"+string(blob)).status, 200))
		qt.Check(t, qt.Equals(served.Load(), 0)) // so the others still wait
		wg.Wait()
	})
}

// TestSmallMirror pulls an image that is larger than what the mirror, or its store, may keep:
// by the names of the default, too, clients get all of it.
func TestSmallMirror(t *testing.T) {
	for name, change := range map[string]func(*mirror.Options, *registry.MemStore){
		"mirror": func(opts *mirror.Options, _ *registry.MemStore) { opts.MaxBytes = 150_000 },
		"store":  func(_ *mirror.Options, s *registry.MemStore) { s.Limits.TotalBytes = 100 },
	} {
		for _, repo := range []string{"docker.io/library/nginx", "library/nginx"} {
			t.Run(name+" "+repo, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := newOrigin()
					image, err := registrytest.PushRandomImage(t.Context(), o.store, "library/nginx", "1", 1, 3, 100_000)
					qt.Assert(t, qt.IsNil(err))
					store := &registry.MemStore{}
					c := newClient(t, o, store, func(opts *mirror.Options) {
						opts.Default = "docker.io"
						change(opts, store)
					})
					paths := []string{"/manifests/1", "/manifests/" + string(image.Digest)}
					for _, d := range image.Blobs {
						paths = append(paths, "/blobs/"+string(d))
					}
					for _, path := range append(paths, paths...) {
						for _, method := range []string{"GET", "HEAD"} {
							qt.Check(t, qt.Equals(c.do(method, "/v2/"+repo+path, "", "").status, 200), qt.Commentf("%s %s", method, path))
							synctest.Wait()
						}
					}
				})
			})
		}
	}
}

// TestPushedIndex pushes an index of images that were fetched: what they need stays when it
// is evicted, and the upstream is gone.
func TestPushedIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		manifest, blob := o.push(t, "library/nginx", "1", strings.Repeat("1", 100_000))
		_, other := o.push(t, "library/nginx", "2", strings.Repeat("2", 100_000))
		c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.MaxBytes = 150_000 })
		const repo = "/v2/docker.io/nginx"
		image := c.get(repo + "/manifests/1")
		qt.Assert(t, qt.Equals(c.get(repo+"/blobs/"+string(blob)).status, 200))
		synctest.Wait()
		inner := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, image.header.Get("Content-Type"), manifest, len(image.body))
		outer := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":%d}]}`, digest.FromString(inner), len(inner))
		for tag, content := range map[string]string{"inner": inner, "outer": outer} {
			_, err := registry.PushManifest(t.Context(), o.store, "library/nginx", registry.ManifestPush{MediaType: "application/vnd.oci.image.index.v1+json", Content: []byte(content), Tags: []string{tag}, Sparse: true})
			qt.Assert(t, qt.IsNil(err))
		}
		qt.Assert(t, qt.Equals(c.get(repo+"/manifests/inner").status, 200))
		qt.Assert(t, qt.Equals(c.do(http.MethodPut, repo+"/manifests/mine", indexType, outer).status, 201))
		qt.Assert(t, qt.Equals(c.get(repo+"/blobs/"+string(other)).status, 200)) // evicts the first
		synctest.Wait()
		o.stop()
		for _, path := range []string{"/manifests/mine", "/manifests/" + string(digest.FromString(inner)), "/manifests/" + string(manifest), "/blobs/" + string(blob)} {
			qt.Check(t, qt.Equals(c.get(repo+path).status, 200), qt.Commentf("%s", path))
		}
	})
}

// TestLogOfSignedURLs has an upstream redirect to signed URLs that lead nowhere, or break
// off: the log does not give access to them.
func TestLogOfSignedURLs(t *testing.T) {
	var log bytes.Buffer
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100000")
		io.WriteString(w, "too little")
	}))
	defer files.Close()
	for _, host := range []string{"http://127.0.0.1:1", files.URL} {
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, host+"/blob?X-Amz-Signature=SECRET&x=1", http.StatusTemporaryRedirect)
		}))
		defer origin.Close()
		c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
			opts.Upstreams[0].URL, opts.Transport = origin.URL, nil
			opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		c.get("/v2/docker.io/nginx/manifests/1")
		c.get("/v2/docker.io/nginx/blobs/" + string(digest.FromString("x")))
		qt.Assert(t, qt.IsNil(c.mirror.Close()))
	}
	qt.Check(t, qt.StringContains(log.String(), "can't be reached"))
	qt.Check(t, qt.StringContains(log.String(), "/blob?"))
	qt.Check(t, qt.IsFalse(strings.Contains(log.String(), "SECRET")), qt.Commentf("%s", &log))
}

// TestNoTemporaryFile can't write temporary files: clients do not see their names.
func TestNoTemporaryFile(t *testing.T) {
	o := newOrigin()
	_, blob := o.push(t, "library/nginx", "1", large())
	var log bytes.Buffer
	c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
		opts.Dir = "/nonexistent"
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	got := c.get("/v2/docker.io/nginx/blobs/" + string(blob))
	qt.Check(t, qt.Equals(got.status, 503))
	qt.Check(t, qt.IsFalse(strings.Contains(got.body, "nonexistent")), qt.Commentf("%s", got.body))
	qt.Assert(t, qt.IsNil(c.mirror.Close()))
	qt.Check(t, qt.StringContains(log.String(), "nonexistent"))
}

// TestDamagedStore has a store that has a blob, and can't open it.
func TestDamagedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, blob := o.push(t, "library/nginx", "1", "a layer")
		c := newClient(t, o, damagedStore{&registry.MemStore{}}, nil)
		path := "/v2/docker.io/nginx/blobs/" + string(blob)
		qt.Check(t, qt.Equals(c.get(path).status, 200)) // while it is fetched
		synctest.Wait()
		qt.Check(t, qt.Equals(c.get(path).status, 500))
	})
}

type damagedStore struct{ registry.Store }

func (damagedStore) OpenBlob(context.Context, string, digest.Digest) (io.ReadSeekCloser, error) {
	return nil, registry.ErrBlobUnknown
}

// TestBlobsOfPrivateUpstreams has another upstream claim that it has a blob.
func TestBlobsOfPrivateUpstreams(t *testing.T) {
	for _, private := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin()
			_, blob := o.push(t, "library/app", "1", "a layer")
			o.set(func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.Contains(r.Host, "evil") {
						h.ServeHTTP(w, r)
						return
					}
					w.Header().Set("Content-Length", "7")
					io.WriteString(w, "no idea")
				})
			})
			c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
				opts.Upstreams[0].Private = private
				opts.Upstreams = append(opts.Upstreams, mirror.Upstream{Name: "evil.test", URL: "http://evil.test"})
			})
			qt.Assert(t, qt.Equals(c.get("/v2/docker.io/app/blobs/"+string(blob)).status, 200))
			synctest.Wait()
			want := 200
			if private {
				want = 502 // it has to send the blob
			}
			qt.Check(t, qt.Equals(c.get("/v2/evil.test/app/blobs/"+string(blob)).status, want))
		})
	}
}

// TestCloseWaits closes a mirror that stores a manifest: the store is not used afterwards.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		s := slowStore{&registry.MemStore{}, make(chan bool)}
		c := newClient(t, o, s, nil)
		go c.get("/v2/docker.io/nginx/manifests/1")
		synctest.Wait()
		var closed atomic.Bool
		go func() {
			c.mirror.Close()
			closed.Store(true)
		}()
		synctest.Wait()
		qt.Check(t, qt.IsFalse(closed.Load()))
		close(s.put)
		synctest.Wait()
		qt.Check(t, qt.IsTrue(closed.Load()))
		before := o.calls()
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/2").status, 503))
		qt.Check(t, qt.Equals(o.calls(), before))
	})
}

// slowStore stores manifests when put is closed.
type slowStore struct {
	registry.Store
	put chan bool
}

func (s slowStore) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	<-s.put
	return s.Store.PutManifest(ctx, repo, m, tags, allow)
}

// TestOtherRegistries has requests for a registry that is not mirrored: they are observed
// and require a login, like others.
func TestOtherRegistries(t *testing.T) {
	o := newOrigin()
	c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Default = "docker.io" })
	var statuses []int
	h := auth.Basic("test", auth.Users{"user": "password"}.Check, nil)(registry.New(registry.WithStore(c.mirror)))
	h = c.mirror.Handler(registry.Observe(func(e registry.Event) { statuses = append(statuses, e.Status) })(h))
	for _, request := range []string{
		"GET nginx/manifests/1?ns=quay.io",
		"GET docker.io/nginx/manifests/1?ns=quay.io",
		"GET nginx/tags/list?ns=quay.io",
		"PUT nginx/manifests/1?ns=quay.io",
		"POST nginx/blobs/uploads/?ns=quay.io",
	} {
		method, target, _ := strings.Cut(request, " ")
		for _, want := range []int{401, 404} {
			r := httptest.NewRequest(method, "/v2/"+target, strings.NewReader(emptyIndex))
			r.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			if want == 404 {
				r.SetBasicAuth("user", "password")
			}
			w := httptest.NewRecorder()
			statuses = nil
			h.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, want), qt.Commentf("%s: %s", request, w.Body))
			qt.Check(t, qt.DeepEquals(statuses, []int{want}))
		}
	}
	qt.Check(t, qt.Equals(o.calls(), 0))
}

// TestUnknownIsNoFailure asks for what the upstream does not have: its failures are for
// alerts.
func TestUnknownIsNoFailure(t *testing.T) {
	o := newOrigin()
	c := newClient(t, o, &registry.MemStore{}, nil)
	qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 404))
	stats := c.mirror.Stats()["docker.io"]
	qt.Check(t, qt.Equals(stats.Calls, 1))
	qt.Check(t, qt.Equals(stats.Failures, 0))
	o.stop()
	qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/2").status, 502))
	qt.Check(t, qt.Equals(c.mirror.Stats()["docker.io"].Failures, 1))
}
