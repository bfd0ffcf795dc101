// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// TestNilIsRejectedAtOnce checks that a nil argument panics with a sentence where
// it is given, not in a request.
func TestNilIsRejectedAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		call func()
		want string
	}{
		{"option", func() { registry.New(registry.ReadOnly(), nil) }, "registry: option 1 of New is nil"},
		{"store", func() { registry.WithStore(nil) }, "registry: WithStore requires a store"},
		{"namespace", func() { registry.WithNamespaces(map[string]registry.Store{"docker.io": nil}) }, `registry: the store of the namespace "docker.io" is nil`},
		{"logger", func() { registry.Logger(nil) }, "registry: Logger requires a logger"},
		{"slog", func() { registry.WithSlog(nil) }, "registry: WithSlog requires a logger"},
		{"pull_scope", func() { registry.WithPullScope(context.Background(), nil) }, "registry: WithPullScope requires a function"},
		{"prefix_without_slash", func() { registry.WithPrefix("registry") }, `registry: the prefix "registry" is not a path such as /registry`},
		{"prefix_with_a_last_slash", func() { registry.WithPrefix("/registry/") }, `registry: the prefix "/registry/" is not .*`},
		{"prefix_of_a_host", func() { registry.WithPrefix("//registry.example") }, `registry: the prefix .*`},
		{"prefix_with_a_line_break", func() { registry.WithPrefix("/a\r\nb") }, `registry: the prefix .*`},
	} {
		t.Run(c.name, func(t *testing.T) { qt.Check(t, qt.PanicMatches(c.call, c.want)) })
	}
}

// TestStoreOfTheHandler gets the store that a registry serves.
func TestStoreOfTheHandler(t *testing.T) {
	m := new(registry.MemStore)
	stored := registry.New(registry.WithStore(m)).(interface{ Store() registry.Store })
	qt.Check(t, qt.Equals(stored.Store(), registry.Store(m)))
	_, ok := registry.New().(interface{ Store() registry.Store }).Store().(*registry.MemStore)
	qt.Check(t, qt.IsTrue(ok))
}

// TestPrefix pushes and lists below a path prefix, following the URLs in the
// responses.
func TestPrefix(t *testing.T) {
	const prefix = "/some/registry"
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, registry.New(registry.WithPrefix(prefix), registry.WithLimits(registry.Limits{PageNames: 1}), registry.AllowSparse())))
	loc := call{method: "POST", url: prefix + "/v2/a/blobs/uploads/", status: 202}.do(t, mux).Header().Get("Location")
	qt.Assert(t, qt.IsTrue(strings.HasPrefix(loc, prefix+"/v2/a/blobs/uploads/")))
	d := sha(hello)
	location := func(url string) map[string]string { return map[string]string{"Location": prefix + url} }
	subject := `"subject":` + descriptor(typeImage, "s")
	run(t, mux, []call{
		{method: "PATCH", url: loc, body: hello, status: 202, wantHeader: map[string]string{"Location": loc}},
		{url: loc, status: 204, wantHeader: map[string]string{"Location": loc}},
		{method: "PATCH", url: loc, header: map[string]string{"Content-Range": "0-1"}, body: "xx", status: 416, wantHeader: map[string]string{"Location": loc}},
		{method: "PUT", url: loc + "?digest=" + d, status: 201, wantHeader: location("/v2/a/blobs/" + d)},
		{url: prefix + "/v2/a/blobs/" + d, status: 200, wantBody: hello},
		{method: "POST", url: prefix + "/v2/b/blobs/uploads/?digest=" + d, body: hello, status: 201, wantHeader: location("/v2/b/blobs/" + d)},
		{method: "POST", url: prefix + "/v2/c/blobs/uploads/?mount=" + d + "&from=a", status: 201, wantHeader: location("/v2/c/blobs/" + d)},
		{method: "PUT", url: prefix + "/v2/a/manifests/" + sha("m") + "?tag=1&tag=2", body: "m", status: 201, wantHeader: location("/v2/a/manifests/" + sha("m"))},
		{url: prefix + "/v2/a/tags/list?n=1", status: 200, wantHeader: map[string]string{"Link": "<" + prefix + `/v2/a/tags/list?last=1&n=1>; rel="next"`}},
		{url: prefix + "/v2/_catalog?n=1", status: 200, wantHeader: map[string]string{"Link": "<" + prefix + `/v2/_catalog?last=a&n=1>; rel="next"`}},
		{method: "PUT", url: prefix + "/v2/a/manifests/x", header: map[string]string{"Content-Type": typeIndex}, body: `{"manifests":[],` + subject + `}`, status: 201},
		{method: "PUT", url: prefix + "/v2/a/manifests/y", header: map[string]string{"Content-Type": typeIndex}, body: `{"manifests":[ ],` + subject + `}`, status: 201},
	})
	w := call{url: prefix + "/v2/a/referrers/" + sha("s") + "?n=1", status: 200}.do(t, mux)
	qt.Check(t, qt.StringContains(w.Header().Get("Link"), "<"+prefix+"/v2/a/referrers/"))
}

// TestLogLinesAreSafeForTerminals logs a request whose path would clear the
// screen.
func TestLogLinesAreSafeForTerminals(t *testing.T) {
	var out bytes.Buffer
	h := registry.New(registry.Logger(log.New(&out, "", 0)))
	r := httptest.NewRequest("GET", "/v2/a/tags/list", nil)
	r.Method = "GET\x1b[2J"
	r.URL.Opaque = "\x1b]0;title\a\u009b\r\nforged line"
	h.ServeHTTP(httptest.NewRecorder(), r)
	for _, c := range strings.TrimSuffix(out.String(), "\n") {
		qt.Check(t, qt.IsTrue(c >= ' ' && (c < 0x7f || c > 0x9f)), qt.Commentf("%q", out.String()))
	}
	qt.Check(t, qt.StringContains(out.String(), `GET\x1b[2J`))
}

// TestHeadAgreesWithGet sends each request as GET and as HEAD: status and headers
// must be the same, of errors too.
func TestHeadAgreesWithGet(t *testing.T) {
	m := new(registry.MemStore)
	h := registry.New(registry.WithStore(m), registry.WithLimits(registry.Limits{PageNames: 1}))
	run(t, h, []call{
		pushBlob("a", hello), pushBlob("a", "{}"), pushBlob("a", ""),
		pushManifest("a", "v1", typeImage, image(hello)), pushManifest("a", "v2", "text/html", "<p>"),
		pushManifest("a", "sig", typeIndex, `{"manifests":[],"subject":`+descriptor(typeImage, "s")+`}`),
	})
	etag := `"` + sha(hello) + `"`
	for _, c := range []struct {
		url    string
		header map[string]string
		status int
	}{
		{url: "/v2/", status: 200},
		{url: "/v2/a/blobs/" + sha(hello), status: 200},
		{url: "/v2/a/blobs/" + sha(""), status: 200},
		{url: "/v2/a/blobs/" + sha("x"), status: 404},
		{url: "/v2/b/blobs/" + sha(hello), status: 404},
		{url: "/v2/a/blobs/sha256:x", status: 400},
		{url: "/v2/A/blobs/" + sha(hello), status: 400},
		{url: "/v2/a/blobs/" + sha(hello), header: map[string]string{"If-None-Match": etag}, status: 304},
		{url: "/v2/a/blobs/" + sha(hello), header: map[string]string{"If-Match": `"x"`}, status: 412},
		{url: "/v2/a/blobs/" + sha(hello), header: map[string]string{"If-Match": `x`}, status: 400},
		{url: "/v2/a/manifests/v1", status: 200},
		{url: "/v2/a/manifests/v2", status: 200},
		{url: "/v2/a/manifests/v3", status: 404},
		{url: "/v2/b/manifests/v1", status: 404},
		{url: "/v2/a/manifests/" + sha(image(hello)), status: 200},
		{url: "/v2/a/manifests/" + sha("x"), status: 404},
		{url: "/v2/a/manifests/" + sha(image(hello)), header: map[string]string{"If-None-Match": "*"}, status: 304},
		{url: "/v2/a/tags/list", status: 200},
		{url: "/v2/a/tags/list?n=1", status: 200},
		{url: "/v2/a/tags/list?n=x", status: 400},
		{url: "/v2/b/tags/list", status: 404},
		{url: "/v2/_catalog", status: 200},
		{url: "/v2/a/referrers/" + sha("s"), status: 200},
		{url: "/v2/a/referrers/" + sha("s") + "?artifactType=x", status: 200},
		{url: "/v2/a/referrers/x", status: 400},
		{url: "/v2/a/blobs/uploads/unknown", status: 404},
		{url: "/v2/nothing", status: 404},
		{url: "/", status: 404},
	} {
		send := func(method string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, c.url, nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		get, head := send("GET"), send("HEAD")
		qt.Check(t, qt.Equals(get.Code, c.status), qt.Commentf("GET %s", c.url))
		qt.Check(t, qt.Equals(head.Code, c.status), qt.Commentf("HEAD %s", c.url))
		qt.Check(t, qt.DeepEquals(head.Header(), get.Header()), qt.Commentf("%s", c.url))
	}
	// Stores may fail in other ways for the two.
	broken := registry.New(registry.WithStore(brokenStore{}))
	for _, url := range []string{"/v2/a/blobs/" + sha("x"), "/v2/a/manifests/x", "/v2/a/tags/list", "/v2/a/referrers/" + sha("x")} {
		get, head := call{url: url, status: 500}, call{method: "HEAD", url: url, status: 500}
		qt.Check(t, qt.DeepEquals(head.do(t, broken).Header(), get.do(t, broken).Header()))
	}
}

// TestRangesKeepTheContentType requests several ranges: their type must not be
// guessed from the bytes, which a browser would then render.
func TestRangesKeepTheContentType(t *testing.T) {
	h := registry.New()
	const page = "<!DOCTYPE html><html><script>alert(1)</script></html>"
	run(t, h, []call{pushBlob("a", page), pushManifest("a", "tag", "application/vnd.example+json", page)})
	for url, want := range map[string]string{
		"/v2/a/blobs/" + sha(page): "application/octet-stream",
		"/v2/a/manifests/tag":      "application/vnd.example+json",
	} {
		w := call{url: url, header: map[string]string{"Range": "bytes=0-20,30-40"}, status: 206}.do(t, h)
		qt.Check(t, qt.StringContains(w.Header().Get("Content-Type"), "multipart/byteranges"))
		qt.Check(t, qt.Equals(strings.Count(w.Body.String(), "Content-Type: "+want), 2), qt.Commentf("%s", w.Body))
		qt.Check(t, qt.Equals(strings.Count(w.Body.String(), "Content-Type: "), 2))
	}
}

// TestPushTakesEffectOrIsRejected pushes the same bytes with two types. The second
// push must not be acknowledged with an OCI-Subject while the manifest stays
// opaque, nor change the type for those who pulled the first.
func TestPushTakesEffectOrIsRejected(t *testing.T) {
	h := registry.New(registry.AllowSparse())
	m := `{"config":` + descriptor("x/y", "{}") + `,"layers":[],"subject":` + descriptor(typeImage, "s") + `}`
	poison := pushManifest("a", "poison", "application/x-poison", m)
	oci := pushManifest("a", "v1", typeImage, m)
	oci.status, oci.wantCode = 400, "MANIFEST_INVALID"
	run(t, h, []call{
		poison, poison, oci,
		{url: "/v2/a/manifests/v1", status: 404},
		{url: "/v2/a/manifests/poison", status: 200, wantHeader: map[string]string{"Content-Type": "application/x-poison"}},
		{method: "DELETE", url: "/v2/a/manifests/" + sha(m), status: 202},
		pushManifest("a", "v1", typeImage, m),
		{url: "/v2/a/manifests/v1", status: 200, wantHeader: map[string]string{"Content-Type": typeImage}},
	})
	w := call{url: "/v2/a/referrers/" + sha("s"), status: 200}.do(t, h)
	qt.Check(t, qt.StringContains(w.Body.String(), sha(m)))
	poison.status, poison.wantCode = 400, "MANIFEST_INVALID"
	poison.do(t, h)
	// In another repository it is another manifest.
	pushManifest("b", "x", "application/x-other", m).do(t, h)
}

// TestTooManyParameters sends as many tags and filters as are served, and one more.
func TestTooManyParameters(t *testing.T) {
	h := registry.New()
	params := func(name string, n int) string { return "?" + strings.Repeat(name+"=x&", n) }
	run(t, h, []call{
		{method: "PUT", url: "/v2/a/manifests/" + sha("m") + params("tag", 100), body: "m", status: 201},
		{method: "PUT", url: "/v2/b/manifests/" + sha("m") + params("tag", 101), body: "m", status: 414, wantCode: "UNSUPPORTED"},
		{url: "/v2/b/tags/list", status: 404},
		{url: "/v2/a/referrers/" + sha("m") + params("artifactType", 100), status: 200},
		{url: "/v2/a/referrers/" + sha("m") + params("artifactType", 101), status: 414, wantCode: "UNSUPPORTED"},
		{url: "/v2/a/manifests/x", header: map[string]string{"If-None-Match": strings.Repeat(`"x",`, 100)}, status: 200},
		{url: "/v2/a/manifests/x", header: map[string]string{"If-None-Match": strings.Repeat(`"x",`, 101)}, status: 400, wantCode: "UNSUPPORTED"},
	})
}

// TestReferrersAreNotEscaped pushes annotations that HTML escaping would make six
// times as long.
func TestReferrersAreNotEscaped(t *testing.T) {
	h := registry.New()
	html := strings.Repeat("<>&", 100_000)
	m := `{"manifests":[],"artifactType":"` + html + `","subject":` + descriptor(typeImage, "s") + `,"annotations": {"k": "` + html + `"}}`
	pushManifest("a", "tag", typeIndex, m).do(t, h)
	w := call{url: "/v2/a/referrers/" + sha("s"), status: 200}.do(t, h)
	qt.Check(t, qt.IsTrue(w.Body.Len() < len(m)+1000), qt.Commentf("%d bytes for a manifest of %d", w.Body.Len(), len(m)))
	qt.Check(t, qt.StringContains(w.Body.String(), `"annotations":{"k":"<>&`))
}

// TestMountEndsWithItsClient mounts a blob of many repositories none of which the
// client may pull from, and cancels the request.
func TestMountEndsWithItsClient(t *testing.T) {
	m := new(registry.MemStore)
	d := digest.FromString(hello)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), m, "a", d, strings.NewReader(hello))))
	for _, repo := range []string{"b", "c", "d"} {
		qt.Assert(t, qt.IsNil(m.MountBlob(t.Context(), repo, "a", d)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	ctx = registry.WithPullScope(ctx, func(string) bool {
		asked++
		cancel()
		return false
	})
	w := httptest.NewRecorder()
	registry.New(registry.WithStore(m)).ServeHTTP(w, httptest.NewRequest("POST", "/v2/x/blobs/uploads/?mount="+d.String(), nil).WithContext(ctx))
	qt.Check(t, qt.Equals(asked, 1))
	qt.Check(t, qt.Equals(w.Code, 400))
}
