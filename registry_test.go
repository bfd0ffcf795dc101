// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// call is a request to a registry, and the answer that it must get.
type call struct {
	name   string
	method string // GET if empty
	url    string
	header map[string]string
	body   string

	status     int
	wantHeader map[string]string // "" for a field that must be absent
	wantBody   string            // unless empty
	wantCode   string            // of the first error, unless empty
}

// do sends c to h, and checks the answer.
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

// checkError checks what holds for each error.
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

// pushBlob is a call that pushes a blob, in one POST.
func pushBlob(repo, data string) call {
	return call{
		name: "push blob", method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + sha(data), body: data,
		status: 201, wantHeader: map[string]string{"Location": "/v2/" + repo + "/blobs/" + sha(data), "Docker-Content-Digest": sha(data)},
	}
}

// pushManifest is a call that pushes a manifest.
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

// behaviour is a case of the table of behaviours: a request to a registry in
// which some things are set up.
type behaviour struct {
	name string

	manifests, blobs, uploads map[string]string // by path, by digest, by session ID
	clientUploadIDs           bool              // the case needs registry.ClientUploadIDs

	method, url string
	header      map[string]string
	body        string

	status     int
	wantHeader map[string]string
	wantBody   string
	wantCode   string
}

var behaviours = []behaviour{
	{
		name:       "v2_returns_200",
		method:     "GET",
		url:        "/v2",
		status:     200,
		wantHeader: map[string]string{"Docker-Distribution-API-Version": "registry/2.0"},
	},
	{
		name:       "v2_slash_returns_200",
		method:     "GET",
		url:        "/v2/",
		status:     200,
		wantHeader: map[string]string{"Docker-Distribution-API-Version": "registry/2.0"},
	},
	{
		name:       "v2_bad_returns_404",
		method:     "GET",
		url:        "/v2/bad",
		status:     404,
		wantHeader: map[string]string{"Docker-Distribution-API-Version": "registry/2.0"},
		wantBody:   `{"errors":[{"code":"UNSUPPORTED","message":"page not found"}]}`,
	},
	{
		name:     "GET_non_existent_blob",
		method:   "GET",
		url:      "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:   "HEAD_non_existent_blob",
		method: "HEAD",
		url:    "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status: 404,
	},
	{
		name:     "GET_bad_digest",
		method:   "GET",
		url:      "/v2/foo/blobs/sha256:asd",
		status:   400,
		wantBody: `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:   "HEAD_bad_digest",
		method: "HEAD",
		url:    "/v2/foo/blobs/sha256:asd",
		status: 400,
	},
	{
		name:     "bad_blob_verb",
		method:   "FOO",
		url:      "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:   405,
		wantBody: `{"errors":[{"code":"UNSUPPORTED","message":"method not allowed"}]}`,
	},
	{
		name:       "GET_containerless_blob",
		blobs:      map[string]string{"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae": "foo"},
		method:     "GET",
		url:        "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:     200,
		wantHeader: map[string]string{"Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
		wantBody:   "foo",
	},
	{
		name:       "GET_blob",
		blobs:      map[string]string{"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae": "foo"},
		method:     "GET",
		url:        "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:     200,
		wantHeader: map[string]string{"Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
		wantBody:   "foo",
	},
	{
		name:       "GET_blob_range_defined_range",
		blobs:      map[string]string{"sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9": "hello world"},
		method:     "GET",
		url:        "/v2/foo/blobs/sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
		header:     map[string]string{"Range": "bytes=1-4"},
		status:     206,
		wantHeader: map[string]string{"Content-Length": "4", "Content-Range": "bytes 1-4/11", "Docker-Content-Digest": "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"},
		wantBody:   "ello",
	},
	{
		name:       "GET_blob_range_undefined_range_end",
		blobs:      map[string]string{"sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9": "hello world"},
		method:     "GET",
		url:        "/v2/foo/blobs/sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
		header:     map[string]string{"Range": "bytes=3-"},
		status:     206,
		wantHeader: map[string]string{"Content-Length": "8", "Content-Range": "bytes 3-10/11", "Docker-Content-Digest": "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"},
		wantBody:   "lo world",
	},
	{
		name:       "GET_blob_range_invalid-range-start",
		blobs:      map[string]string{"sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9": "hello world"},
		method:     "GET",
		url:        "/v2/foo/blobs/sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9",
		header:     map[string]string{"Range": "bytes=20-30"},
		status:     416,
		wantHeader: map[string]string{"Content-Range": "bytes */11"},
		wantCode:   "SIZE_INVALID",
	},
	{
		name:       "HEAD_blob",
		blobs:      map[string]string{"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae": "foo"},
		method:     "HEAD",
		url:        "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:     200,
		wantHeader: map[string]string{"Content-Length": "3", "Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
	},
	{
		name:   "DELETE_blob",
		blobs:  map[string]string{"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae": "foo"},
		method: "DELETE",
		url:    "/v2/foo/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status: 202,
	},
	{
		name:     "blob_url_with_no_container",
		method:   "GET",
		url:      "/v2/blobs/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:   404,
		wantBody: `{"errors":[{"code":"UNSUPPORTED","message":"page not found"}]}`,
	},
	{
		name:       "uploadurl",
		method:     "POST",
		url:        "/v2/foo/blobs/uploads/",
		status:     202,
		wantHeader: map[string]string{"Range": "0-0"},
	},
	{
		name:       "uploadurl_2",
		method:     "POST",
		url:        "/v2/foo/blobs/uploads/",
		status:     202,
		wantHeader: map[string]string{"Range": "0-0"},
	},
	{
		name:            "upload_put_missing_digest",
		clientUploadIDs: true,
		method:          "PUT",
		url:             "/v2/foo/blobs/uploads/MQ",
		status:          400,
		wantBody:        `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:       "monolithic_upload_good_digest",
		method:     "POST",
		url:        "/v2/foo/blobs/uploads?digest=sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		body:       "foo",
		status:     201,
		wantHeader: map[string]string{"Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
	},
	{
		name:     "monolithic_upload_bad_digest",
		method:   "POST",
		url:      "/v2/foo/blobs/uploads?digest=sha256:fake",
		body:     "foo",
		status:   400,
		wantBody: `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:            "upload_good_digest",
		clientUploadIDs: true,
		method:          "PUT",
		url:             "/v2/foo/blobs/uploads/MQ?digest=sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		body:            "foo",
		status:          201,
		wantHeader:      map[string]string{"Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
	},
	{
		name:            "upload_bad_digest",
		clientUploadIDs: true,
		method:          "PUT",
		url:             "/v2/foo/blobs/uploads/MQ?digest=sha256:baddigest",
		body:            "foo",
		status:          400,
		wantBody:        `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:            "stream_upload",
		clientUploadIDs: true,
		method:          "PATCH",
		url:             "/v2/foo/blobs/uploads/MQ",
		header:          map[string]string{"Content-Range": "0-2"},
		body:            "foo",
		status:          202,
		wantHeader:      map[string]string{"Location": "/v2/foo/blobs/uploads/MQ", "Range": "0-2"},
	},
	{
		name:            "stream_finish_upload",
		uploads:         map[string]string{"MQ": "foo"},
		clientUploadIDs: true,
		method:          "PUT",
		url:             "/v2/foo/blobs/uploads/MQ?digest=sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:          201,
		wantHeader:      map[string]string{"Docker-Content-Digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"},
	},
	{
		name:     "get_missing_manifest",
		method:   "GET",
		url:      "/v2/foo/manifests/latest",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:   "head_missing_manifest",
		method: "HEAD",
		url:    "/v2/foo/manifests/latest",
		status: 404,
	},
	{
		name:      "get_missing_manifest_good_container",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/bar",
		status:    404,
		wantBody:  `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to registry"}]}`,
	},
	{
		name:      "head_missing_manifest_good_container",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "HEAD",
		url:       "/v2/foo/manifests/bar",
		status:    404,
	},
	{
		name:      "get_manifest_by_tag",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/latest",
		status:    200,
		wantBody:  "foo",
	},
	{
		name:      "get_manifest_by_digest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/foo/manifests/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:    200,
		wantBody:  "foo",
	},
	{
		name:      "head_manifest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "HEAD",
		url:       "/v2/foo/manifests/latest",
		status:    200,
	},
	{
		name:   "create_manifest",
		method: "PUT",
		url:    "/v2/foo/manifests/latest",
		body:   "foo",
		status: 201,
	},
	{
		name:      "create_index",
		manifests: map[string]string{"foo/manifests/image": "foo"},
		method:    "PUT",
		url:       "/v2/foo/manifests/latest",
		header:    map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body: `{
  "manifests": [
	  {
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/xml"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.manifest.v1+json"
		}
	]
}`,
		status: 201,
	},
	{
		name:   "create_index_missing_child",
		method: "PUT",
		url:    "/v2/foo/manifests/latest",
		header: map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body: `{
  "manifests": [
	  {
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/xml"
		},{
	  		"size": 3,
			"digest":"sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
			"mediaType":"application/vnd.oci.image.manifest.v1+json"
		}
	]
}`,
		status:   404,
		wantCode: "MANIFEST_BLOB_UNKNOWN",
	},
	{
		name:     "bad_index_body",
		method:   "PUT",
		url:      "/v2/foo/manifests/latest",
		header:   map[string]string{"Content-Type": "application/vnd.oci.image.index.v1+json"},
		body:     "foo",
		status:   400,
		wantCode: "MANIFEST_INVALID",
	},
	{
		name:     "bad_manifest_method",
		method:   "BAR",
		url:      "/v2/foo/manifests/latest",
		status:   405,
		wantBody: `{"errors":[{"code":"UNSUPPORTED","message":"method not allowed"}]}`,
	},
	{
		name:            "Chunk_upload_start",
		clientUploadIDs: true,
		method:          "PATCH",
		url:             "/v2/foo/blobs/uploads/MQ",
		header:          map[string]string{"Content-Range": "0-2"},
		body:            "foo",
		status:          202,
		wantHeader:      map[string]string{"Location": "/v2/foo/blobs/uploads/MQ", "Range": "0-2"},
	},
	{
		name:            "Chunk_upload_bad_content_range",
		clientUploadIDs: true,
		method:          "PATCH",
		url:             "/v2/foo/blobs/uploads/MQ",
		header:          map[string]string{"Content-Range": "0-bar"},
		body:            "foo",
		status:          400,
		wantBody:        `{"errors":[{"code":"UNSUPPORTED","message":"we don't understand your Content-Range"}]}`,
	},
	{
		name:            "Chunk_upload_overlaps_previous_data",
		uploads:         map[string]string{"MQ": "foo"},
		clientUploadIDs: true,
		method:          "PATCH",
		url:             "/v2/foo/blobs/uploads/MQ",
		header:          map[string]string{"Content-Range": "2-4"},
		body:            "bar",
		status:          416,
		wantHeader:      map[string]string{"Range": "0-2", "Location": "/v2/foo/blobs/uploads/MQ"},
		wantCode:        "BLOB_UPLOAD_INVALID",
	},
	{
		name:            "Chunk_upload_after_previous_data",
		uploads:         map[string]string{"MQ": "foo"},
		clientUploadIDs: true,
		method:          "PATCH",
		url:             "/v2/foo/blobs/uploads/MQ",
		header:          map[string]string{"Content-Range": "3-5"},
		body:            "bar",
		status:          202,
		wantHeader:      map[string]string{"Location": "/v2/foo/blobs/uploads/MQ", "Range": "0-5"},
	},
	{
		name:     "DELETE_Unknown_name",
		method:   "DELETE",
		url:      "/v2/test/honk/manifests/latest",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:      "DELETE_Unknown_manifest",
		manifests: map[string]string{"honk/manifests/latest": "honk"},
		method:    "DELETE",
		url:       "/v2/honk/manifests/tag-honk",
		status:    404,
		wantBody:  `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown to registry: tag does not exist"}]}`,
	},
	{
		name:      "DELETE_existing_manifest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "DELETE",
		url:       "/v2/foo/manifests/latest",
		status:    202,
	},
	{
		name:      "DELETE_existing_manifest_by_digest",
		manifests: map[string]string{"foo/manifests/latest": "foo"},
		method:    "DELETE",
		url:       "/v2/foo/manifests/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:    202,
	},
	{
		name:      "list_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?n=1000",
		status:    200,
		wantBody:  `{"name":"foo","tags":["latest","tag1"]}`,
	},
	{
		name:      "limit_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?n=1",
		status:    200,
		wantBody:  `{"name":"foo","tags":["latest"]}`,
	},
	{
		name:      "offset_tags",
		manifests: map[string]string{"foo/manifests/latest": "foo", "foo/manifests/tag1": "foo"},
		method:    "GET",
		url:       "/v2/foo/tags/list?last=latest",
		status:    200,
		wantBody:  `{"name":"foo","tags":["tag1"]}`,
	},
	{
		name:     "list_non_existing_tags",
		method:   "GET",
		url:      "/v2/foo/tags/list?n=1000",
		status:   404,
		wantBody: `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`,
	},
	{
		name:      "list_repos",
		manifests: map[string]string{"bar/manifests/latest": "bar", "foo/manifests/latest": "foo"},
		method:    "GET",
		url:       "/v2/_catalog?n=1000",
		status:    200,
		wantBody:  `{"repositories":["bar","foo"]}`,
	},
	{
		name:      "fetch_references",
		manifests: map[string]string{"foo/manifests/image": "foo", "foo/manifests/points-to-image": `{"subject": {"digest": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}}`},
		method:    "GET",
		url:       "/v2/foo/referrers/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:      "fetch_references_subject_pointing_elsewhere",
		manifests: map[string]string{"foo/manifests/image": "foo", "foo/manifests/points-to-image": `{"subject": {"digest": "sha256:788408b70bf9fd6e0c85c13f6bce031a5ff3d8d9dc9884a1e9a5da5400c3e381"}}`},
		method:    "GET",
		url:       "/v2/foo/referrers/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:      "fetch_references_no_results",
		manifests: map[string]string{"foo/manifests/image": "foo"},
		method:    "GET",
		url:       "/v2/foo/referrers/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:    200,
		wantBody:  `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:     "fetch_references_missing_repo",
		method:   "GET",
		url:      "/v2/does-not-exist/referrers/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:   200,
		wantBody: `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
	},
	{
		name:     "fetch_references_bad_target_tag_vs_digest",
		method:   "GET",
		url:      "/v2/foo/referrers/latest",
		status:   400,
		wantBody: `{"errors":[{"code":"DIGEST_INVALID","message":"badly formed digest"}]}`,
	},
	{
		name:     "fetch_references_bad_method",
		method:   "POST",
		url:      "/v2/foo/referrers/sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
		status:   405,
		wantCode: "UNSUPPORTED",
	},
}

func TestBehaviours(t *testing.T) {
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			var opts []registry.Option
			if b.clientUploadIDs {
				opts = append(opts, registry.ClientUploadIDs())
			}
			h := registry.New(opts...)
			for _, path := range slices.Sorted(maps.Keys(b.manifests)) {
				call{
					method: "PUT", url: "/v2/" + path, body: b.manifests[path],
					header: map[string]string{"Content-Type": "application/octet-stream"}, status: 201,
				}.do(t, h)
			}
			for d, data := range b.blobs {
				call{method: "POST", url: "/v2/foo/blobs/uploads/?digest=" + d, body: data, status: 201}.do(t, h)
			}
			for id, data := range b.uploads {
				call{
					method: "PATCH", url: "/v2/foo/blobs/uploads/" + id, body: data,
					header: map[string]string{"Content-Range": contentRange(0, len(data))}, status: 202,
				}.do(t, h)
			}
			b.call().do(t, h)
		})
	}
}

func (b behaviour) call() call {
	return call{
		method: b.method, url: b.url, header: b.header, body: b.body,
		status: b.status, wantHeader: b.wantHeader, wantBody: b.wantBody, wantCode: b.wantCode,
	}
}

// TestBehavioursWithoutClientUploadIDs has the same requests to a registry
// that opens its sessions itself: they are unknown.
func TestBehavioursWithoutClientUploadIDs(t *testing.T) {
	for _, b := range behaviours {
		if !b.clientUploadIDs {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			c := b.call()
			c.status, c.wantHeader, c.wantBody, c.wantCode = 404, nil, "", "BLOB_UPLOAD_UNKNOWN"
			c.do(t, registry.New())
		})
	}
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
		// ns is for pulls.
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

// TestMigration is code that was written for go-containerregistry's registry:
// it compiles as it is. Module interop runs it on both.
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
