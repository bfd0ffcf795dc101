// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestLint checks the findings about clients that follow the spec and that violate
// it.
func TestLint(t *testing.T) {
	const octets = "application/octet-stream"
	d, d512 := digest.FromString("data"), digest.SHA512.FromString("data")
	subject := digest.FromString("subject")
	artifact := fmt.Sprintf(`{"mediaType":%q,"config":%s,"layers":[],"subject":{"mediaType":%q,"size":1,"digest":"%s"}}`,
		ocispec.MediaTypeImageManifest, `{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"`+digest.FromString("{}")+`"}`, ocispec.MediaTypeImageManifest, subject)
	referrersTag := strings.ReplaceAll(subject.String(), ":", "-")
	start := func(c journaled, query string) string {
		return c.send("POST", "/v2/a/blobs/uploads/"+query, "").Header.Get("Location")
	}
	old := []registry.Option{registry.WithReferrersSupport(false), registry.AllowSparse()}
	minChunk := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("OCI-Chunk-Min-Length", "4")
			h.ServeHTTP(w, r)
		})
	}
	for _, test := range []struct {
		name  string
		opts  []registry.Option
		fault func(http.Handler) http.Handler
		do    func(c journaled)
		want  []string
	}{
		{name: "chunked_upload", do: func(c journaled) {
			loc := start(c, "")
			c.send("PATCH", loc, "da", "Content-Type", octets, "Content-Range", "0-1")
			c.send("PATCH", loc, "t", "Content-Type", octets, "Content-Range", "2-2")
			c.send("PUT", loc+"?digest="+d.String(), "a", "Content-Type", octets, "Content-Range", "3-3")
		}},
		{name: "cancelled_upload", do: func(c journaled) { c.send("DELETE", start(c, ""), "") }},
		{name: "abandoned_upload", do: func(c journaled) { start(c, "") }, want: []string{
			`POST /v2/a/blobs/uploads/: upload is neither completed nor cancelled (SHOULD, "Cancel a blob upload")`}},
		{name: "abandoned_failed_mount", do: func(c journaled) { start(c, "?mount="+d.String()+"&from=b") }, want: []string{
			`POST /v2/a/blobs/uploads/: upload is neither completed nor cancelled (SHOULD, "Cancel a blob upload")`}},
		{name: "stream_without_range", do: func(c journaled) {
			loc := start(c, "")
			c.send("PATCH", loc, "data")
			c.send("PUT", loc+"?digest="+d.String(), "")
		}, want: []string{
			`PATCH LOC: content of a blob has Content-Type "" (SHOULD, "Pushing a blob in chunks")`,
			`PATCH LOC: chunk without a Content-Range (SHOULD, "Pushing a blob in chunks")`}},
		{name: "HTTP_Content-Range", do: func(c journaled) {
			loc := start(c, "")
			c.send("PATCH", loc, "data", "Content-Type", octets, "Content-Range", "bytes 0-3/4")
			c.send("DELETE", loc, "")
		}, want: []string{
			`PATCH LOC: malformed Content-Range "bytes 0-3/4", want the form 0-9 (MUST, "Pushing a blob in chunks")`}},
		{name: "repeated_chunk", do: func(c journaled) { // its response may have been lost
			loc := start(c, "")
			c.send("PATCH", loc, "data", "Content-Type", octets, "Content-Range", "0-3")
			c.send("PATCH", loc, "data", "Content-Type", octets, "Content-Range", "0-3")
			c.send("DELETE", loc, "")
		}},
		{name: "chunk_ahead", do: func(c journaled) {
			loc := start(c, "")
			c.send("PATCH", loc, "data", "Content-Type", octets, "Content-Range", "4-7")
			c.send("DELETE", loc, "")
		}, want: []string{
			`PATCH LOC: chunk at byte 4, but the registry has 0 bytes (MUST, "Pushing a blob in chunks")`}},
		{name: "closing_PUT_without_digest", do: func(c journaled) {
			loc := start(c, "")
			c.send("PUT", loc, "")
			c.send("DELETE", loc, "")
		}, want: []string{
			`PUT LOC: closing PUT without a digest (MUST, "Pushing a blob in chunks")`}},
		{name: "sha512_announced", do: func(c journaled) {
			loc := start(c, "?digest-algorithm=sha512")
			c.send("PUT", loc+"?digest="+d512.String(), "data", "Content-Type", octets)
		}},
		{name: "sha512_unannounced", do: func(c journaled) {
			loc := start(c, "")
			c.send("PUT", loc+"?digest="+d512.String(), "data", "Content-Type", octets)
		}, want: []string{
			`POST /v2/a/blobs/uploads/: no digest-algorithm, but the blob has a sha512 digest (SHOULD, "Pushing a blob in chunks")`}},
		{name: "small_chunks", fault: minChunk, do: func(c journaled) {
			loc := start(c, "")
			c.send("PATCH", loc, "d", "Content-Type", octets, "Content-Range", "0-0")
			c.send("PATCH", loc, "ata", "Content-Type", octets, "Content-Range", "1-3")
			c.send("PUT", loc+"?digest="+d.String(), "")
		}, want: []string{
			`PATCH LOC: chunk of 1 bytes is smaller than OCI-Chunk-Min-Length 4 (SHOULD, "Pushing a blob in chunks")`}},
		{name: "made_up_location", do: func(c journaled) {
			loc := start(c, "")
			c.send("PUT", loc+"?x=y&digest="+d.String(), "data", "Content-Type", octets)
		}, want: []string{
			`PUT LOC: ignores the session's Location (SHOULD, "POST then PUT")`}},
		{name: "pulls", do: func(c journaled) {
			c.send("GET", "/v2/a/manifests/tag", "", "Accept", ocispec.MediaTypeImageManifest)
			c.send("HEAD", "/v2/a/manifests/tag", "")
		}, want: []string{
			`HEAD /v2/a/manifests/tag: no Accept with the supported media types (SHOULD, "Pulling manifests")`}},
		{name: "pushes", do: func(c journaled) {
			c.send("PUT", "/v2/a/manifests/tag", "x")
			c.send("PUT", "/v2/a/manifests/tag", "x", "Content-Type", "text/plain; charset=utf-8")
			c.send("PUT", "/v2/a/manifests/tag", `{"mediaType":"text/html"}`, "Content-Type", "text/plain")
		}, want: []string{
			`PUT /v2/a/manifests/tag: no Content-Type (SHOULD, "Pushing Manifests")`,
			`PUT /v2/a/manifests/tag: Content-Type has parameters (SHOULD, "Pushing Manifests")`,
			`PUT /v2/a/manifests/tag: Content-Type differs from the manifest's mediaType (MUST, "Pushing Manifests")`}},
		{name: "referrer", opts: []registry.Option{registry.AllowSparse()}, do: func(c journaled) {
			c.send("PUT", "/v2/a/manifests/tag", artifact, "Content-Type", ocispec.MediaTypeImageManifest)
		}},
		{name: "referrer_without_API", opts: old, do: func(c journaled) {
			c.send("PUT", "/v2/a/manifests/tag", artifact, "Content-Type", ocispec.MediaTypeImageManifest)
			c.send("PUT", "/v2/a/manifests/"+referrersTag, `{"manifests":[]}`, "Content-Type", ocispec.MediaTypeImageIndex)
		}},
		{name: "lost_referrer", opts: old, do: func(c journaled) {
			c.send("PUT", "/v2/a/manifests/tag", artifact, "Content-Type", ocispec.MediaTypeImageManifest)
		}, want: []string{
			`PUT /v2/a/manifests/tag: no OCI-Subject in the response, and no push of the referrers tag follows (MUST, "Pushing Manifests with Subject")`}},
		{name: "query_without_API", opts: old, do: func(c journaled) {
			c.send("GET", "/v2/a/referrers/"+subject.String(), "")
			c.send("GET", "/v2/a/manifests/"+referrersTag, "", "Accept", ocispec.MediaTypeImageIndex)
		}},
		{name: "abandoned_query", opts: old, do: func(c journaled) { c.send("GET", "/v2/a/referrers/"+subject.String(), "") }, want: []string{
			`GET /v2/a/referrers/` + subject.String() + `: 404 response, and no pull of the referrers tag follows (MUST, "Unavailable Referrers API")`}},
		{name: "pages", do: func(c journaled) {
			for _, tag := range []string{"a", "b", "c"} {
				c.send("PUT", "/v2/a/manifests/"+tag, "x", "Content-Type", "text/plain")
			}
			link := c.send("GET", "/v2/a/tags/list?n=1", "").Header.Get("Link")
			c.send("GET", strings.Trim(strings.Split(link, ">")[0], "<"), "")
			c.send("GET", "/v2/a/tags/list?n=1", "") // from the start
			c.send("GET", "/v2/a/tags/list?last=a", "")
		}, want: []string{
			`GET /v2/a/tags/list: ignores the Link of the preceding page (SHOULD, "Listing Tags")`}},
		{name: "credentials_follow_a_redirect", fault: redirectBlobs, do: func(c journaled) {
			c.send("GET", "/v2/a/blobs/"+d.String(), "", "Authorization", "Bearer x")
			c.host = "storage.example"
			c.send("GET", "/v2/a/blobs/"+d.String(), "", "Authorization", "Bearer x")
		}, want: []string{
			`GET /v2/a/blobs/` + d.String() + `: credentials for registry.example sent to the target of its redirect (MUST, "API")`}},
		{name: "credentials_withheld", fault: redirectBlobs, do: func(c journaled) {
			c.send("GET", "/v2/a/blobs/"+d.String(), "", "Authorization", "Bearer x")
			c.host = "storage.example"
			c.send("GET", "/v2/a/blobs/"+d.String(), "")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := registry.New(test.opts...)
			if test.fault != nil {
				h = test.fault(h)
			}
			c := newJournaled(t, h)
			c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			test.do(c)
			var got []string
			for _, f := range c.journal.Lint() {
				line := f.String()
				if f.Entry.UploadID != "" {
					line = strings.Replace(line, f.Entry.Path, "LOC", 1)
				}
				got = append(got, line)
			}
			qt.Assert(t, qt.DeepEquals(got, test.want))
		})
	}
}

func redirectBlobs(h http.Handler) http.Handler {
	return registrytest.NewFaults(registrytest.Rule{
		Op:    registry.OpBlobGet,
		Match: func(r *http.Request, _ registry.Request) bool { return r.Host == "registry.example" },
		Fault: registrytest.Redirect("http://storage.example"),
	}).Handler(h)
}
