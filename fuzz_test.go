// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// FuzzManifest pushes a manifest, and checks that it either is rejected and changes
// nothing, or can be pulled unchanged and is listed as a referrer of its subject; and that
// the functions that parse it agree.
func FuzzManifest(f *testing.F) {
	f.Add(typeImage, []byte(image("layer")))
	f.Add(typeImage, []byte(`{"subject":`+descriptor(typeImage, "x")+`,"annotations":{"a":"b"}}`))
	f.Add(typeIndex, []byte(`{"manifests":[`+descriptor(typeImage, "x")+`]}`))
	f.Add(typeIndex, []byte(`{"manifests":[],"layers":[]}`))
	f.Add("", []byte(`{"mediaType":"`+typeIndex+`"}`))
	f.Add(typeDocker, []byte("null"))
	f.Add(typeSigned, []byte(`{"fsLayers":[{"blobSum":"sha256:x"}],"signatures":[{"protected":"eyJmb3JtYXRMZW5ndGgiOjEsImZvcm1hdFRhaWwiOiJmUSJ9"}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, content []byte) {
		h := registry.New(registry.AllowSparse())
		r := httptest.NewRequest("PUT", "/v2/a/manifests/tag", strings.NewReader(string(content)))
		r.Header["Content-Type"] = []string{mediaType}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 400:
			checkError(t, w, call{method: "PUT"})
			call{url: "/v2/_catalog", status: 200, wantBody: `{"repositories":[]}`}.do(t, h)
			return
		case 201:
		default:
			t.Fatalf("status %d", w.Code)
		}
		d := w.Header().Get("Docker-Content-Digest")
		for _, ref := range []string{"tag", d} {
			got := call{url: "/v2/a/manifests/" + ref, status: 200}.do(t, h)
			if got.Body.String() != string(content) {
				t.Fatal("the content differs")
			}
		}
		m, err := registry.ParseManifest(mediaType, content)
		qt.Assert(t, qt.IsNil(err))
		checkReferences(t, m)
		subject := w.Header().Get("OCI-Subject")
		if subject == "" {
			return
		}
		list := call{url: "/v2/a/referrers/" + subject, status: 200}.do(t, h)
		var index ocispec.Index
		if err := json.Unmarshal(list.Body.Bytes(), &index); err != nil {
			t.Fatal(err)
		}
		if len(index.Manifests) != 1 || index.Manifests[0].Digest.String() != d || index.Manifests[0].Size != int64(len(content)) {
			t.Fatalf("referrers: %s", list.Body)
		}
	})
}

// FuzzLists requests a page of tags, and checks that it and the pages that it links
// to make up the list.
func FuzzLists(f *testing.F) {
	for _, query := range []string{"", "n=0", "n=1", "n=-1", "n=2&last=b", "last=zz", "n=99999999999999999999", "n=1&n=2", "last=%00", "n=1;n=2", "artifactType=x&n=1"} {
		f.Add(query)
	}
	tags := []string{"A", "a", "b", "b.1", "c", "zz"}
	store := new(registry.MemStore)
	h := registry.New(registry.WithStore(store))
	f.Fuzz(func(t *testing.T, query string) {
		if len(follow(t, h, "/v2/_catalog", nil)) == 0 {
			for _, tag := range tags {
				pushManifest("a", tag, "text/plain", "m").do(t, h)
			}
		}
		r := httptest.NewRequest("GET", "/v2/a/tags/list", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			checkError(t, w, call{method: "GET"})
			if w.Code != 400 {
				t.Fatalf("status %d", w.Code)
			}
			return
		}
		req, err := registry.ParseRequest(r)
		if err != nil {
			t.Fatal(err)
		}
		all := follow(t, h, req.RequestURI(), nil)
		var want []string
		for _, tag := range tags {
			if tag > req.Last && req.N != 0 {
				want = append(want, tag)
			}
		}
		if !slices.Equal(all, want) {
			t.Fatalf("%q: got %q, want %q", query, all, want)
		}
	})
}

// FuzzRange requests ranges of a blob, and checks that the response is a part of it.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-4", "bytes=-5", "bytes=7-", "bytes=5-2", "bytes=0-0,-1", "bytes=", "bytes=0-18446744073709551616", "lines=1-2", "BYTES=0-99"} {
		f.Add(s, "")
	}
	f.Add("bytes=1-2", `"`+sha(hello)+`"`)
	h := registry.New()
	f.Fuzz(func(t *testing.T, ranges, ifRange string) {
		push := httptest.NewRequest("POST", "/v2/a/blobs/uploads/?digest="+sha(hello), strings.NewReader(hello))
		h.ServeHTTP(httptest.NewRecorder(), push)
		r := httptest.NewRequest("GET", "/v2/a/blobs/"+sha(hello), nil)
		r.Header["Range"], r.Header["If-Range"] = []string{ranges}, []string{ifRange}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		body := w.Body.String()
		switch w.Code {
		case 200:
			if digest.FromString(body).String() != sha(hello) {
				t.Fatalf("%q", body)
			}
		case 206:
			if !strings.Contains(w.Header().Get("Content-Type"), "multipart/") && !strings.Contains(hello, body) {
				t.Fatalf("%q", body)
			}
		case 416:
			checkError(t, w, call{method: "GET"})
		default:
			t.Fatalf("status %d", w.Code)
		}
	})
}
