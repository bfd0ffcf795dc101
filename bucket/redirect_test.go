// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

func TestRedirect(t *testing.T) {
	for _, name := range []string{"minio", "azure"} { // Google's emulator has no credentials to sign with
		t.Run(name, func(t *testing.T) { testRedirect(t, servers[name](t)) })
	}
}

func testRedirect(t *testing.T, url string) {
	s := open(t, url, &bucket.Options{Prefix: "some/where/"})
	d := push(t, s, "a", "data")
	push(t, s, "b", "other")
	server := httptest.NewServer(s.Redirect(registry.New(registry.WithStore(s))))
	defer server.Close()
	for _, test := range []struct {
		method, path string
		header       http.Header
		status       int
	}{
		{"GET", "/v2/a/blobs/" + d.String(), nil, 307},
		{"GET", "/v2/a/blobs/" + d.String(), http.Header{"Range": {"bytes=1-2"}}, 307},
		{"GET", "/v2/a/blobs/" + d.String(), http.Header{"If-None-Match": {`"` + d.String() + `"`}}, 304},
		{"HEAD", "/v2/a/blobs/" + d.String(), nil, 200},
		{"GET", "/v2/b/blobs/" + d.String(), nil, 404},
		{"GET", "/v2/a/blobs/" + digest.FromString("none").String(), nil, 404},
		{"GET", "/v2/a/tags/list", nil, 200},
	} {
		r, err := http.NewRequest(test.method, server.URL+test.path, nil)
		qt.Assert(t, qt.IsNil(err))
		for k, v := range test.header {
			r.Header[k] = v
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, test.status), qt.Commentf("%s %s", test.method, test.path))
		if test.status == 307 {
			qt.Check(t, qt.Equals(resp.Header.Get("Docker-Content-Digest"), d.String()))
			qt.Check(t, qt.Equals(resp.Header.Get("Cache-Control"), "no-store"))
		}
	}
	resp, err := http.Get(server.URL + "/v2/a/blobs/" + d.String())
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(data), "data"))
}

// TestNoRedirect uses a bucket that can't sign URLs.
func TestNoRedirect(t *testing.T) {
	s := open(t, "mem://", nil)
	d := push(t, s, "a", "data")
	w := httptest.NewRecorder()
	s.Redirect(registry.New(registry.WithStore(s))).ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+d.String(), nil))
	qt.Assert(t, qt.Equals(w.Code, 200))
	qt.Assert(t, qt.Equals(w.Body.String(), "data"))
}
