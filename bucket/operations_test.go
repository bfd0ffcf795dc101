// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// TestOperations counts the requests to S3 that each request to the registry
// makes: the figures in docs/scaling.md.
func TestOperations(t *testing.T) {
	s, p := withProxy(t, nil)
	qt.Assert(t, qt.IsNil(s.Check(t.Context())))
	s.Wait()
	h := registry.New(registry.WithStore(s))
	serve := func(method, target string, header http.Header, body string) *http.Response {
		t.Helper()
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		for k, v := range header {
			r.Header[k] = v
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	small, large := "small", strings.Repeat("large", 1<<20)
	smallDigest, largeDigest := digest.FromString(small), digest.FromString(large)
	image := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":5},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		smallDigest, largeDigest, len(large))
	imageDigest := digest.FromString(image)
	referrer := strings.Replace(image, `"config"`, fmt.Sprintf(`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d},"config"`, imageDigest, len(image)), 1)
	manifestType := http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	var location string // of the upload
	upload := func() string { return location }
	at := func(target string) func() string { return func() string { return target } }

	for _, step := range []struct {
		name   string
		method string
		target func() string
		header http.Header
		body   string
		status int
		want   string
	}{
		{"ping", "GET", at("/v2/"), nil, "", 200, "none"},
		{"push a small blob in one request", "POST", at("/v2/a/blobs/uploads/?digest=" + smallDigest.String()), nil, small, 201, "2 GET, 4 PUT"},
		{"begin an upload", "POST", at("/v2/a/blobs/uploads/"), nil, "", 202, "1 PUT"},
		{"finish it with a small blob", "PUT", func() string { return location + "?digest=" + digest.FromString("other").String() }, nil, "other", 201, "3 GET, 5 PUT"},
		{"begin another", "POST", at("/v2/a/blobs/uploads/"), nil, "", 202, "1 PUT"},
		{"send it 5 MiB", "PATCH", upload, nil, large, 202, "1 GET, 2 PUT"},
		{"get its size", "GET", upload, nil, "", 204, "1 GET"},
		{"finish it", "PUT", func() string { return location + "?digest=" + largeDigest.String() }, nil, "", 201, "1 DELETE, 3 GET, 1 LIST, 5 PUT"},
		{"push a blob that exists", "POST", at("/v2/a/blobs/uploads/?digest=" + smallDigest.String()), nil, small, 201, "1 DELETE, 2 GET, 3 PUT"},
		{"mount a blob", "POST", at("/v2/b/blobs/uploads/?from=a&mount=" + smallDigest.String()), nil, "", 201, "3 GET, 2 HEAD, 3 PUT"},
		{"push a manifest of 2 blobs with a tag", "PUT", at("/v2/a/manifests/tag"), manifestType, image, 201, "5 GET, 3 PUT"},
		{"push it with If-None-Match: *", "PUT", at("/v2/a/manifests/new"), http.Header{"Content-Type": manifestType["Content-Type"], "If-None-Match": {"*"}}, image, 201, "1 DELETE, 5 GET, 4 PUT"},
		{"push a referrer by digest", "PUT", at("/v2/a/manifests/" + digest.FromString(referrer).String()), manifestType, referrer, 201, "4 GET, 2 PUT"},
		{"HEAD a manifest by tag", "HEAD", at("/v2/a/manifests/tag"), nil, "", 200, "2 GET"},
		{"GET a manifest by digest", "GET", at("/v2/a/manifests/" + imageDigest.String()), nil, "", 200, "1 GET"},
		{"HEAD a blob", "HEAD", at("/v2/a/blobs/" + smallDigest.String()), nil, "", 200, "1 GET"},
		{"GET a blob", "GET", at("/v2/a/blobs/" + smallDigest.String()), nil, "", 200, "2 GET"},
		{"HEAD a blob that does not exist", "HEAD", at("/v2/a/blobs/" + digest.FromString("none").String()), nil, "", 404, "1 GET, 1 HEAD"},
		{"a page of tags", "GET", at("/v2/a/tags/list?n=100"), nil, "", 200, "1 LIST"},
		{"a page of the catalog", "GET", at("/v2/_catalog?n=100"), nil, "", 200, "1 LIST"},
		{"a list of one referrer", "GET", at("/v2/a/referrers/" + imageDigest.String()), nil, "", 200, "1 GET, 1 LIST"},
		{"delete a tag", "DELETE", at("/v2/a/manifests/new"), nil, "", 202, "1 DELETE, 2 GET, 1 PUT"},
		{"delete a manifest with a tag", "DELETE", at("/v2/a/manifests/" + imageDigest.String()), nil, "", 202, "1 DELETE, 3 GET, 3 LIST, 3 PUT"},
		{"delete a blob", "DELETE", at("/v2/a/blobs/" + smallDigest.String()), nil, "", 202, "1 DELETE, 1 GET, 1 LIST, 1 PUT"},
	} {
		p.takeCounts()
		resp := serve(step.method, step.target(), step.header, step.body)
		s.Wait()
		body, _ := io.ReadAll(resp.Body)
		qt.Assert(t, qt.Equals(resp.StatusCode, step.status), qt.Commentf("%s: %s", step.name, body))
		if step.status == http.StatusAccepted && resp.Header.Get("Location") != "" {
			location = resp.Header.Get("Location")
		}
		got := format(p.takeCounts())
		if got != step.want {
			t.Errorf("%s: %q", step.name, got)
		}
		t.Logf("| %s | %s |", step.name, got)
	}
}

// format writes counts as a list.
func format(counts map[string]int) string {
	var list []string
	for _, kind := range []string{"DELETE", "GET", "HEAD", "LIST", "POST", "PUT"} {
		if n := counts[kind]; n > 0 {
			list = append(list, fmt.Sprint(n, " ", kind))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}
