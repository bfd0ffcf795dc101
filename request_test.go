// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

var testDigest = digest.FromString("x")

// routes are requests with their parsed form, and the URI that RequestURI returns
// for it, unless that is the same.
var routes = []struct {
	method, url string
	want        Request
	canonical   string
}{
	{"GET", "/v2/", Request{Op: OpPing, N: -1}, ""},
	{"HEAD", "/v2", Request{Op: OpPing, N: -1}, "/v2/"},
	{"GET", "/v2/a/blobs/" + string(testDigest), Request{Op: OpBlobGet, Repo: "a", Digest: testDigest, N: -1}, ""},
	{"HEAD", "/v2/a/b/c/blobs/" + string(testDigest), Request{Op: OpBlobHead, Repo: "a/b/c", Digest: testDigest, N: -1}, ""},
	{"DELETE", "/v2/a/blobs/sha256%3A" + testDigest.Encoded(), Request{Op: OpBlobDelete, Repo: "a", Digest: testDigest, N: -1}, "/v2/a/blobs/" + string(testDigest)},
	{"POST", "/v2/a/blobs/uploads/", Request{Op: OpUploadStart, Repo: "a", N: -1}, ""},
	{"POST", "/v2/a/blobs/uploads", Request{Op: OpUploadStart, Repo: "a", N: -1}, "/v2/a/blobs/uploads/"},
	{"POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", Request{Op: OpUploadStart, Repo: "a", Algorithm: digest.SHA512, N: -1}, ""},
	{"POST", "/v2/a/blobs/uploads/?digest=" + url.QueryEscape(string(testDigest)), Request{Op: OpBlobPush, Repo: "a", Digest: testDigest, N: -1}, ""},
	{"POST", "/v2/a/blobs/uploads/?from=b%2Fc&mount=" + url.QueryEscape(string(testDigest)), Request{Op: OpBlobMount, Repo: "a", From: "b/c", Digest: testDigest, N: -1}, ""},
	{"PATCH", "/v2/a/blobs/uploads/id", Request{Op: OpUploadPatch, Repo: "a", UploadID: "id", N: -1}, ""},
	{"PUT", "/v2/a/blobs/uploads/id?digest=" + url.QueryEscape(string(testDigest)), Request{Op: OpUploadPut, Repo: "a", UploadID: "id", Digest: testDigest, N: -1}, ""},
	{"PUT", "/v2/a/blobs/uploads/id?digest=x", Request{Op: OpUploadPut, Repo: "a", UploadID: "id", Digest: "x", N: -1}, ""},
	{"GET", "/v2/a/blobs/uploads/id", Request{Op: OpUploadStatus, Repo: "a", UploadID: "id", N: -1}, ""},
	{"DELETE", "/v2/a/blobs/uploads/id", Request{Op: OpUploadCancel, Repo: "a", UploadID: "id", N: -1}, ""},
	{"GET", "/v2/a/manifests/v1", Request{Op: OpManifestGet, Repo: "a", Tag: "v1", N: -1}, ""},
	{"HEAD", "/v2/a/manifests/" + string(testDigest), Request{Op: OpManifestHead, Repo: "a", Digest: testDigest, N: -1}, ""},
	{"PUT", "/v2/a/manifests/v1?tag=ignored", Request{Op: OpManifestPut, Repo: "a", Tag: "v1", N: -1}, "/v2/a/manifests/v1"},
	{"PUT", "/v2/a/manifests/" + string(testDigest) + "?tag=1&tag=2", Request{Op: OpManifestPut, Repo: "a", Digest: testDigest, Tags: []string{"1", "2"}, N: -1}, ""},
	{"DELETE", "/v2/a/manifests/list", Request{Op: OpManifestDelete, Repo: "a", Tag: "list", N: -1}, ""},
	{"GET", "/v2/a/tags/list", Request{Op: OpTags, Repo: "a", N: -1}, ""},
	{"GET", "/v2/a/tags/list?last=v%261&n=10&ns=docker.io", Request{Op: OpTags, Repo: "a", N: 10, Last: "v&1", Namespace: "docker.io"}, ""},
	{"GET", "/v2/a/referrers/" + string(testDigest) + "?artifactType=x%2Fy", Request{Op: OpReferrers, Repo: "a", Digest: testDigest, ArtifactTypes: []string{"x/y"}, N: -1}, ""},
	{"GET", "/v2/_catalog?last=a&n=1", Request{Op: OpCatalog, N: 1, Last: "a"}, ""},

	// Names may contain the words of paths.
	{"GET", "/v2/blobs/uploads/manifests/v1", Request{Op: OpManifestGet, Repo: "blobs/uploads", Tag: "v1", N: -1}, ""},
	{"GET", "/v2/tags/list/tags/list", Request{Op: OpTags, Repo: "tags/list", N: -1}, ""},
	{"GET", "/v2/a/manifests/blobs/uploads/id", Request{Op: OpUploadStatus, Repo: "a/manifests", UploadID: "id", N: -1}, ""},
	{"GET", "/v2/uploads/manifests/uploads", Request{Op: OpManifestGet, Repo: "uploads", Tag: "uploads", N: -1}, ""},
}

func TestParseRequest(t *testing.T) {
	for _, c := range routes {
		r, err := http.NewRequest(c.method, c.url, nil)
		qt.Assert(t, qt.IsNil(err))
		req, err := ParseRequest(r)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %s", c.method, c.url))
		qt.Check(t, qt.DeepEquals(req, c.want), qt.Commentf("%s %s", c.method, c.url))
		if c.canonical == "" {
			c.canonical = c.url
		}
		qt.Check(t, qt.Equals(req.RequestURI(), c.canonical))
	}
}

func TestParseRequestErrors(t *testing.T) {
	d := string(testDigest)
	for _, c := range []struct {
		method, url string
		status      int
		code        string
	}{
		{"GET", "/", 404, "UNSUPPORTED"},
		{"GET", "/v3/", 404, "UNSUPPORTED"},
		{"GET", "/v2//", 404, "UNSUPPORTED"},
		{"GET", "/v2/a", 404, "UNSUPPORTED"},
		{"GET", "/v2/a/tags", 404, "UNSUPPORTED"},
		{"GET", "/v2/a/tags/list/", 404, "UNSUPPORTED"},
		{"GET", "/v2/tags/list", 404, "UNSUPPORTED"},
		{"GET", "/v2/a/blobs/" + d + "/", 404, "UNSUPPORTED"},
		{"GET", "/v2/a%2Fb/blobs/" + d, 404, "UNSUPPORTED"},
		{"GET", "/v2/a/uploads/id", 404, "UNSUPPORTED"},
		{"GET", "/v2//blobs/" + d, 400, "NAME_INVALID"},
		{"GET", "/v2/a//b/blobs/" + d, 400, "NAME_INVALID"},
		{"GET", "/v2/../a/blobs/" + d, 400, "NAME_INVALID"},
		{"GET", "/v2/A/blobs/" + d, 400, "NAME_INVALID"},
		{"GET", "/v2/a%00/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/a%0d%0aX:y/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/tags/list", 400, "NAME_INVALID"},
		{"GET", "/v2/a/blobs/sha256:" + strings.ToUpper(testDigest.Encoded()), 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/sha256:" + testDigest.Encoded()[1:], 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/sha256:", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/:", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/blobs/", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/manifests/", 404, "MANIFEST_UNKNOWN"},
		{"PUT", "/v2/a/manifests/", 400, "NAME_INVALID"},
		{"GET", "/v2/a/manifests/sha256:x", 400, "DIGEST_INVALID"},
		{"GET", "/v2/a/tags/list?n=%zz", 400, "UNSUPPORTED"},
		{"PUT", "/v2/_catalog", 405, "UNSUPPORTED"},
	} {
		r, err := http.NewRequest(c.method, c.url, nil)
		qt.Assert(t, qt.IsNil(err))
		_, err = ParseRequest(r)
		e, _ := clientErrors(err)
		qt.Check(t, qt.Equals(e.Status, c.status), qt.Commentf("%s %s: %v", c.method, c.url, err))
		qt.Check(t, qt.Equals(e.Code, c.code), qt.Commentf("%s %s: %v", c.method, c.url, err))
	}
}

// The spec's own regular expressions (section "Pulling manifests").
var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// FuzzPath checks names, tags and digests against their definitions, and that the
// RequestURI of a parsed request can be parsed again.
func FuzzPath(f *testing.F) {
	for _, c := range routes {
		path, query, _ := strings.Cut(c.url, "?")
		f.Add(c.method, path, query)
	}
	for _, s := range []string{"a--b", "a__b", "a___b", "a..b", "a._b", "-a", "a-", "a/", "/a", "a_-b", ".", "..", "é"} {
		f.Add("PUT", "/v2/"+s+"/manifests/"+s, "n="+s+"&last="+s)
	}
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}}
		req, err := ParseRequest(r)
		if err != nil {
			if e, _ := clientErrors(err); e.Status < 400 || e.Status > 499 {
				t.Fatalf("%v: %d", err, e.Status)
			}
			return
		}
		switch req.Op {
		case OpPing, OpCatalog:
		default:
			if !specName.MatchString(req.Repo) {
				t.Fatalf("name %q", req.Repo)
			}
		}
		if req.Tag != "" && !specTag.MatchString(req.Tag) {
			t.Fatalf("tag %q", req.Tag)
		}
		if req.Digest != "" && req.Op != OpUploadPut && req.Digest.Validate() != nil {
			t.Fatalf("digest %q", req.Digest)
		}
		again, err := http.NewRequest(method, req.RequestURI(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseRequest(again)
		if err != nil {
			t.Fatalf("%s: %v", req.RequestURI(), err)
		}
		if got.RequestURI() != req.RequestURI() || got.Op != req.Op {
			t.Fatalf("%+v became %+v", req, got)
		}
	})
}

// TestGrammar checks names and tags at the edges of their grammar.
func TestGrammar(t *testing.T) {
	for _, c := range []struct {
		s         string
		name, tag bool
	}{
		{"", false, false},
		{"a", true, true}, {"z", true, true}, {"0", true, true}, {"9", true, true},
		{"A", false, true}, {"Z", false, true}, {"_", false, true},
		{"`", false, false}, {"{", false, false}, {"/", false, false}, {":", false, false}, {"@", false, false}, {"[", false, false},
		{"a-", false, true}, {"a.", false, true}, {"a_", false, true}, {"-a", false, false}, {".a", false, false},
		{strings.Repeat("a", 128), true, true}, {strings.Repeat("a", 129), true, false},
		{strings.Repeat("a", 255), true, false}, {strings.Repeat("a", 256), false, false},
	} {
		qt.Check(t, qt.Equals(validName(c.s), c.name), qt.Commentf("name %q", c.s))
		qt.Check(t, qt.Equals(validTag(c.s), c.tag), qt.Commentf("tag %q", c.s))
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"", "a", "a/b", "a--b", "a---b", "a__b", "a___b", "a..b", "a._b", "-a", "a-", "a//b", "a/", "/a", "a_-b", "a/-b", "a.b_c__d-e/f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := validName(s), specName.MatchString(s) && len(s) <= maxName; got != want {
			t.Errorf("validName(%q) = %v", s, got)
		}
		if got, want := validTag(s), specTag.MatchString(s) && !strings.Contains(s, "\n"); got != want {
			t.Errorf("validTag(%q) = %v", s, got)
		}
		if got, want := checkDigest(digest.Digest(s)) == nil, digest.Digest(s).Validate() == nil; got != want {
			t.Errorf("checkDigest(%q) = %v", s, got)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"", "0-0", "0-2", "3-2", "-", "1-", "-1", "bytes 0-1/2", "0-9223372036854775807", "00-01", "0-18446744073709551616", "+1-2", "1--2", " 1-2"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^[0-9]+-[0-9]+$`)
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseContentRange([]string{s})
		switch {
		case err != nil || s == "":
			if c != nil {
				t.Fatal("a range and an error")
			}
		case !form.MatchString(s):
			t.Fatalf("%q does not have the spec's form", s)
		case c.start < 0 || c.length < 0 || c.start+c.length < c.start:
			t.Fatalf("%q: %+v", s, *c)
		}
	})
}
