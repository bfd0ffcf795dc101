// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/ocidir"
)

// fill puts a blob and manifests of any content into a repository.
func fill(t *testing.T, s registry.Store, repo string, manifests map[string]string) {
	t.Helper()
	d := digest.FromString("{}")
	qt.Assert(t, qt.IsNil(registry.PushBlob(context.Background(), s, repo, d, strings.NewReader("{}"))))
	for tag, content := range manifests {
		m := registry.Manifest{Digest: digest.FromString(content), MediaType: "application/vnd.example+json", Content: []byte(content)}
		qt.Assert(t, qt.IsNil(s.PutManifest(context.Background(), repo, m, []string{tag}, nil)))
	}
}

// TestNew checks that an Inspector that nobody uses costs nothing.
func TestNew(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 100 {
		New(new(registry.MemStore), Options{})
	}
	qt.Check(t, qt.Equals(runtime.NumGoroutine(), before))
}

// TestSecurityHeaders checks the headers of each kind of response.
func TestSecurityHeaders(t *testing.T) {
	s := new(registry.MemStore)
	fill(t, s, "a", map[string]string{"v1": "{}"})
	i := New(s, Options{Registry: registry.New(registry.WithStore(s))})
	i.Close() // so that a stream ends
	for _, c := range []struct {
		method, path, site string
		status             int
	}{
		{"GET", "/inspect/", "", 200},
		{"GET", "/inspect/", "none", 200},
		{"GET", "/inspect/", "same-origin", 200},
		{"GET", "/inspect/style.css", "", 200},
		{"GET", "/inspect/script.js", "", 200},
		{"GET", "/inspect/events", "", 200},
		{"GET", "/inspect/api/manifest?repo=a&ref=v1", "", 200},
		{"GET", "/inspect/api/manifest?repo=a&ref=none", "", 404},
		{"GET", "/inspect/api/nothing", "", 404},
		{"GET", "/inspect/../v2/", "", 404},
		{"GET", "/inspect//api/stats", "", 404},
		{"POST", "/inspect/", "", 405},
		{"GET", "/inspect", "", 303},
		{"GET", "/inspect/", "cross-site", 403},
		{"DELETE", "/inspect/api/manifest?repo=a&ref=none", "", 404},
		{"DELETE", "/inspect/api/manifest?repo=a&ref=v1", "", 202},
	} {
		t.Run(c.method+c.path+c.site, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.site != "" {
				r.Header.Set("Sec-Fetch-Site", c.site)
			}
			w := httptest.NewRecorder()
			i.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, c.status))
			for name, want := range map[string]string{
				"Content-Security-Policy":      "default-src 'none'; script-src 'self'",
				"X-Content-Type-Options":       "nosniff",
				"Referrer-Policy":              "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Cache-Control":                "no-store",
			} {
				qt.Check(t, qt.StringContains(w.Header().Get(name), want), qt.Commentf(name))
			}
			qt.Check(t, qt.Equals(w.Header().Get("Access-Control-Allow-Origin"), ""))
			// Only another site can have opened the page.
			opener := "same-origin"
			if c.site == "none" || c.site == "same-origin" {
				opener = ""
			}
			qt.Check(t, qt.Equals(w.Header().Get("Cross-Origin-Opener-Policy"), opener))
			policy := w.Header().Get("Content-Security-Policy")
			for _, weak := range []string{"unsafe", "*", "http"} {
				qt.Check(t, qt.IsFalse(strings.Contains(policy, weak)), qt.Commentf(policy))
			}
		})
	}
}

// TestRequestsOfOtherPages sends what web pages of other origins let a browser send.
func TestRequestsOfOtherPages(t *testing.T) {
	navigation := "Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: document"
	for _, c := range []struct {
		name, method, path, headers string
		status                      int
	}{
		{"no_browser", "GET", "/inspect/api/requests", "", 200},
		{"the_page", "GET", "/inspect/api/requests", "Sec-Fetch-Site: same-origin", 200},
		{"address_bar", "GET", "/inspect/", "Sec-Fetch-Site: none", 200},
		{"own_origin", "GET", "/inspect/api/requests", "Origin: http://registry.example", 200},
		{"own_origin_of_TLS", "GET", "/inspect/api/requests", "Origin: https://registry.example", 200},
		{"link", "GET", "/inspect/", "Sec-Fetch-Site: cross-site, " + navigation, 200},
		{"link_to_the_root", "GET", "/", "Accept: text/html, Sec-Fetch-Site: cross-site, " + navigation, 303},

		{"another_site", "GET", "/inspect/api/requests", "Sec-Fetch-Site: cross-site", 403},
		{"same_site", "GET", "/inspect/api/requests", "Sec-Fetch-Site: same-site", 403},
		{"unknown_site", "GET", "/inspect/api/requests", "Sec-Fetch-Site: new-value", 403},
		{"events", "GET", "/inspect/events", "Sec-Fetch-Site: cross-site", 403},
		{"script", "GET", "/inspect/script.js", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: no-cors, Sec-Fetch-Dest: script", 403},
		{"link_to_data", "GET", "/inspect/api/requests", "Sec-Fetch-Site: cross-site, " + navigation, 403},
		{"frame", "GET", "/inspect/", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: navigate, Sec-Fetch-Dest: iframe", 403},
		{"embedded_page", "GET", "/inspect/", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: no-cors, Sec-Fetch-Dest: object", 403},
		{"fetch_of_the_page", "GET", "/inspect/", "Sec-Fetch-Site: cross-site, Sec-Fetch-Mode: cors, Sec-Fetch-Dest: empty", 403},
		{"origin", "GET", "/inspect/api/requests", "Origin: http://attacker.example", 403},
		{"origin_with_another_port", "GET", "/inspect/api/requests", "Origin: http://registry.example:81", 403},
		{"origin_with_a_longer_name", "GET", "/inspect/api/requests", "Origin: http://registry.example.attacker.example", 403},
		{"no_origin", "GET", "/inspect/api/requests", "Origin: null", 403},
		{"malformed_origin", "GET", "/inspect/api/requests", "Origin: http://[", 403},
		{"deletion", "DELETE", "/inspect/api/manifest?repo=a&ref=v1", "Sec-Fetch-Site: cross-site", 403},
		{"deletion_of_an_old_browser", "DELETE", "/inspect/api/manifest?repo=a&ref=v1", "Origin: http://attacker.example", 403},
		{"form", "POST", "/inspect/", "Origin: http://attacker.example, Sec-Fetch-Site: cross-site, " + navigation, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := new(registry.MemStore)
			fill(t, s, "a", map[string]string{"v1": "{}"})
			h := New(s, Options{Registry: registry.New(registry.WithStore(s))}).Handler(registry.New())
			r := httptest.NewRequest(c.method, c.path, nil)
			r.Host = "registry.example"
			for _, line := range strings.Split(c.headers, ", ") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, c.status))
			_, err := s.GetTag(context.Background(), "a", "v1")
			qt.Check(t, qt.IsNil(err))
		})
	}
}

// TestRights checks what users get of repositories that they may not pull from.
func TestRights(t *testing.T) {
	rules := auth.Rules{
		{User: "alice", Repo: "open/*", Actions: []auth.Action{auth.Pull}},
		{User: "bob", Repo: "**", Actions: []auth.Action{auth.Pull, auth.Delete, auth.Catalog}},
		{User: "carol", Repo: "open/*", Actions: []auth.Action{auth.Pull, auth.Catalog}},
	}
	s := new(registry.MemStore)
	for _, repo := range []string{"open/a", "hidden/b"} {
		fill(t, s, repo, map[string]string{"v1": `{"name":"` + repo + `"}`})
	}
	i := New(s, Options{Registry: registry.New(registry.WithStore(s)), Policy: rules.Allow})
	h := i.Handler(registry.New(registry.WithStore(s)))
	for _, path := range []string{"/v2/hidden/b/tags/list", "/v2/open/a/tags/list", "/v2/_catalog?n=1", "/token?account=mallory", "/v2/hidden/b/manifests/none?x=/v2/open/a/tags/list"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	mount := "/v2/open/a/blobs/uploads/?mount=" + string(digest.FromString("{}")) + "&from=hidden/b"
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", mount, nil))

	d := string(digest.FromString("{}"))
	for _, c := range []struct {
		user, method, path string
		status             int
		lacks              string
	}{
		{"", "GET", "api/repositories", 200, "/"},
		{"", "GET", "api/requests", 200, "id"},
		{"", "GET", "events", 200, "\"id\":"},
		{"", "GET", "api/manifest?repo=open/a&ref=v1", 403, "name\\"},
		{"alice", "GET", "api/repositories", 200, "hidden"},
		{"alice", "GET", "api/requests", 200, "hidden"},
		{"alice", "GET", "api/requests", 200, "mallory"},
		{"alice", "GET", "api/requests", 200, "_catalog"},
		{"alice", "GET", "api/requests?id=1", 404, "hidden"},
		{"alice", "GET", "api/requests?id=6", 404, "hidden"},
		{"alice", "GET", "api/findings", 200, "hidden"},
		{"alice", "GET", "events", 200, "hidden"},
		{"alice", "GET", "events?after=1", 200, "hidden"},
		{"alice", "GET", "api/stats", 403, "minutes"},
		{"alice", "GET", "api/shared", 403, "hidden"},
		{"alice", "GET", "api/manifest?repo=open/a&ref=v1", 200, `"mayDelete":true`},
		{"alice", "GET", "api/manifest?repo=hidden/b&ref=v1", 403, "name"},
		{"alice", "GET", "api/manifest?repo=open/a&ref=v1&repo=hidden/b", 200, "hidden"},
		{"alice", "GET", "api/repository?repo=hidden/b", 403, "v1"},
		{"alice", "GET", "api/untagged?repo=hidden/b", 403, "items"},
		{"alice", "GET", "api/usage?repo=hidden/b", 403, "blobs"},
		{"alice", "GET", "api/layer?repo=hidden/b&digest=" + d, 403, "items"},
		{"alice", "GET", "api/file?repo=hidden/b&number=1&digest=" + d, 403, "text"},
		{"alice", "DELETE", "api/manifest?repo=open/a&ref=v1", 403, "name"},
		{"alice", "DELETE", "api/manifest?repo=hidden/b&ref=v1", 403, "name"},
		{"carol", "GET", "api/shared", 200, "hidden"},
		{"carol", "GET", "api/requests", 200, "/v2/hidden"}, // whose name a list contains
		{"carol", "GET", "events", 200, "/v2/hidden"},
		{"bob", "DELETE", "api/manifest?repo=hidden/b&ref=v1", 202, "error"},
	} {
		t.Run(c.user+"/"+c.method+"_"+c.path, func(t *testing.T) {
			ctx, cancel := context.WithCancel(auth.WithUser(context.Background(), c.user))
			if strings.HasPrefix(c.path, "events") {
				cancel() // after a message
			}
			defer cancel()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(c.method, Path+c.path, nil).WithContext(ctx))
			qt.Check(t, qt.Equals(w.Code, c.status))
			if strings.Contains(w.Body.String(), c.lacks) {
				t.Errorf("it contains %q: %s", c.lacks, w.Body)
			}
		})
	}
}

// TestParameters sends parameters that are not names, and ones that would reach other
// requests of the registry.
func TestParameters(t *testing.T) {
	dir, err := ocidir.Open(t.TempDir(), nil)
	qt.Assert(t, qt.IsNil(err))
	defer dir.Close()
	d := string(digest.FromString("{}"))
	for name, s := range map[string]registry.Store{"memory": new(registry.MemStore), "directory": dir} {
		fill(t, s, "a", map[string]string{"v1": "{}"})
		h := New(s, Options{Registry: registry.New(registry.WithStore(s))}).Handler(registry.New())
		for _, c := range []struct{ path, repo, ref string }{
			{"manifest", "", ""}, {"manifest", "a", ""}, {"manifest", "a", "v1/../v1"}, {"manifest", "a/manifests", "v1"},
			{"manifest", "a", "x/manifests/v1"}, {"manifest", "../v2/a", "v1"}, {"manifest", "A", "v1"}, {"manifest", "a", "v1?x"},
			{"manifest", "a", "sha256:"}, {"manifest", "a", "sha256:00"}, {"manifest", "a", "md5:d41d8cd98f00b204e9800998ecf8427e"},
			{"manifest", "a%2f", "v1"}, {"manifest", "a\x00", "v1"}, {"manifest", "a", "v1\n"}, {"manifest", strings.Repeat("a/", 5000) + "a", "v1"},
			{"manifest", "a", strings.Repeat("v", 100_000)}, {"manifest", "a/blobs/" + d, ""}, {"manifest", "__proto__", "v1"},
			{"layer", "a", ""}, {"layer", "a", "uploads/"}, {"layer", "a", "uploads/x"}, {"layer", "a", "sha256"}, {"layer", "a", "../manifests/v1"},
			{"layer", "a/blobs", "uploads/" + d}, {"file", "a", "uploads/x"}, {"file", "a", ""}, {"layer", "a", "sha512:" + strings.Repeat("0", 128)},
			{"repository", "", ""}, {"repository", "a/tags/list?n=1", ""}, {"untagged", "..", ""}, {"usage", "a//b", ""},
		} {
			for _, method := range []string{"GET", "DELETE"} {
				t.Run(fmt.Sprintf("%s/%s_%s/%.40s/%.40s", name, method, c.path, c.repo, c.ref), func(t *testing.T) {
					q := url.Values{"repo": {c.repo}, "ref": {c.ref}, "digest": {c.ref}, "number": {"1"}}
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest(method, Path+"api/"+c.path+"?"+q.Encode(), nil))
					qt.Check(t, qt.IsTrue(w.Code >= 400 && w.Code < 500), qt.Commentf("%d %s", w.Code, w.Body))
				})
			}
		}
		_, err := s.GetTag(context.Background(), "a", "v1")
		qt.Check(t, qt.IsNil(err))
	}
}

// TestManifests shows manifests and configs of every shape, as other tools than a registry
// may put them into a store.
func TestManifests(t *testing.T) {
	blob := string(digest.FromString("{}"))
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for n, content := range []string{
		``, `null`, `[]`, `"a"`, `1`, `true`, `{`, `{}`, `[null]`, "\x00", "\xff\xfe", "\xef\xbb\xbf{}", deep, strings.Repeat(`{"a":`, 100_000),
		`{"config":null,"layers":null,"manifests":null,"subject":null}`,
		`{"config":[],"layers":{},"manifests":"a","subject":1,"artifactType":{},"annotations":[]}`,
		`{"layers":[null,1,"a",[],{},{"digest":null},{"digest":1},{"digest":""},{"digest":":"},{"digest":"sha256"},{"size":"1"}]}`,
		`{"manifests":[null,{"platform":null},{"platform":[]},{"platform":{"os":1}},{"platform":{}}]}`,
		`{"config":{"digest":"sha256","size":1e999}}`, `{"config":{"digest":"` + blob + `","size":-1}}`, `{"config":{"digest":"` + blob + `x"}}`,
		`{"layers":[{"digest":"` + blob + `","size":9223372036854775807},{"digest":"` + blob + `","size":9223372036854775807}]}`,
		`{"layers":[{"size":99999999999999999999999999}]}`, `{"subject":{"digest":"` + blob + `"}}`, `{"subject":{"digest":""}}`,
		`{"__proto__":{"layers":[]},"constructor":{"prototype":{}}}`, `{"layers":[{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}]}`,
	} {
		t.Run(fmt.Sprintf("%d/%.30q", n, content), func(t *testing.T) {
			s := new(registry.MemStore)
			fill(t, s, "a", map[string]string{"v1": content})
			h := New(s, Options{}).Handler(registry.New())
			for _, path := range []string{"api/manifest?repo=a&ref=v1", "api/repository?repo=a", "api/untagged?repo=a", "api/usage?repo=a", "api/shared", "api/layer?repo=a&digest=" + blob} {
				status, got := get(h, path)
				qt.Check(t, qt.Equals(status, 200), qt.Commentf("%s: %.200s", path, got))
				qt.Check(t, qt.IsTrue(json.Valid([]byte(got))))
			}
		})
	}
}

// TestErrorsWithoutStatus checks errors of policies and stores that no response can have.
func TestErrorsWithoutStatus(t *testing.T) {
	for _, status := range []int{0, 99, 200, 600, 1000} {
		deny := func(context.Context, string, auth.Action, registry.Request) error {
			return &registry.Error{Status: status, Message: "no"}
		}
		got, _ := get(New(new(registry.MemStore), Options{Policy: deny}).Handler(http.NotFoundHandler()), "api/stats")
		qt.Check(t, qt.Equals(got, 500))
	}
}
