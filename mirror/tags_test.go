// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/retention"
)

// TestTimeToLive counts the calls for a tag: none within the time to live, and then a HEAD.
func TestTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		first, _ := o.push(t, "library/nginx", "1", "first")
		c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Minute })
		const path = "/v2/docker.io/library/nginx/manifests/1"
		get := func(wantDigest string, ops ...registry.Op) {
			t.Helper()
			before := len(o.journal.Entries())
			got := c.get(path)
			qt.Assert(t, qt.Equals(got.status, 200))
			qt.Assert(t, qt.Equals(got.header.Get("Docker-Content-Digest"), wantDigest))
			var calls []string
			for _, e := range o.journal.Entries()[before:] {
				calls = append(calls, e.Method+" "+string(e.Op))
			}
			var want []string
			for _, op := range ops {
				want = append(want, string(op))
			}
			qt.Assert(t, qt.Equals(strings.Join(calls, ", "), strings.Join(want, ", ")))
		}
		get(string(first), "GET manifest-get")
		get(string(first))
		qt.Assert(t, qt.Equals(c.do(http.MethodHead, path, "", "").status, 200))
		second, _ := o.push(t, "library/nginx", "1", "second")
		time.Sleep(59 * time.Second)
		get(string(first))
		time.Sleep(2 * time.Second)
		get(string(second), "HEAD manifest-head", "GET manifest-get")
		time.Sleep(61 * time.Second)
		get(string(second), "HEAD manifest-head")
		get(string(second))

		// A mirror that starts again does not know the age of its tags.
		o.push(t, "library/nginx", "1", "first") // the tag moves back to a stored manifest
		time.Sleep(61 * time.Second)
		get(string(first), "HEAD manifest-head")
	})
}

// TestNoDigest has an upstream without Docker-Content-Digest: the manifest is fetched and
// hashed.
func TestNoDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		first, _ := o.push(t, "library/nginx", "1", "first")
		o.set(func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(withoutDigest{w}, r)
			})
		})
		c := newClient(t, o, &registry.MemStore{}, nil)
		for range 2 {
			got := c.get("/v2/docker.io/library/nginx/manifests/1")
			qt.Assert(t, qt.Equals(got.status, 200))
			qt.Assert(t, qt.Equals(got.header.Get("Docker-Content-Digest"), string(first)))
		}
		second, _ := o.push(t, "library/nginx", "1", "second")
		got := c.get("/v2/docker.io/library/nginx/manifests/1")
		qt.Assert(t, qt.Equals(got.header.Get("Docker-Content-Digest"), string(second)))
	})
}

type withoutDigest struct{ http.ResponseWriter }

func (w withoutDigest) WriteHeader(status int) {
	w.Header().Del("Docker-Content-Digest")
	w.ResponseWriter.WriteHeader(status)
}

// TestStart starts a mirror whose upstream is down, and pulls what is stored.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		manifest, blob := o.push(t, "library/nginx", "1", "a layer")
		store := &registry.MemStore{}
		c := newClient(t, o, store, nil)
		const repo = "/v2/docker.io/library/nginx"
		qt.Assert(t, qt.Equals(c.get(repo+"/manifests/1").status, 200))
		qt.Assert(t, qt.Equals(c.get(repo+"/blobs/"+string(blob)).status, 200))
		qt.Assert(t, qt.IsNil(c.mirror.Close()))

		o.stop()
		before := o.calls()
		c = newClient(t, o, store, func(opts *mirror.Options) { opts.Default = "docker.io" })
		for path, want := range map[string]int{
			"/v2/":                                    200,
			"/v2/?ns=docker.io":                       200,
			"/v2/_catalog":                            200,
			repo + "/manifests/" + string(manifest):   200,
			repo + "/blobs/" + string(blob):           200,
			"/v2/library/nginx/blobs/" + string(blob): 200,
			"/v2/nginx/manifests/" + string(manifest) + "?ns=index.docker.io": 200,
		} {
			qt.Check(t, qt.Equals(c.get(path).status, want), qt.Commentf("%s", path))
		}
		qt.Check(t, qt.Equals(o.calls(), before))
	})
}

// TestNames has the ways in which clients name the same repository.
func TestNames(t *testing.T) {
	for _, test := range []struct {
		path      string
		status    int
		code      string
		namespace string // the header OCI-Namespace
	}{
		{path: "/v2/docker.io/library/nginx/manifests/1", status: 200},
		{path: "/v2/docker.io/nginx/manifests/1", status: 200},
		{path: "/v2/index.docker.io/nginx/manifests/1", status: 200},
		{path: "/v2/registry-1.docker.io/library/nginx/manifests/1", status: 200},
		{path: "/v2/library/nginx/manifests/1?ns=docker.io", status: 200, namespace: "docker.io"},
		{path: "/v2/nginx/manifests/1?ns=docker.io", status: 200, namespace: "docker.io"},
		{path: "/v2/nginx/manifests/1?ns=registry-1.docker.io", status: 200, namespace: "registry-1.docker.io"},
		{path: "/v2/library/nginx/manifests/1", status: 200}, // of the default
		{path: "/v2/nginx/manifests/1", status: 200},
		{path: "/v2/nginx/tags/list?n=5&ns=docker.io", status: 200, namespace: "docker.io"},

		{path: "/v2/nginx/manifests/1?ns=quay.io", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/nginx/manifests/1?ns=127.0.0.1:80", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/nginx/manifests/1?ns=http://docker.io", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/nginx/manifests/1?ns=docker.io/library", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/nginx/manifests/1?ns=../docker.io", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/nginx/manifests/1?ns=mirror.cache", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/quay.io/nginx/manifests/1", status: 404, code: "MANIFEST_UNKNOWN"}, // docker.io has no such name
		{path: "/v2/mirror.cache/docker.io/library/nginx/manifests/1", status: 404, code: "NAME_UNKNOWN"},
		{path: "/v2/docker.io/manifests/1", status: 404, code: "MANIFEST_UNKNOWN"}, // library/docker.io
		{path: "/v2/docker.io/NGINX/manifests/1", status: 400, code: "NAME_INVALID"},
	} {
		t.Run(test.path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				manifest, _ := o.push(t, "library/nginx", "1", "a layer")
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Default = "docker.io" })
				got := c.get(test.path)
				qt.Check(t, qt.Equals(got.status, test.status))
				qt.Check(t, qt.Equals(got.code(), test.code))
				qt.Check(t, qt.Equals(got.header.Get("OCI-Namespace"), test.namespace))
				if digest := got.header.Get("Docker-Content-Digest"); digest != "" {
					qt.Check(t, qt.Equals(digest, string(manifest)))
				}
				for _, e := range o.journal.Entries() {
					qt.Check(t, qt.Equals(e.Host, "registry-1.docker.test"))
					qt.Check(t, qt.Equals(e.Namespace, ""))
				}
			})
		})
	}
}

// TestPush pushes beside the mirror, also to names of the upstream.
func TestPush(t *testing.T) {
	for _, repo := range []string{"mine/app", "docker.io/mine/app", "docker.io/library/nginx", "nginx"} {
		t.Run(repo, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				o.push(t, "library/nginx", "1", "a layer")
				o.push(t, "library/nginx", "2", "another layer")
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Default = "docker.io" })
				c.get("/v2/docker.io/nginx/manifests/1") // it is stored before
				o.stop()
				before := o.calls()
				put := c.do(http.MethodPut, "/v2/"+repo+"/manifests/1", "Content-Type: application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[],"annotations":{"mine":"yes"}}`)
				qt.Assert(t, qt.Equals(put.status, 201))
				for range 2 {
					got := c.get("/v2/" + repo + "/manifests/1")
					qt.Check(t, qt.Equals(got.status, 200))
					qt.Check(t, qt.StringContains(got.body, "mine"))
					qt.Check(t, qt.Equals(got.header.Get("Warning"), ""))
					o.set(nil)
					time.Sleep(time.Hour)
				}
				qt.Check(t, qt.Equals(o.calls(), before))
				// Another tag of the repository is the upstream's.
				if strings.HasSuffix(repo, "nginx") {
					qt.Check(t, qt.Equals(c.get("/v2/"+repo+"/manifests/2").status, 200))
					tags := c.get("/v2/" + repo + "/tags/list")
					qt.Check(t, qt.StringContains(tags.body, `["1","2"]`))
				}
				// Without the pushed tag, the upstream's can be seen again.
				qt.Check(t, qt.Equals(c.do(http.MethodDelete, "/v2/"+repo+"/manifests/1", "", "").status, 202))
				want := 404
				if strings.HasSuffix(repo, "nginx") {
					want = 200
				}
				got := c.get("/v2/" + repo + "/manifests/1")
				qt.Check(t, qt.Equals(got.status, want))
				qt.Check(t, qt.IsFalse(strings.Contains(got.body, "mine")))
			})
		})
	}
}

// TestPushOfFetched pushes a manifest that names content that was fetched, to another tag
// and to another repository by mounts.
func TestPushOfFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		manifest, _ := o.push(t, "library/nginx", "1", "a layer")
		c := newClient(t, o, &registry.MemStore{}, nil)
		image := c.get("/v2/docker.io/nginx/manifests/1")
		parsed, err := registry.ParseManifest("", []byte(image.body))
		qt.Assert(t, qt.IsNil(err))
		for _, d := range parsed.Blobs {
			qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/blobs/"+string(d)).status, 200))
			synctest.Wait() // until it is stored
			qt.Assert(t, qt.Equals(c.do(http.MethodPost, "/v2/mine/app/blobs/uploads/?mount="+string(d)+"&from=docker.io/nginx", "", "").status, 201))
		}
		synctest.Wait()
		o.stop()
		for _, path := range []string{"/v2/docker.io/nginx/manifests/mine", "/v2/mine/app/manifests/1"} {
			put := c.do(http.MethodPut, path, "Content-Type: "+image.header.Get("Content-Type"), image.body)
			qt.Check(t, qt.Equals(put.status, 201), qt.Commentf("%s", put.body))
			qt.Check(t, qt.Equals(c.get(path).header.Get("Docker-Content-Digest"), string(manifest)))
		}
	})
}

// TestConditions pushes to a tag that was fetched, under the conditions of a client that
// has read it.
func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		c := newClient(t, o, &registry.MemStore{}, nil)
		const path = "/v2/docker.io/nginx/manifests/1"
		etag := c.get(path).header.Get("Etag")
		put := func(condition string) int {
			req, err := http.NewRequest(http.MethodPut, "http://mirror.test"+path, strings.NewReader(`{"schemaVersion":2,"manifests":[]}`))
			qt.Assert(t, qt.IsNil(err))
			req.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			name, value, _ := strings.Cut(condition, ": ")
			req.Header.Set(name, value)
			resp, err := c.Do(req)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			return resp.StatusCode
		}
		qt.Check(t, qt.Equals(put("If-None-Match: *"), 412))
		qt.Check(t, qt.Equals(put(`If-Match: "sha256:`+strings.Repeat("0", 64)+`"`), 412))
		qt.Check(t, qt.Equals(put("If-Match: "+etag), 201))
	})
}

// TestLists merges lists of what is stored with the upstream's.
func TestLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		o.push(t, "library/nginx", "3", "a layer")
		c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Minute })
		const index = `{"schemaVersion":2,"manifests":[]}`
		put := c.do(http.MethodPut, "/v2/docker.io/nginx/manifests/2", "Content-Type: application/vnd.oci.image.index.v1+json", index)
		qt.Assert(t, qt.Equals(put.status, 201))
		for _, test := range []struct{ path, want string }{
			{"/v2/docker.io/nginx/tags/list", `{"name":"docker.io/library/nginx","tags":["1","2","3"]}`},
			{"/v2/docker.io/nginx/tags/list?last=1&n=1", `{"name":"docker.io/library/nginx","tags":["2"]}`},
			{"/v2/docker.io/nginx/tags/list?last=3", `{"name":"docker.io/library/nginx","tags":[]}`},
			{"/v2/_catalog", `{"repositories":["docker.io/library/nginx"]}`},
		} {
			got := c.get(test.path)
			qt.Check(t, qt.Equals(got.status, 200))
			qt.Check(t, qt.JSONEquals(got.body, jsonOf(t, test.want)), qt.Commentf("%s", test.path))
		}
		qt.Check(t, qt.Equals(o.journal.Count(registry.OpTags), 1)) // within the time to live
		o.stop()
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/tags/list").header.Get("Warning"), ""))
		time.Sleep(2 * time.Minute)
		stale := c.get("/v2/docker.io/nginx/tags/list")
		qt.Check(t, qt.Equals(stale.status, 200))
		qt.Check(t, qt.StringContains(stale.body, `["1","2","3"]`))
		qt.Check(t, qt.Matches(stale.header.Get("Warning"), `299 berth ".*"`))
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/other/tags/list").status, 502))
		o.set(nil)
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/other/tags/list").code(), "NAME_UNKNOWN"))
	})
}

// TestReferrers merges pushed referrers with the upstream's, whether it has the API or tags.
func TestReferrers(t *testing.T) {
	for _, test := range []struct {
		name string
		api  bool
	}{{"API", true}, {"tags", false}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				subject, _ := o.push(t, "library/nginx", "1", "a layer")
				referrer := func(kind string) string {
					return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","artifactType":"text/` + kind + `","manifests":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(subject) + `","size":2}}`
				}
				theirs, err := registry.PushManifest(t.Context(), o.store, "library/nginx", registry.ManifestPush{Content: []byte(referrer("theirs"))})
				qt.Assert(t, qt.IsNil(err))
				if !test.api {
					list := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + string(theirs.Referrer.Descriptor) + `]}`
					_, err := registry.PushManifest(t.Context(), o.store, "library/nginx", registry.ManifestPush{Content: []byte(list), Tags: []string{strings.ReplaceAll(string(subject), ":", "-")}})
					qt.Assert(t, qt.IsNil(err))
					o.set(func(h http.Handler) http.Handler {
						return registry.New(registry.WithStore(o.store), registry.WithReferrersSupport(false))
					})
				}
				c := newClient(t, o, &registry.MemStore{}, nil)
				put := c.do(http.MethodPut, "/v2/docker.io/nginx/manifests/mine", "Content-Type: application/vnd.oci.image.index.v1+json", referrer("mine"))
				qt.Assert(t, qt.Equals(put.status, 201))
				path := "/v2/docker.io/nginx/referrers/" + string(subject)
				for _, want := range []string{"text/mine", "text/theirs", string(theirs.Digest)} {
					qt.Check(t, qt.StringContains(c.get(path).body, want))
				}
				filtered := c.get(path + "?artifactType=text/theirs")
				qt.Check(t, qt.IsFalse(strings.Contains(filtered.body, "text/mine")))
				qt.Check(t, qt.StringContains(filtered.body, "text/theirs"))
				o.stop()
				stale := c.get(path)
				qt.Check(t, qt.StringContains(stale.body, "text/theirs"))
				qt.Check(t, qt.Matches(stale.header.Get("Warning"), `299 berth ".*"`))
			})
		})
	}
}

// TestProfiles pulls an image through mirrors of the registries that registrytest imitates.
func TestProfiles(t *testing.T) {
	registrytest.ForEachProfile(t, func(t *testing.T, p registrytest.Profile) {
		store := &registry.MemStore{}
		want, err := registrytest.PushRandomImage(t.Context(), store, "library/app", "1", 1, 3, 100_000)
		qt.Assert(t, qt.IsNil(err))
		server := p.NewServer(t, registry.WithStore(store))
		c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
			opts.Upstreams[0].URL, opts.Transport = server.URL, server.Client().Transport
			opts.Upstreams[0].Credential = login(p.User, p.Password)
		})
		for range 2 { // cold and warm
			got := c.get("/v2/docker.io/app/manifests/1")
			qt.Assert(t, qt.Equals(got.status, 200), qt.Commentf("%s", got.body))
			qt.Check(t, qt.Equals(got.header.Get("Docker-Content-Digest"), string(want.Digest)))
			for _, d := range want.Blobs {
				blob := c.get("/v2/docker.io/app/blobs/" + string(d))
				qt.Check(t, qt.Equals(blob.status, 200))
				qt.Check(t, qt.IsNil(blob.err))
				qt.Check(t, qt.Equals(d.Algorithm().FromString(blob.body), d))
			}
			qt.Check(t, qt.StringContains(c.get("/v2/docker.io/app/tags/list").body, `["1"]`))
			qt.Check(t, qt.Equals(c.get("/v2/docker.io/app/manifests/none").status, 404))
		}
	})
}

// TestOwnRepositories works with a repository that was pushed, whose name could be that of
// the default upstream: it is not asked.
func TestOwnRepositories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		o.set(status(403, ""))
		c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Default = "docker.io" })
		// A client looks whether there is something before it pushes.
		qt.Check(t, qt.Equals(c.do(http.MethodHead, "/v2/app/manifests/1", "", "").status, 404))
		put := c.do(http.MethodPut, "/v2/app/manifests/1", "Content-Type: application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`)
		qt.Assert(t, qt.Equals(put.status, 201))
		o.stop()
		before := o.calls()
		for path, want := range map[string]int{
			"/v2/app/manifests/1":                                 200,
			"/v2/app/manifests/2":                                 404,
			"/v2/app/tags/list":                                   200,
			"/v2/app/blobs/sha256:" + strings.Repeat("1", 64):     404,
			"/v2/app/manifests/sha256:" + strings.Repeat("1", 64): 404,
			"/v2/app/referrers/sha256:" + strings.Repeat("1", 64): 200,
		} {
			got := c.get(path)
			qt.Check(t, qt.Equals(got.status, want), qt.Commentf("%s", path))
			qt.Check(t, qt.Equals(got.header.Get("Warning"), ""))
		}
		qt.Check(t, qt.Equals(o.calls(), before))
	})
}

// TestCollection collects garbage in a mirror: it removes fetched content that nothing
// names, and never goes upstream.
func TestCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, first := o.push(t, "library/nginx", "1", "first")
		c := newClient(t, o, &registry.MemStore{}, nil)
		c.get("/v2/docker.io/nginx/manifests/1")
		c.get("/v2/docker.io/nginx/blobs/" + string(first))
		_, second := o.push(t, "library/nginx", "1", "second")
		o.push(t, "library/nginx", "2", "third")
		c.get("/v2/docker.io/nginx/manifests/1")
		c.get("/v2/docker.io/nginx/blobs/" + string(second))
		synctest.Wait()
		time.Sleep(2 * time.Hour)
		before := o.calls()
		report, err := retention.Collect(t.Context(), c.mirror, retention.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(report.Manifests, 1))
		qt.Check(t, qt.Equals(report.Blobs, 1))
		qt.Check(t, qt.Equals(o.calls(), before))
		o.stop()
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/blobs/"+string(first)).status, 502))
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/nginx/blobs/"+string(second)).status, 200))
	})
}

// remoteStore is a store that looks things up more slowly than a goroutine starts.
type remoteStore struct {
	registry.Store
	latency         time.Duration
	tags, manifests atomic.Int64 // that were looked up
}

func (s *remoteStore) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	time.Sleep(s.latency)
	s.tags.Add(1)
	return s.Store.GetTag(ctx, repo, tag)
}

func (s *remoteStore) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	time.Sleep(s.latency)
	s.manifests.Add(1)
	return s.Store.GetManifest(ctx, repo, d)
}

// TestFreshTag reads a tag within its time to live from a remote store: the tag that was
// pushed, if any, and the manifest that was fetched. Deletes and pushes take effect at once.
func TestFreshTag(t *testing.T) {
	const repo, path = "/v2/docker.io/library/nginx", "/v2/docker.io/library/nginx/manifests/1"
	for _, test := range []struct {
		name    string
		change  func(c *client, first digest.Digest) response
		fetches bool // again
		pushed  bool // the tag is one that was pushed
	}{
		{name: "nothing", change: func(*client, digest.Digest) response { return response{status: 202} }},
		{name: "delete the tag", fetches: true, change: func(c *client, _ digest.Digest) response {
			return c.do(http.MethodDelete, path, "", "")
		}},
		{name: "delete the manifest", fetches: true, change: func(c *client, first digest.Digest) response {
			return c.do(http.MethodDelete, repo+"/manifests/"+string(first), "", "")
		}},
		{name: "push the tag", pushed: true, change: func(c *client, _ digest.Digest) response {
			put := c.do(http.MethodPut, path, "Content-Type: application/vnd.oci.image.index.v1+json", `{"schemaVersion":2,"manifests":[]}`)
			put.status++ // 201 to 202
			return put
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				first, _ := o.push(t, "library/nginx", "1", "a layer")
				s := &remoteStore{Store: &registry.MemStore{}}
				c := newClient(t, o, s, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Hour })
				qt.Assert(t, qt.Equals(c.get(path).header.Get("Docker-Content-Digest"), string(first)))
				second, _ := o.push(t, "library/nginx", "1", "another layer")
				qt.Assert(t, qt.Equals(test.change(c, first).status, 202))

				calls := o.calls()
				s.tags.Store(0)
				s.manifests.Store(0)
				got := c.get(path)
				qt.Check(t, qt.Equals(got.status, 200))
				d := digest.Digest(got.header.Get("Docker-Content-Digest"))
				switch {
				case test.fetches:
					qt.Check(t, qt.Equals(d, second))
				case test.pushed:
					qt.Check(t, qt.IsTrue(d != first && d != second))
				default:
					qt.Check(t, qt.Equals(d, first))
					qt.Check(t, qt.Equals(s.tags.Load(), 1))
					qt.Check(t, qt.Equals(s.manifests.Load(), 1))
				}
				qt.Check(t, qt.Equals(o.calls() > calls, test.fetches))
			})
		})
	}
}

// TestTagDeletedElsewhere reads a tag that another replica has deleted, until after the end
// of its time to live: then it is stored again, even if a request was in progress at the end.
func TestTagDeletedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		d, _ := o.push(t, "library/nginx", "1", "a layer")
		s := &remoteStore{Store: &registry.MemStore{}, latency: 20 * time.Millisecond}
		c := newClient(t, o, s, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Hour })
		const path, cached = "/v2/docker.io/library/nginx/manifests/1", mirror.CachePrefix + "docker.io/library/nginx"
		qt.Assert(t, qt.Equals(c.get(path).status, 200))
		qt.Assert(t, qt.IsNil(s.DeleteTag(t.Context(), cached, "1", nil)))
		time.Sleep(time.Hour - 50*time.Millisecond)
		for range 4 { // one of them at the end
			qt.Check(t, qt.Equals(c.get(path).header.Get("Docker-Content-Digest"), string(d)))
		}
		m, err := s.GetTag(t.Context(), cached, "1")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(m.Digest, d))
	})
}
