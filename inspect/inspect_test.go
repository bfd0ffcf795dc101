// SPDX-License-Identifier: Apache-2.0

package inspect_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/inspect"
)

// page is a registry with its page.
type page struct {
	t       *testing.T
	store   *registry.MemStore
	handler http.Handler
}

func newPage(t *testing.T, o inspect.Options) *page {
	p := &page{t: t, store: new(registry.MemStore)}
	h := registry.New(registry.WithStore(p.store))
	o.Registry = h
	i := inspect.New(p.store, o)
	t.Cleanup(i.Close)
	p.handler = i.Handler(h)
	return p
}

func (p *page) do(method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	return w
}

// get returns the result of a request of the page.
func (p *page) get(path string, result any) {
	p.t.Helper()
	w := p.do("GET", "/inspect/api/"+path)
	qt.Assert(p.t, qt.Equals(w.Code, 200), qt.Commentf("%s: %s", path, w.Body))
	qt.Assert(p.t, qt.IsNil(json.Unmarshal(w.Body.Bytes(), result)))
}

// push pushes a blob or, with a media type, a manifest, and returns its digest.
func (p *page) push(repo, content, mediaType string, tags ...string) digest.Digest {
	p.t.Helper()
	d := digest.FromString(content)
	if mediaType == "" {
		qt.Assert(p.t, qt.IsNil(registry.PushBlob(p.t.Context(), p.store, repo, d, strings.NewReader(content))))
		return d
	}
	_, err := registry.PushManifest(p.t.Context(), p.store, repo, registry.ManifestPush{MediaType: mediaType, Content: []byte(content), Tags: tags})
	qt.Assert(p.t, qt.IsNil(err))
	return d
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

func descriptor(mediaType string, d digest.Digest, size int, more string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, d, size, more)
}

// pushImage pushes an image with a layer, and returns the digest of its manifest.
func (p *page) pushImage(repo, layer string, more string, tags ...string) digest.Digest {
	p.t.Helper()
	config := p.push(repo, `{"architecture":"amd64","os":"linux"}`, "")
	l := p.push(repo, layer, "")
	return p.push(repo, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, manifestType,
		descriptor("application/vnd.oci.image.config.v1+json", config, 37, ""), descriptor("application/vnd.oci.image.layer.v1.tar+gzip", l, len(layer), ""), more), manifestType, tags...)
}

// TestContent reads an index with its platforms, a signature, a manifest without a tag, and
// what the page says of them.
func TestContent(t *testing.T) {
	p := newPage(t, inspect.Options{})
	image := p.pushImage("team/app", "layer", "")
	index := p.push("team/app", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, indexType,
		descriptor(manifestType, image, 400, `,"platform":{"os":"linux","architecture":"arm64","variant":"v8"}`)), indexType, "v1", "latest")
	signature := p.pushImage("team/app", "signed", fmt.Sprintf(`,"artifactType":"application/vnd.example.signature","subject":%s`, descriptor(indexType, index, 300, "")))
	p.pushImage("team/other", "layer", "", "v1")

	type item struct {
		Tag, Artifact string
		Digest        digest.Digest
		Platforms     []string
		Subject       digest.Digest
	}
	var repos struct{ Items []string }
	p.get("repositories", &repos)
	qt.Check(t, qt.DeepEquals(repos.Items, []string{"team/app", "team/other"}))
	p.get("repositories?q=OTHER", &repos)
	qt.Check(t, qt.DeepEquals(repos.Items, []string{"team/other"}))

	var tags struct{ Items []item }
	p.get("repository?repo=team/app", &tags)
	arm := []string{"linux/arm64/v8"}
	qt.Check(t, qt.DeepEquals(tags.Items, []item{{Tag: "latest", Digest: index, Platforms: arm}, {Tag: "v1", Digest: index, Platforms: arm}}))

	var untagged struct{ Items []item }
	p.get("untagged?repo=team/app", &untagged)
	qt.Check(t, qt.DeepEquals(untagged.Items, []item{{Digest: signature, Artifact: "application/vnd.example.signature", Subject: index}}))

	var usage struct{ Blobs, Manifests, Bytes int }
	p.get("usage?repo=team/app", &usage)
	qt.Check(t, qt.Equals(usage.Blobs, 3))
	qt.Check(t, qt.Equals(usage.Manifests, 3))

	type referrer struct{ Digest digest.Digest }
	var m struct {
		Digest    digest.Digest
		Tags      []string
		Missing   []digest.Digest
		Referrers []referrer
		Config    struct{ Text string }
		MayDelete bool
	}
	p.get("manifest?repo=team/app&ref=v1", &m)
	qt.Check(t, qt.Equals(m.Digest, index))
	qt.Check(t, qt.DeepEquals(m.Tags, []string{"latest", "v1"}))
	qt.Check(t, qt.DeepEquals(m.Referrers, []referrer{{signature}}))
	qt.Check(t, qt.HasLen(m.Missing, 0))
	qt.Check(t, qt.IsTrue(m.MayDelete))
	p.get("manifest?repo=team/app&ref="+string(image), &m)
	qt.Check(t, qt.Equals(m.Config.Text, `{"architecture":"amd64","os":"linux"}`))

	qt.Assert(t, qt.IsNil(p.store.DeleteBlob(t.Context(), "team/app", digest.FromString("layer"))))
	p.get("manifest?repo=team/app&ref="+string(image), &m)
	qt.Check(t, qt.DeepEquals(m.Missing, []digest.Digest{digest.FromString("layer")}))

	var shared struct {
		Repos []struct {
			Name          string
			Alone, Shared int
		}
		Blobs []struct{ Repos []int }
	}
	p.get("shared", &shared)
	qt.Assert(t, qt.HasLen(shared.Repos, 2))
	qt.Check(t, qt.Equals(shared.Repos[0].Shared, 37)) // the config
	qt.Check(t, qt.Equals(shared.Repos[1].Alone, len("layer")))
	qt.Check(t, qt.DeepEquals(shared.Blobs[0].Repos, []int{0, 1}))
}

// TestPages reads lists that do not fit into a page.
func TestPages(t *testing.T) {
	p := newPage(t, inspect.Options{})
	for n := range 250 {
		p.push(fmt.Sprintf("repo%03d", n), "{}", "application/vnd.oci.empty.v1+json")
	}
	var tags []string
	for n := range 120 {
		tags = append(tags, fmt.Sprintf("tag%03d", n))
	}
	p.pushImage("repo000", "layer", "", tags...)
	for path, want := range map[string]int{"repositories": 250, "repository?repo=repo000": 120, "repositories?q=repo1": 100} {
		got := 0
		for after := ""; ; {
			var page struct {
				Items []json.RawMessage
				Next  string
			}
			separator := "?"
			if strings.Contains(path, "?") {
				separator = "&"
			}
			p.get(path+separator+"after="+after, &page)
			got += len(page.Items)
			if after = page.Next; after == "" {
				break
			}
		}
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%s", path))
	}
}

// tarOf returns an archive of files with their content.
func tarOf(t *testing.T, files ...string) string {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n := 0; n < len(files); n += 2 {
		qt.Assert(t, qt.IsNil(w.WriteHeader(&tar.Header{Name: files[n], Mode: 0o644, Size: int64(len(files[n+1]))})))
		io.WriteString(w, files[n+1])
	}
	w.Close()
	return b.String()
}

func compressed(t *testing.T, s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, s)
	qt.Assert(t, qt.IsNil(w.Close()))
	return b.String()
}

// TestLayers reads the files of layers: compressed and not, and those that can't be read.
func TestLayers(t *testing.T) {
	p := newPage(t, inspect.Options{Zstd: func(r io.Reader) (io.ReadCloser, error) {
		io.CopyN(io.Discard, r, 4) // as if the rest were not compressed
		return io.NopCloser(r), nil
	}})
	archive := tarOf(t, "etc/passwd", "root:x:0:0", "etc/.wh.shadow", "", "bin/sh", "\x7fELF\x00")
	names := []string{"etc/passwd", "etc/.wh.shadow", "bin/sh"}
	for _, test := range []struct {
		name, layer string
		files       []string
		err         string
	}{
		{"tar", archive, names, ""},
		{"gzip", compressed(t, archive), names, ""},
		{"zstd", "\x28\xb5\x2f\xfd" + archive, names, ""},
		{"cut", archive[:1100], []string{"etc/passwd"}, "file 2: unexpected EOF"},
		{"no archive", strings.Repeat("no archive ", 100), nil, "file 1: archive/tar: invalid tar header"},
		{"empty", "", nil, ""},
		{"half a gzip header", "\x1f\x8b", nil, "unexpected EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := p.push("app", test.layer, "")
			var layer struct {
				Items []struct{ Name string }
				Error string
			}
			p.get("layer?repo=app&digest="+string(d), &layer)
			var got []string
			for _, f := range layer.Items {
				got = append(got, f.Name)
			}
			qt.Check(t, qt.DeepEquals(got, test.files))
			qt.Check(t, qt.Equals(layer.Error, test.err))
		})
	}
	var text struct {
		Text   string
		Binary bool
	}
	d := p.push("app", compressed(t, archive), "")
	p.get("file?repo=app&number=1&digest="+string(d), &text)
	qt.Check(t, qt.Equals(text.Text, "root:x:0:0"))
	p.get("file?repo=app&number=3&digest="+string(d), &text)
	qt.Check(t, qt.IsTrue(text.Binary))
	qt.Check(t, qt.Equals(p.do("GET", "/inspect/api/file?repo=app&number=4&digest="+string(d)).Code, 404))
}

// TestErrors sends requests that the page would not send.
func TestErrors(t *testing.T) {
	p := newPage(t, inspect.Options{})
	p.pushImage("app", "layer", "", "v1")
	none := string(digest.FromString("none"))
	for _, test := range []struct {
		method, path string
		status       int
		text         string
	}{
		{"GET", "repository?repo=none", 404, "repository name not known to registry"},
		{"GET", "repository?repo=UPPER", 400, "invalid repository name"},
		{"GET", "repository?repo=app/tags/list%3fx", 400, "invalid repository name"},
		{"GET", "repository", 400, "invalid repository name"},
		{"GET", "manifest?repo=app&ref=none", 404, "manifest unknown to registry"},
		{"GET", "manifest?repo=app&ref=" + none, 404, "manifest unknown to registry"},
		{"GET", "manifest?repo=app&ref=..", 404, ""},
		{"GET", "manifest?repo=app&ref=../../../_catalog", 404, "page not found"},
		{"GET", "layer?repo=app&digest=" + none, 404, "blob unknown to registry"},
		{"GET", "layer?repo=app&digest=x", 400, ""},
		{"GET", "file?repo=app&digest=" + none + "&number=x", 400, "number is not the number of a file"},
		{"GET", "requests?id=99", 404, "the request is not among the last ones anymore"},
		{"GET", "none", 404, ""},
		{"POST", "manifest?repo=app&ref=v1", 405, ""},
		{"DELETE", "manifest?repo=app&ref=none", 404, "manifest unknown to registry"},
	} {
		w := p.do(test.method, "/inspect/api/"+test.path)
		qt.Check(t, qt.Equals(w.Code, test.status), qt.Commentf("%s: %s", test.path, w.Body))
		qt.Check(t, qt.StringContains(w.Body.String(), test.text))
	}
	qt.Check(t, qt.Equals(p.do("DELETE", "/inspect/api/manifest?repo=app&ref=v1").Code, 202))
	qt.Check(t, qt.Equals(p.do("GET", "/v2/app/manifests/v1").Code, 404))
}

// TestStream follows the records from their start, and from a record.
func TestStream(t *testing.T) {
	p := newPage(t, inspect.Options{})
	server := httptest.NewServer(p.handler)
	defer server.Close()
	p.do("GET", "/v2/")
	p.do("GET", "/v2/app/tags/list?n=3&token=secret", "Authorization", "Bearer secret")
	type record struct {
		ID          int
		Op, URI     string
		Status      int
		Code, Error string
	}
	first := record{ID: 1, Op: "ping", URI: "/v2/", Status: 200}
	second := record{ID: 2, Op: "tags", URI: "/v2/app/tags/list?n=3&token=%28hidden%29", Status: 404, Code: "NAME_UNKNOWN", Error: "repository name not known to registry"}
	follow := func(after string) (id string, records []record) {
		resp, err := http.Get(server.URL + "/inspect/events?after=" + after)
		qt.Assert(t, qt.IsNil(err))
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		qt.Assert(t, qt.IsTrue(lines.Scan()))
		id = strings.TrimPrefix(lines.Text(), "id: ")
		qt.Assert(t, qt.IsTrue(lines.Scan()))
		var message struct{ Records []record }
		qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &message)))
		return id, message.Records
	}
	id, records := follow("")
	qt.Check(t, qt.DeepEquals(records, []record{first, second}))
	process, _, _ := strings.Cut(id, "-")
	for after, want := range map[string][]record{
		process + "-0": {first, second}, process + "-1": {second}, id: {}, "another-1": {first, second}, "x": {first, second},
	} {
		_, records := follow(after)
		qt.Check(t, qt.DeepEquals(records, want), qt.Commentf("after %s", after))
	}
	var all []struct {
		Request http.Header
	}
	p.get("requests?id=2", &all)
	qt.Assert(t, qt.HasLen(all, 1))
	qt.Check(t, qt.DeepEquals(all[0].Request["Authorization"], []string{"Bearer (hidden)"}))
}

// TestFindings records a client that violates the spec.
func TestFindings(t *testing.T) {
	p := newPage(t, inspect.Options{})
	p.pushImage("app", "layer", "", "v1")
	p.do("GET", "/v2/app/manifests/v1", "Accept", manifestType)
	p.do("GET", "/v2/app/manifests/v1")
	var found []struct {
		ID      int
		Section string
	}
	p.get("findings", &found)
	qt.Assert(t, qt.HasLen(found, 1))
	qt.Check(t, qt.Equals(found[0].ID, 2))
	qt.Check(t, qt.Equals(found[0].Section, `"Pulling manifests"`))
}

// TestRoot requests / as a browser and as other clients.
func TestRoot(t *testing.T) {
	p := newPage(t, inspect.Options{})
	for _, test := range []struct {
		path, accept string
		status       int
	}{
		{"/", "text/html,*/*", 303},
		{"/", "application/json", 404},
		{"/", "", 404},
		{"/inspect", "", 303},
		{"/inspect/", "", 200},
		{"/inspect/none", "", 404},
		{"/inspector", "", 404},
		{"/v2/", "text/html", 200},
	} {
		w := p.do("GET", test.path, "Accept", test.accept)
		qt.Check(t, qt.Equals(w.Code, test.status), qt.Commentf("%s %s", test.path, test.accept))
	}
}
