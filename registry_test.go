// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/storetest"
)

// call is a request to a registry, and the expected response.
type call struct {
	name   string
	method string // GET if empty
	url    string
	header map[string]string
	body   string

	status     int
	wantHeader map[string]string // "" for a header that must be absent
	wantBody   string            // unless empty
	wantCode   string            // of the first error, unless empty
}

// do sends c to h, and checks the response.
func (c call) do(t *testing.T, h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	if c.method == "" {
		c.method = "GET"
	}
	r := httptest.NewRequest(c.method, c.url, strings.NewReader(c.body))
	for k, v := range c.header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)

	body := w.Body.String()
	what := qt.Commentf("%s %s %s: %d %v %.1000s", c.name, c.method, c.url, w.Code, w.Header(), body)
	qt.Assert(t, qt.Equals(w.Code, c.status), what)
	for k, v := range c.wantHeader {
		qt.Check(t, qt.Equals(strings.Join(w.Header().Values(k), ", "), v), what)
	}
	if c.wantBody != "" {
		qt.Check(t, qt.Equals(body, c.wantBody), what)
	}
	if w.Code >= 400 {
		checkError(t, w, c)
	}
	return w
}

// specCodes are the codes of the spec's section "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
	"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// checkError checks the properties of every error response.
func checkError(t *testing.T, w *httptest.ResponseRecorder, c call) {
	t.Helper()
	what := qt.Commentf("%s %s %s: %d %v %.1000s", c.name, c.method, c.url, w.Code, w.Header(), w.Body)
	qt.Check(t, qt.Equals(w.Header().Get("Content-Type"), "application/json"), what)
	if c.method == "HEAD" {
		qt.Check(t, qt.Equals(w.Body.Len(), 0), what)
		return
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	dec := json.NewDecoder(strings.NewReader(w.Body.String()))
	dec.DisallowUnknownFields()
	qt.Assert(t, qt.IsNil(dec.Decode(&doc)), what)
	qt.Assert(t, qt.IsTrue(len(doc.Errors) > 0), what)
	for _, e := range doc.Errors {
		qt.Check(t, qt.IsTrue(slices.Contains(specCodes, e.Code)), what)
		qt.Check(t, qt.Not(qt.Equals(e.Message, "")), what)
	}
	if c.wantCode != "" {
		qt.Check(t, qt.Equals(doc.Errors[0].Code, c.wantCode), what)
	}
}

// run sends calls to h, one after the other.
func run(t *testing.T, h http.Handler, calls []call) {
	t.Helper()
	for _, c := range calls {
		c.do(t, h)
	}
}

func sha(s string) string    { return digest.FromString(s).String() }
func sha512(s string) string { return digest.SHA512.FromString(s).String() }

// pushBlob returns a call that pushes a blob in one POST.
func pushBlob(repo, data string) call {
	return call{
		name: "push blob", method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + sha(data), body: data,
		status: 201, wantHeader: map[string]string{"Location": "/v2/" + repo + "/blobs/" + sha(data), "Docker-Content-Digest": sha(data)},
	}
}

// pushManifest returns a call that pushes a manifest.
func pushManifest(repo, ref, mediaType, data string) call {
	return call{
		name: "push manifest", method: "PUT", url: "/v2/" + repo + "/manifests/" + ref, body: data,
		header: map[string]string{"Content-Type": mediaType}, status: 201,
	}
}

// start opens an upload session, and returns its location.
func start(t *testing.T, h http.Handler, repo string) string {
	t.Helper()
	w := call{method: "POST", url: "/v2/" + repo + "/blobs/uploads/", status: 202, wantHeader: map[string]string{"Range": "0-0"}}.do(t, h)
	return w.Header().Get("Location")
}

func TestBehaviours(t *testing.T) {
	storetest.RunHTTP(t, func(*testing.T) registry.Store { return new(registry.MemStore) })
}

func TestPing(t *testing.T) {
	h := registry.New()
	version := map[string]string{"Docker-Distribution-API-Version": "registry/2.0"}
	run(t, h, []call{
		{url: "/v2/", status: 200, wantBody: "{}", wantHeader: version},
		{url: "/v2", status: 200, wantHeader: version},
		{method: "HEAD", url: "/v2/", status: 200, wantHeader: version},
		{method: "POST", url: "/v2/", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{url: "/", status: 404},
		{url: "/v1/", status: 404},
		{url: "/v2x/", status: 404},
		{url: "/v2/_oci/ext/discover", status: 404, wantCode: "UNSUPPORTED"},
	})
}

func TestMethodNotAllowed(t *testing.T) {
	h := registry.New()
	d := sha("x")
	for url, allow := range map[string]string{
		"/v2/a/blobs/" + d:          "GET, HEAD, DELETE",
		"/v2/a/blobs/uploads/":      "POST",
		"/v2/a/blobs/uploads":       "POST",
		"/v2/a/blobs/uploads/id":    "PATCH, PUT, GET, HEAD, DELETE",
		"/v2/a/manifests/tag":       "GET, HEAD, PUT, DELETE",
		"/v2/a/manifests/" + d:      "GET, HEAD, PUT, DELETE",
		"/v2/a/tags/list":           "GET, HEAD",
		"/v2/a/referrers/" + d:      "GET, HEAD",
		"/v2/_catalog":              "GET, HEAD",
		"/v2/a/blobs/uploads/?n=.1": "POST",
	} {
		call{method: "TRACE", url: url, status: 405, wantCode: "UNSUPPORTED", wantHeader: map[string]string{"Allow": allow}}.do(t, h)
	}
}

func TestReadOnly(t *testing.T) {
	store := new(registry.MemStore)
	h := registry.New(registry.WithStore(store))
	run(t, h, []call{pushBlob("a", "blob"), pushManifest("a", "tag", "text/plain", "manifest")})

	h = registry.New(registry.WithStore(store), registry.ReadOnly())
	d := sha("blob")
	run(t, h, []call{
		{url: "/v2/a/blobs/" + d, status: 200},
		{url: "/v2/a/manifests/tag", status: 200},
		{url: "/v2/a/tags/list", status: 200},
		{url: "/v2/_catalog", status: 200},
		{url: "/v2/a/referrers/" + d, status: 200},
		{method: "DELETE", url: "/v2/a/blobs/" + d, status: 405, wantCode: "UNSUPPORTED", wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "DELETE", url: "/v2/a/manifests/tag", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "PUT", url: "/v2/a/manifests/tag", body: "x", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "POST", url: "/v2/a/blobs/uploads/", status: 405, wantHeader: map[string]string{"Allow": ""}},
		{method: "PATCH", url: "/v2/a/blobs/uploads/id", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "TRACE", url: "/v2/a/manifests/tag", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "POST", url: "/v2/b/blobs/uploads/?from=a&mount=" + d, status: 405},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + sha("x"), body: "x", status: 405},
		{url: "/v2/b/tags/list", status: 404},
	})
}

func TestNoDelete(t *testing.T) {
	h := registry.New(registry.NoDelete())
	run(t, h, []call{
		pushBlob("a", "blob"),
		pushManifest("a", "tag", "text/plain", "manifest"),
		{method: "DELETE", url: "/v2/a/blobs/" + sha("blob"), status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "DELETE", url: "/v2/a/manifests/tag", status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD, PUT"}},
		{method: "DELETE", url: "/v2/a/manifests/" + sha("manifest"), status: 405},
		{method: "TRACE", url: "/v2/a/blobs/" + sha("blob"), status: 405, wantHeader: map[string]string{"Allow": "GET, HEAD"}},
		{method: "TRACE", url: "/v2/a/blobs/uploads/id", status: 405, wantHeader: map[string]string{"Allow": "PATCH, PUT, GET, HEAD, DELETE"}},
		{url: "/v2/a/blobs/" + sha("blob"), status: 200},
		{url: "/v2/a/manifests/tag", status: 200},
		{method: "DELETE", url: start(t, h, "a"), status: 204},
	})
}

func TestWarnings(t *testing.T) {
	h := registry.New(registry.WithWarning(1, "say \"hello\"\r\nX: \\"), registry.WithWarning(0, "never"))
	call{url: "/v2/", status: 200, wantHeader: map[string]string{"Warning": `299 - "say \"hello\"  X: \\"`}}.do(t, h)

	// "A registry MUST NOT send more than 4096 bytes of warning data".
	long := registry.WithWarning(1, strings.Repeat(`"`, 4000))
	w := call{url: "/v2/", status: 200}.do(t, registry.New(long, long, registry.WithWarning(1, "short")))
	total := 0
	for _, v := range w.Header().Values("Warning") {
		total += len(v)
	}
	qt.Check(t, qt.IsTrue(total <= 4096), qt.Commentf("%d bytes", total))
	qt.Check(t, qt.IsTrue(total > 0))
}

func TestNamespaces(t *testing.T) {
	docker := new(registry.MemStore)
	run(t, registry.New(registry.WithStore(docker)), []call{pushManifest("library/alpine", "latest", "text/plain", "docker's")})

	h := registry.New(registry.WithNamespaces(map[string]registry.Store{"docker.io": docker}))
	run(t, h, []call{
		pushManifest("library/alpine", "latest", "text/plain", "ours"),
		{url: "/v2/library/alpine/manifests/latest?ns=docker.io", status: 200, wantBody: "docker's", wantHeader: map[string]string{"OCI-Namespace": "docker.io"}},
		{method: "HEAD", url: "/v2/library/alpine/manifests/missing?ns=docker.io", status: 404, wantHeader: map[string]string{"OCI-Namespace": "docker.io"}},
		{url: "/v2/library/alpine/manifests/latest", status: 200, wantBody: "ours", wantHeader: map[string]string{"OCI-Namespace": ""}},
		{url: "/v2/library/alpine/manifests/latest?ns=quay.io", status: 200, wantBody: "ours", wantHeader: map[string]string{"OCI-Namespace": ""}},
		// ns applies to pulls only.
		{method: "PUT", url: "/v2/library/alpine/manifests/new?ns=docker.io", body: "new", status: 201, wantHeader: map[string]string{"OCI-Namespace": ""}},
		{url: "/v2/library/alpine/manifests/new", status: 200},
	})
}

func TestLoggers(t *testing.T) {
	var text strings.Builder
	h := registry.New(registry.Logger(log.New(&text, "", 0)))
	run(t, h, []call{{url: "/v2/", status: 200}, {url: "/v2/a/tags/list", status: 404}})
	qt.Check(t, qt.Equals(text.String(), "GET /v2/ 200\nGET /v2/a/tags/list 404 repository name not known to registry\n"))

	var lines strings.Builder
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "time" || a.Key == "duration" {
			return slog.Attr{}
		}
		return a
	}
	h = registry.New(registry.WithSlog(slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{ReplaceAttr: drop}))))
	run(t, h, []call{{url: "/v2/", status: 200}, {url: "/v2/a/tags/list", status: 404}})
	qt.Check(t, qt.Equals(lines.String(), `level=INFO msg=request op=ping method=GET url=/v2/ status=200 bytes=2 remote=192.0.2.1:1234
level=WARN msg=request op=tags method=GET url=/v2/a/tags/list status=404 bytes=86 remote=192.0.2.1:1234 error="repository name not known to registry"
`))
}

// TestMigration is code written for go-containerregistry's registry, which must
// compile unchanged. Module interop runs it on both.
func TestMigration(t *testing.T) {
	for _, h := range []http.Handler{
		registry.New(),
		registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		registry.New(registry.WithReferrersSupport(true)),
		registry.New(registry.WithWarning(0.01, "careful")),
	} {
		s := httptest.NewServer(h)
		resp, err := s.Client().Get(s.URL + "/v2/")
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, 200))
		s.Close()
	}
}

func contentRange(start, length int) string {
	return fmt.Sprintf("%d-%d", start, start+length-1)
}
