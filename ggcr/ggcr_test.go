// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	registry "github.com/berth-oci/registry/ggcr"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// silent returns a registry that logs nothing.
func silent(opts ...registry.Option) http.Handler {
	return registry.New(append([]registry.Option{registry.Logger(log.New(io.Discard, "", 0))}, opts...)...)
}

// request is a request and the expected response.
type request struct {
	do     string // method and URL
	header string // "Name: value"
	body   string

	status int
	code   string            // of the error; empty for any
	want   map[string]string // headers; "" for one that must be absent
	reply  string            // the body; empty for any
}

// send sends a request like a client that does not know its length.
func (q request) send(t *testing.T, h http.Handler) {
	t.Helper()
	method, target, _ := strings.Cut(q.do, " ")
	r := httptest.NewRequest(method, target, struct{ io.Reader }{strings.NewReader(q.body)})
	if name, value, ok := strings.Cut(q.header, ": "); ok {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	about := qt.Commentf("%s\n%s", q.do, w.Body)
	qt.Check(t, qt.Equals(w.Code, q.status), about)
	for name, value := range q.want {
		qt.Check(t, qt.Equals(w.Header().Get(name), value), about, qt.Commentf("%s", name))
	}
	if q.code != "" {
		qt.Check(t, qt.StringContains(w.Body.String(), `"code":"`+q.code+`"`), about)
	}
	if q.reply != "" {
		qt.Check(t, qt.Equals(w.Body.String(), q.reply), about)
	}
}

const (
	content  = "some bytes"
	image    = `{"schemaVersion":2}`
	docker   = "application/vnd.docker.distribution.manifest.v2+json"
	missing  = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	ociType  = "Content-Type: " + ocispec.MediaTypeImageManifest
	listType = "Content-Type: " + ocispec.MediaTypeImageIndex
)

var (
	contentDigest = digest.FromString(content).String()
	imageDigest   = digest.FromString(image).String()

	pushBlob  = request{do: "POST /v2/a/blobs/uploads/?digest=" + contentDigest, body: content, status: 201}
	pushImage = request{do: "PUT /v2/a/manifests/v1", header: ociType, body: image, status: 201}
)

// TestQuirks checks behaviour that go-containerregistry shares: the test also
// passes with its package in place of this one.
func TestQuirks(t *testing.T) {
	index := `{"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + imageDigest + `"},{"mediaType":"image/png","digest":"` + missing + `"}]}`
	referrer := `{"config":{"mediaType":"text/x","digest":"` + missing + `"},"subject":{"digest":"` + imageDigest + `"}}`
	list := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`
	for name, requests := range map[string][]request{
		"the API's root": {
			{do: "GET /v2", status: 200, want: map[string]string{"Docker-Distribution-Api-Version": "registry/2.0"}},
			{do: "GET /v2/", status: 200},
			{do: "GET /v2/other", status: 404, code: "METHOD_UNKNOWN"},
		},
		"a method that an endpoint lacks": {
			{do: "POST /v2/a/manifests/v1", status: 400, code: "METHOD_UNKNOWN"},
			{do: "PUT /v2/a/blobs/" + contentDigest, status: 400, code: "METHOD_UNKNOWN"},
			{do: "PUT /v2/a/tags/list", status: 400, code: "METHOD_UNKNOWN"},
			{do: "POST /v2/a/referrers/" + contentDigest, status: 400, code: "METHOD_UNKNOWN"},
		},
		"a malformed digest": {
			pushImage,
			{do: "GET /v2/a/blobs/sha256:12", status: 400, code: "NAME_INVALID"},
			{do: "HEAD /v2/a/blobs/sha256:12", status: 400},
			{do: "POST /v2/a/blobs/uploads/?digest=sha256:12", body: content, status: 400, code: "NAME_INVALID"},
			{do: "PUT /v2/a/blobs/uploads/x?digest=sha256:12", body: content, status: 400, code: "NAME_INVALID"},
			{do: "GET /v2/a/manifests/sha256:12", status: 404, code: "MANIFEST_UNKNOWN"},
			{do: "GET /v2/a/referrers/v1", status: 400, code: "UNSUPPORTED"},
			{do: "GET /v2/blobs/" + contentDigest, status: 400, code: "NAME_INVALID"},
		},
		"a wrong digest": {
			{do: "POST /v2/a/blobs/uploads/?digest=" + missing, body: content, status: 400, code: "DIGEST_INVALID"},
			{do: "PUT /v2/a/blobs/uploads/x?digest=" + missing, body: content, status: 400, code: "DIGEST_INVALID"},
			{do: "PUT /v2/a/blobs/uploads/x", body: content, status: 400, code: "DIGEST_INVALID"},
		},
		"a blob can be read through all repositories": {
			{do: "GET /v2/a/blobs/" + contentDigest, status: 404, code: "BLOB_UNKNOWN"},
			pushBlob,
			{do: "GET /v2/a/blobs/" + contentDigest, status: 200, reply: content},
			{do: "GET /v2/b/c/blobs/" + contentDigest, status: 200, reply: content},
			{do: "HEAD /v2/d/blobs/" + contentDigest, status: 200, want: map[string]string{"Content-Length": "10", "Docker-Content-Digest": contentDigest}},
			{do: "DELETE /v2/b/c/blobs/" + contentDigest, status: 202},
			{do: "GET /v2/a/blobs/" + contentDigest, status: 404, code: "BLOB_UNKNOWN"},
		},
		"a mount of an unknown blob": {
			{do: "POST /v2/b/blobs/uploads/?from=a&mount=" + contentDigest, status: 202},
			{do: "POST /v2/b/blobs/uploads/?mount=" + contentDigest, status: 202},
		},
		"a range of a blob": {
			pushBlob,
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=5-9", status: 206, reply: "bytes", want: map[string]string{"Content-Range": "bytes 5-9/10"}},
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: lines=1-2", status: 416, code: "BLOB_UNKNOWN"},
		},
		"a range past the end": {
			pushBlob,
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=5-10", status: 416, code: "BLOB_UNKNOWN"},
		},
		"a session ID chosen by the client": {
			{do: "PATCH /v2/a/blobs/uploads/mine", body: content, status: 202, want: map[string]string{"Location": "/v2/a/blobs/uploads/mine", "Range": "0-9"}},
			{do: "PATCH /v2/a/blobs/uploads/mine", body: content, status: 400, code: "BLOB_UPLOAD_INVALID"},
			{do: "PUT /v2/a/blobs/uploads/mine?digest=" + contentDigest, status: 201, want: map[string]string{"Docker-Content-Digest": contentDigest}},
			{do: "PUT /v2/a/blobs/uploads/other?digest=" + contentDigest, body: content, status: 201},
		},
		"chunks": {
			{do: "POST /v2/a/blobs/uploads", status: 202, want: map[string]string{"Range": "0-0"}},
			{do: "PATCH /v2/a/blobs/uploads/x", header: "Content-Range: 0-x", body: "some ", status: 416, code: "BLOB_UPLOAD_UNKNOWN"},
			{do: "PATCH /v2/a/blobs/uploads/x", header: "Content-Range: 1-5", body: "some ", status: 416, code: "BLOB_UPLOAD_UNKNOWN"},
			{do: "PATCH /v2/a/blobs/uploads/x", header: "Content-Range: 0-5", body: "some ", status: 202, want: map[string]string{"Range": "0-4"}}, // an end past the last byte
			{do: "PATCH /v2/a/blobs/uploads/x", header: "Content-Range: 4-8", body: "bytes", status: 416, code: "BLOB_UPLOAD_UNKNOWN"},
			{do: "PATCH /v2/a/blobs/uploads/x", header: "Content-Range: 5-9", body: "bytes", status: 202, want: map[string]string{"Range": "0-9"}}, // an end as in the spec
			{do: "PUT /v2/a/blobs/uploads/x?digest=" + contentDigest, status: 201},
		},
		"a sparse manifest": {
			{do: "PUT /v2/a/manifests/v1", header: ociType, body: `{"config":{"digest":"` + missing + `"}}`, status: 201},
			{do: "PUT /v2/a/manifests/list", header: listType, body: index, status: 404, code: "MANIFEST_UNKNOWN"},
			pushImage,
			{do: "PUT /v2/a/manifests/list", header: listType, body: index, status: 201},
			{do: "PUT /v2/a/manifests/list", header: listType, body: "no JSON", status: 400, code: "MANIFEST_INVALID"},
		},
		"a manifest of another type": {
			{do: "PUT /v2/a/manifests/v1", body: "no JSON", status: 201, want: map[string]string{"Docker-Content-Digest": digest.FromString("no JSON").String()}},
			{do: "GET /v2/a/manifests/v1", status: 200, reply: "no JSON"},
			{do: "PUT /v2/a/manifests/v2", header: "Content-Type: text/plain", body: `{"mediaType":"` + docker + `"}`, status: 201},
			{do: "GET /v2/a/manifests/v2", status: 200, want: map[string]string{"Content-Type": "text/plain"}},
		},
		"referrers": {
			{do: "GET /v2/a/referrers/" + imageDigest, status: 404, code: "NAME_UNKNOWN"},
			pushImage,
			{do: "GET /v2/a/referrers/" + imageDigest, status: 200, reply: list + "]}", want: map[string]string{"Content-Type": ocispec.MediaTypeImageIndex}},
			{do: "PUT /v2/a/manifests/ref2", body: `{"subject":{"digest":"none"}}`, status: 201},
			{do: "PUT /v2/a/manifests/ref", header: "Content-Type: " + docker, body: referrer, status: 201},
			{do: "GET /v2/a/referrers/" + imageDigest, status: 200},
		},
		"an unknown manifest": {
			{do: "GET /v2/a/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
			{do: "DELETE /v2/a/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
			pushImage,
			{do: "GET /v2/a/manifests/v2", status: 404, code: "MANIFEST_UNKNOWN"},
			{do: "DELETE /v2/a/manifests/v2", status: 404, code: "MANIFEST_UNKNOWN"},
			{do: "DELETE /v2/a/manifests/v1", status: 202},
			{do: "GET /v2/a/manifests/" + imageDigest, status: 200, reply: image},
		},
		"lists": {
			{do: "GET /v2/a/tags/list", status: 404, code: "NAME_UNKNOWN"},
			pushBlob, // creates no repository
			{do: "GET /v2/a/tags/list", status: 404, code: "NAME_UNKNOWN"},
			pushImage,
			{do: "PUT /v2/a/manifests/v2", header: ociType, body: image, status: 201},
			{do: "GET /v2/a/tags/list?n=1", status: 200, reply: `{"name":"a","tags":["v1"]}`},
			{do: "GET /v2/a/tags/list?last=v1", status: 200, reply: `{"name":"a","tags":["v2"]}`},
			{do: "GET /v2/a/tags/list?n=x", status: 400, code: "BAD_REQUEST"},
			{do: "GET /v2/_catalog?n=5", status: 200, reply: `{"repositories":["a"]}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			runBoth(t, requests)
		})
	}
	t.Run("no referrers by default", func(t *testing.T) {
		h := silent()
		for _, q := range []request{
			pushImage,
			{do: "PUT /v2/a/manifests/ref", header: ociType, body: referrer, status: 201, want: map[string]string{"Oci-Subject": ""}},
			{do: "GET /v2/a/referrers/" + imageDigest, status: 404, code: "METHOD_UNKNOWN"},
			{do: "GET /v2/a/referrers/v1", status: 404, code: "METHOD_UNKNOWN"},
			{do: "POST /v2/a/referrers/" + imageDigest, status: 404, code: "METHOD_UNKNOWN"},
		} {
			q.send(t, h)
		}
	})
}

// runBoth sends requests to a registry in memory, and to one with its blobs in
// files.
func runBoth(t *testing.T, requests []request) {
	for _, handler := range []registry.BlobHandler{registry.NewInMemoryBlobHandler(), registry.NewDiskBlobHandler(t.TempDir())} {
		h := silent(registry.WithReferrersSupport(true), registry.WithBlobHandler(handler))
		for _, q := range requests {
			q.send(t, h)
		}
	}
}

// TestLog checks the lines of the log: the method and URL of a request, and if it
// fails, the status, the code and the message.
func TestLog(t *testing.T) {
	var lines strings.Builder
	h := registry.New(registry.Logger(log.New(&lines, "", 0)), registry.WithBlobHandler(handler[registry.Hash]{err: io.ErrNoProgress}))
	for _, q := range []request{
		{do: "GET /v2/", status: 200},
		{do: "GET /v2/a/manifests/v1", status: 404},
		{do: "HEAD /v2/a/manifests/v1", status: 404},
		{do: "GET /v2/a/blobs/" + contentDigest, status: 500, code: "INTERNAL_SERVER_ERROR"},
	} {
		q.send(t, h)
	}
	qt.Check(t, qt.Equals(lines.String(), `GET /v2/
GET /v2/a/manifests/v1 404 NAME_UNKNOWN repository name not known to registry
HEAD /v2/a/manifests/v1 404 Not Found
GET /v2/a/blobs/`+contentDigest+` 500 INTERNAL_SERVER_ERROR `+io.ErrNoProgress.Error()+`
`))
	request{do: "GET /v2/", status: 200}.send(t, registry.New(registry.Logger(nil)))
}

func TestWarning(t *testing.T) {
	h := silent(registry.WithWarning(1, "first"), registry.WithWarning(1, "soon gone"), registry.WithWarning(0, "never"))
	request{do: "GET /v2/", status: 200, want: map[string]string{"Warning": `299 - "soon gone"`}}.send(t, h)
}

func TestTLS(t *testing.T) {
	s, err := registry.TLS("registry.example.com")
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	defer s.Client().CloseIdleConnections()
	resp, err := s.Client().Get("https://registry.example.com/v2/")
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 200))
}

// TestDifferences checks the table in the package documentation.
func TestDifferences(t *testing.T) {
	referrer := `{"artifactType":"text/y","annotations":{"a":"b"},"subject":{"digest":"` + imageDigest + `"}}`
	entry := `{"mediaType":"` + docker + `","digest":"` + digest.FromString(referrer).String() + `","size":` + strconv.Itoa(len(referrer)) + `,"artifactType":"text/y","annotations":{"a":"b"}}`
	session := "/v2/a/blobs/uploads/x"
	sha512 := digest.SHA512.FromString(content).String()
	for name, requests := range map[string][]request{
		"a session belongs to its repository": {
			{do: "PATCH " + session, body: content, status: 202},
			{do: "PUT /v2/b/blobs/uploads/x?digest=" + contentDigest, status: 400, code: "DIGEST_INVALID"},
			{do: "GET /v2/b/blobs/uploads/x", status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		},
		"GET and DELETE of a session": {
			{do: "PATCH " + session, body: content, status: 202},
			{do: "GET " + session, status: 204, want: map[string]string{"Range": "0-9"}},
			{do: "DELETE " + session, status: 204},
			{do: "GET " + session, status: 404, code: "BLOB_UPLOAD_UNKNOWN"},
		},
		"mounts": {
			pushBlob,
			{do: "POST /v2/b/blobs/uploads/?from=a&mount=" + contentDigest, status: 201},
			{do: "POST /v2/b/blobs/uploads/?from=a&mount=sha256:12", status: 400, code: "NAME_INVALID"},
		},
		"chunks of another length": {
			{do: "PATCH " + session, header: "Content-Range: 0-9", body: "some", status: 400, code: "SIZE_INVALID"},
			{do: "PATCH " + session, header: "Content-Range: 0-4", body: content, status: 400, code: "SIZE_INVALID"},
			{do: "PATCH " + session, header: "Content-Range: 0-4", body: "some ", status: 202},
			{do: "PATCH " + session, header: "Content-Range: 7-9", body: "tes", status: 416, want: map[string]string{"Range": "0-4"}},
		},
		"DELETE of an unknown blob": {
			{do: "DELETE /v2/a/blobs/" + contentDigest, status: 404, code: "BLOB_UNKNOWN"},
		},
		"ranges": {
			pushBlob,
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=5-", status: 206, reply: "bytes"},
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=7-6", status: 416, code: "BLOB_UNKNOWN"},
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=-5", status: 206, reply: "bytes"},
			{do: "GET /v2/a/blobs/" + contentDigest, header: "Range: bytes=0-0,9-9", status: 206},
		},
		"SHA-512": {
			{do: "POST /v2/a/blobs/uploads/?digest=" + sha512, body: content, status: 201},
			{do: "GET /v2/b/blobs/" + sha512, status: 200, reply: content},
		},
		"a malformed manifest": {
			{do: "PUT /v2/a/manifests/v1", header: ociType, body: "no JSON", status: 400, code: "MANIFEST_INVALID"},
			{do: "PUT /v2/a/manifests/v1", header: ociType, body: `{"mediaType":"` + ocispec.MediaTypeImageIndex + `"}`, status: 400, code: "MANIFEST_INVALID"},
			{do: "PUT /v2/a/manifests/" + missing, header: ociType, body: image, status: 400, code: "DIGEST_INVALID"},
			{do: "PUT /v2/a/manifests/v1", header: "Content-Type: x/y", body: strings.Repeat(" ", 4<<20+1), status: 413},
			{do: "PUT /v2/A/manifests/v1", header: ociType, body: image, status: 400, code: "NAME_INVALID"},
			{do: "PUT /v2/a/manifests/-v1", header: ociType, body: image, status: 400, code: "NAME_INVALID"},
			{do: "GET /v2/a/manifests/-v1", status: 404, code: "MANIFEST_UNKNOWN"},
		},
		"DELETE by digest": {
			pushImage,
			{do: "DELETE /v2/a/manifests/" + imageDigest, status: 202},
			{do: "GET /v2/a/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
			{do: "GET /v2/_catalog", status: 200, reply: `{"repositories":[]}`},
		},
		"a manifest's type": {
			{do: "PUT /v2/a/manifests/v1", header: "Content-Type: text/plain; charset=utf-8", body: image, status: 201},
			{do: "GET /v2/a/manifests/v1", status: 200, want: map[string]string{"Content-Type": "text/plain"}},
			{do: "PUT /v2/a/manifests/v1", body: `{"mediaType":"` + ocispec.MediaTypeImageManifest + `"}`, status: 201},
			{do: "GET /v2/a/manifests/v1", status: 200, want: map[string]string{"Content-Type": ocispec.MediaTypeImageManifest}},
		},
		"lists": {
			{do: "PUT /v2/a/manifests/" + imageDigest, header: ociType, body: image, status: 201},
			{do: "GET /v2/a/tags/list", status: 200, reply: `{"name":"a","tags":[]}`},
			{do: "GET /v2/a/tags/list?n=-1", status: 400, code: "BAD_REQUEST"},
			pushImage,
			{do: "GET /v2/a/tags/list?last=v1", status: 200, reply: `{"name":"a","tags":[]}`},
		},
		"referrers": {
			{do: "PUT /v2/a/manifests/ref", header: "Content-Type: " + docker, body: referrer, status: 201, want: map[string]string{"Oci-Subject": imageDigest}},
			{do: "GET /v2/a/referrers/" + imageDigest, status: 200, reply: `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + entry + "]}"},
			{do: "GET /v2/a/referrers/" + imageDigest + "?artifactType=text/z", status: 200, want: map[string]string{"Oci-Filters-Applied": "artifactType"}},
		},
		"paths": {
			{do: "POST /v2/", status: 400, code: "METHOD_UNKNOWN"},
			{do: "GET /v1/a/tags/list", status: 404, code: "METHOD_UNKNOWN"},
			{do: "GET /v2/a/blobs/" + contentDigest + "/", status: 404, code: "METHOD_UNKNOWN"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			runBoth(t, requests)
		})
	}
}
