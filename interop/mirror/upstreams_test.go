// SPDX-License-Identifier: Apache-2.0

// Mirrors of the registries that people use.

package mirror

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// repo is the name of the repository in each upstream.
const repo = "team/app"

// content is the content of the repository: an index with a referrer, tags enough for
// several pages, and an image with Docker's types.
var content = registrytest.Content{
	Blobs: map[string]string{
		"config": `{"architecture":"amd64","os":"linux"}`,
		"arm":    `{"architecture":"arm64","os":"linux"}`,
		"layer":  strings.Repeat("a layer ", 20_000),
		"small":  "0123456789",
		"bill":   `{"spdxVersion":"SPDX-2.3"}`,
	},
	Manifests: map[string]registrytest.Manifest{
		"amd64":  {Config: "config", Layers: []string{"layer"}, Platform: "linux/amd64"},
		"arm64":  {Config: "arm", Layers: []string{"small"}, Platform: "linux/arm64"},
		"index":  {Manifests: []string{"amd64", "arm64"}},
		"sbom":   {Layers: []string{"bill"}, ArtifactType: "application/spdx+json", Subject: "index"},
		"docker": {Config: "config", Layers: []string{"layer"}, MediaType: "application/vnd.docker.distribution.manifest.v2+json"},
	},
	Tags: map[string]string{"latest": "index", "v1": "amd64", "v2": "arm64", "v3": "amd64", "docker": "docker"},
}

// exchange is a request to a mirror, and the response.
type exchange struct {
	name   string
	path   string // after /v2/
	header string // "Name: value"

	status int
	code   string   // of an error
	body   string   // of a success
	list   []string // the tags, or the digests, in all pages of a list

	// asked is whether the upstream is asked each time. Once it has stopped, the response
	// has a Warning.
	asked bool
}

// TestRegistries mirrors a repository of each registry. It sends the same requests to a
// mirror that is empty, to one that has everything, and after the upstream has stopped.
func TestRegistries(t *testing.T) {
	seeded := registrytest.NewServer(t)
	descriptors, err := registrytest.PushContent(t.Context(), seeded.Store, repo, content)
	qt.Assert(t, qt.IsNil(err))
	d := func(name string) string { return string(descriptors[name].Digest) }
	bytes := func(name string) string { return text(t, seeded.Store, descriptors[name].Digest) }
	none := string(digest.FromString("none"))
	app := "registry.example_5000/" + repo

	for name, r := range registries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handler := r.start(t)
			var journal registrytest.Journal
			upstream := newUpstream(t, journal.Handler(inPages(handler, r.pages)))
			fill(t, seeded.Host, strings.TrimPrefix(upstream.URL, "http://"))

			m, err := mirror.New(&registry.MemStore{}, mirror.Options{Upstreams: []mirror.Upstream{
				{Name: "registry.example:5000", URL: upstream.URL, TTL: -1},
			}})
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { m.Close() })
			client := &http.Client{Transport: registrytest.Transport(m.Handler(registry.New(registry.WithStore(m))))}

			tags := []string{"docker", "latest", "v1", "v2", "v3"}
			if r.noSubject {
				tags = slices.Insert(tags, 2, strings.ReplaceAll(d("index"), ":", "-"))
			}
			found := []exchange{
				{name: "tag", path: app + "/manifests/latest", body: bytes("index"), asked: true},
				{name: "tag, by ns", path: repo + "/manifests/latest?ns=registry.example:5000", body: bytes("index"), asked: true},
				{name: "digest", path: app + "/manifests/" + d("amd64"), body: bytes("amd64")},
				{name: "another platform", path: app + "/manifests/" + d("arm64"), body: bytes("arm64")},
				{name: "Docker's types", path: app + "/manifests/docker", body: bytes("docker"), asked: true},
				{name: "config", path: app + "/blobs/" + d("config"), body: bytes("config")},
				{name: "layer", path: app + "/blobs/" + d("layer"), body: bytes("layer")},
				{name: "range", path: app + "/blobs/" + d("small"), header: "Range: bytes=3-6", status: 206, body: "3456"},
				{name: "tags", path: app + "/tags/list", list: tags, asked: true},
				{name: "pages of tags", path: app + "/tags/list?n=2", list: tags, asked: true},
				{name: "referrers", path: app + "/referrers/" + d("index"), list: []string{d("sbom")}, asked: true},
				{name: "referrers of a type", path: app + "/referrers/" + d("index") + "?artifactType=application/spdx%2Bjson", list: []string{d("sbom")}, asked: true},
				{name: "no referrers", path: app + "/referrers/" + d("amd64"), list: []string{}, asked: true},
				{name: "manifest of a referrer", path: app + "/manifests/" + d("sbom"), body: bytes("sbom")},
				{name: "blob of a referrer", path: app + "/blobs/" + d("bill"), body: bytes("bill")},
			}
			if r.configTypes {
				found = slices.DeleteFunc(found, func(e exchange) bool { return e.name == "referrers of a type" })
			}
			tagsOfMissing := exchange{name: "tags of a missing repository", path: app + "-none/tags/list", status: 404, code: "NAME_UNKNOWN"}
			if r.emptyMissing {
				tagsOfMissing.status, tagsOfMissing.code, tagsOfMissing.list = 200, "", []string{}
			}
			missing := []exchange{
				{name: "missing tag", path: app + "/manifests/none", status: 404, code: "MANIFEST_UNKNOWN"},
				{name: "missing digest", path: app + "/manifests/" + none, status: 404, code: "MANIFEST_UNKNOWN"},
				{name: "missing blob", path: app + "/blobs/" + none, status: 404, code: "BLOB_UNKNOWN"},
				{name: "missing repository", path: app + "-none/manifests/latest", status: 404, code: "MANIFEST_UNKNOWN"},
				tagsOfMissing,
				{name: "another registry", path: repo + "/manifests/latest?ns=other.example", status: 404, code: "NAME_UNKNOWN"},
			}
			never := []exchange{
				{name: "tag", path: app + "/manifests/v3", status: 502, code: "UNAVAILABLE"},
				{name: "digest", path: app + "/manifests/" + string(digest.FromString("never")), status: 502, code: "UNAVAILABLE"},
				{name: "blob", path: app + "/blobs/" + string(digest.FromString("never")), status: 502, code: "UNAVAILABLE"},
				{name: "repository", path: app + "-never/manifests/latest", status: 502, code: "UNAVAILABLE"},
				{name: "tags", path: app + "-never/tags/list", status: 502, code: "UNAVAILABLE"},
				{name: "referrers", path: app + "-never/referrers/" + d("index"), status: 502, code: "UNAVAILABLE"},
			}
			send := func(situation string, stopped bool, all []exchange) {
				t.Helper()
				for _, e := range all {
					t.Run(situation+"/"+e.name, func(t *testing.T) { e.check(t, client, stopped) })
				}
			}
			send("cold", false, slices.Concat(found, missing))
			pulled := pulls(&journal)
			send("warm", false, slices.Concat(found, missing))
			qt.Check(t, qt.Equals(pulls(&journal), pulled), qt.Commentf("%v", &journal))
			qt.Check(t, qt.Equals(succeeded(&journal, registry.OpReferrers), !r.noAPI))
			upstream.Close()
			send("stopped", true, found)
			send("stopped, not pulled before", true, never)
		})
	}
}

// newUpstream starts a server on an address that no other server uses. After it has been
// closed, its port refuses connections: on 127.0.0.1, another server may get it.
func newUpstream(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	qt.Assert(t, qt.IsNil(err))
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// check sends the request of e, and checks the response. The upstream may have stopped.
func (e exchange) check(t *testing.T, client *http.Client, stopped bool) {
	got := []string{}
	for next := "/v2/" + e.path; next != ""; {
		req, err := http.NewRequest(http.MethodGet, "http://mirror.test"+next, nil)
		qt.Assert(t, qt.IsNil(err))
		if name, value, ok := strings.Cut(e.header, ": "); ok {
			req.Header.Set(name, value)
		}
		resp, err := client.Do(req)
		qt.Assert(t, qt.IsNil(err))
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(resp.StatusCode, cmp.Or(e.status, http.StatusOK)), qt.Commentf("%s", body))
		qt.Check(t, qt.Equals(strings.HasPrefix(resp.Header.Get("Warning"), "299 "), stopped && e.asked))
		var doc struct {
			Tags      []string
			Manifests []ocispec.Descriptor
			Errors    []struct{ Code string }
		}
		switch {
		case e.code != "":
			qt.Assert(t, qt.IsNil(json.Unmarshal(body, &doc)))
			qt.Assert(t, qt.HasLen(doc.Errors, 1))
			qt.Check(t, qt.Equals(doc.Errors[0].Code, e.code))
		case e.list != nil:
			qt.Assert(t, qt.IsNil(json.Unmarshal(body, &doc)))
			got = append(got, doc.Tags...)
			for _, m := range doc.Manifests {
				got = append(got, string(m.Digest))
			}
		default:
			qt.Check(t, qt.Equals(string(body), e.body))
		}
		link, _, _ := strings.Cut(resp.Header.Get("Link"), ">")
		next = strings.TrimPrefix(link, "<")
	}
	if e.list != nil {
		qt.Check(t, qt.DeepEquals(got, e.list))
	}
}

// text returns a manifest or a blob of the repository.
func text(t *testing.T, s registry.Store, d digest.Digest) string {
	t.Helper()
	if m, err := s.GetManifest(t.Context(), repo, d); err == nil {
		return string(m.Content)
	}
	blob, err := s.OpenBlob(t.Context(), repo, d)
	qt.Assert(t, qt.IsNil(err))
	defer blob.Close()
	content, err := io.ReadAll(blob)
	qt.Assert(t, qt.IsNil(err))
	return string(content)
}

// fill copies the repository from one host to another, with the referrers.
func fill(t *testing.T, from, to string) {
	t.Helper()
	open := func(host string) *remote.Repository {
		r, err := remote.NewRepository(host + "/" + repo)
		qt.Assert(t, qt.IsNil(err))
		r.PlainHTTP = true
		return r
	}
	for tag := range content.Tags {
		_, err := oras.ExtendedCopy(t.Context(), open(from), tag, open(to), tag, oras.DefaultExtendedCopyOptions)
		qt.Assert(t, qt.IsNil(err))
	}
}

// inPages returns a handler that asks h for two tags at a time, unless the client has asked
// for a number: a registry with more tags than it likes to send at once.
func inPages(h http.Handler, pages bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if query := r.URL.Query(); pages && strings.HasSuffix(r.URL.Path, "/tags/list") && !query.Has("n") {
			query.Set("n", "2")
			r = r.Clone(r.Context())
			r.URL.RawQuery = query.Encode()
		}
		h.ServeHTTP(w, r)
	})
}

// pulls returns the number of manifests and blobs that have been pulled, without those that
// stand for lists of referrers.
func pulls(j *registrytest.Journal) (n int) {
	for _, e := range j.Entries() {
		if (e.Op == registry.OpManifestGet || e.Op == registry.OpBlobGet) && e.Status == http.StatusOK && !strings.HasPrefix(e.Tag, "sha256-") {
			n++
		}
	}
	return n
}

// succeeded reports whether a request for the operation has succeeded.
func succeeded(j *registrytest.Journal, op registry.Op) bool {
	return slices.ContainsFunc(j.Entries(), func(e registrytest.Entry) bool { return e.Op == op && e.Status == http.StatusOK })
}
