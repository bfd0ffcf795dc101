// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// RunHTTP sends requests to a registry on a store, and checks the answers. Each
// request has a store that open returns, which must be empty and its own.
func RunHTTP(t *testing.T, open func(t *testing.T) registry.Store) {
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			opts := []registry.Option{registry.WithStore(open(t))}
			if b.clientUploadIDs {
				opts = append(opts, registry.ClientUploadIDs())
			}
			b.run(t, registry.New(opts...))
		})
		if !b.clientUploadIDs {
			continue
		}
		// A registry that opens its sessions itself knows none of these.
		t.Run(b.name+"_without_client_upload_ids", func(t *testing.T) {
			b.uploads = nil
			b.status, b.wantHeader, b.wantBody, b.wantCode = 404, nil, "", "BLOB_UPLOAD_UNKNOWN"
			b.run(t, registry.New(registry.WithStore(open(t))))
		})
	}
}

// behaviour is a request to a registry in which some things are set up, and the
// answer that it must get.
type behaviour struct {
	name string

	manifests, blobs, uploads map[string]string // by path, by digest, by session ID
	clientUploadIDs           bool              // the case needs registry.ClientUploadIDs

	method, url string
	header      map[string]string
	body        string

	status     int
	wantHeader map[string]string
	wantBody   string // unless empty
	wantCode   string // of the first error, unless empty
}

func (b behaviour) run(t *testing.T, h http.Handler) {
	for path, data := range b.manifests {
		b.setUp(t, h, "PUT", "/v2/"+path, data, "Content-Type", "application/octet-stream")
	}
	for d, data := range b.blobs {
		b.setUp(t, h, "POST", "/v2/foo/blobs/uploads/?digest="+d, data, "Content-Type", "application/octet-stream")
	}
	for id, data := range b.uploads {
		b.setUp(t, h, "PATCH", "/v2/foo/blobs/uploads/"+id, data, "Content-Range", fmt.Sprintf("0-%d", len(data)-1))
	}
	w := b.send(h, b.method, b.url, b.body, b.header)
	what := fmt.Sprintf("%s %s: %d %v %.1000s", b.method, b.url, w.Code, w.Header(), w.Body)
	if w.Code != b.status {
		t.Errorf("status %d, want %d\n%s", w.Code, b.status, what)
	}
	for k, v := range b.wantHeader {
		if got := strings.Join(w.Header().Values(k), ", "); got != v {
			t.Errorf("%s: %q, want %q\n%s", k, got, v, what)
		}
	}
	if b.wantBody != "" && w.Body.String() != b.wantBody {
		t.Errorf("body %q, want %q\n%s", w.Body, b.wantBody, what)
	}
	if w.Code < 400 || b.method == "HEAD" {
		return
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || len(doc.Errors) == 0 || doc.Errors[0].Message == "" {
		t.Fatalf("the error is not of the spec's shape: %v\n%s", err, what)
	}
	if b.wantCode != "" && doc.Errors[0].Code != b.wantCode {
		t.Errorf("code %s, want %s\n%s", doc.Errors[0].Code, b.wantCode, what)
	}
}

func (b behaviour) setUp(t *testing.T, h http.Handler, method, url, body, field, value string) {
	t.Helper()
	if w := b.send(h, method, url, body, map[string]string{field: value}); w.Code != 201 && w.Code != 202 {
		t.Fatalf("%s %s: %d %s", method, url, w.Code, w.Body)
	}
}

func (behaviour) send(h http.Handler, method, url, body string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
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
