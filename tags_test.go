// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

var nextLink = regexp.MustCompile(`^<([^>]*)>; rel="next"$`)

// follow gets a list page by page, from url to the end, and calls page after
// each. It returns the names of all pages.
func follow(t *testing.T, h http.Handler, url string, page func(names []string)) (all []string) {
	t.Helper()
	for url != "" {
		w := call{url: url, status: 200}.do(t, h)
		var doc struct {
			Tags, Repositories []string
			Manifests          []struct{ Digest string }
		}
		qt.Assert(t, qt.IsNil(json.Unmarshal(w.Body.Bytes(), &doc)))
		names := append(doc.Tags, doc.Repositories...)
		for _, m := range doc.Manifests {
			names = append(names, m.Digest)
		}
		all = append(all, names...)
		if page != nil {
			page(names)
		}
		url = ""
		if link := w.Header().Get("Link"); link != "" {
			m := nextLink.FindStringSubmatch(link)
			qt.Assert(t, qt.IsNotNil(m), qt.Commentf("%s", link))
			qt.Assert(t, qt.IsTrue(strings.HasPrefix(m[1], "/v2/")))
			url = m[1]
		}
	}
	return all
}

func TestTagList(t *testing.T) {
	h := registry.New()
	for _, tag := range []string{"b", "B", "a", "_x", "10", "9", "a.b", "a-b"} {
		pushManifest("repo", tag, "text/plain", "m").do(t, h)
	}
	all := []string{"10", "9", "B", "_x", "a", "a-b", "a.b", "b"} // byte order
	list := func(query string, next string, tags ...string) call {
		body, _ := json.Marshal(append([]string{}, tags...))
		c := call{url: "/v2/repo/tags/list" + query, status: 200, wantBody: `{"name":"repo","tags":` + string(body) + `}`, wantHeader: map[string]string{"Link": "", "Content-Type": "application/json"}}
		if next != "" {
			c.wantHeader["Link"] = "</v2/repo/tags/list?" + next + `>; rel="next"`
		}
		return c
	}
	run(t, h, []call{
		list("", "", all...),
		list("?n=100", "", all...),
		list("?n=8", "", all...),
		list("?n=99999999999999999999999999", "", all...),
		list("?n=3", "last=B&n=3", all[:3]...),
		list("?n=3&last=B", "last=a-b&n=3", all[3:6]...),
		list("?n=3&last=a-b", "", all[6:]...),
		list("?last=a", "", all[5:]...),
		list("?last=a%00", "", all[5:]...),
		list("?last=b", ""),
		list("?last=zzz", ""),
		list("?n=0", ""),
		list("?n=0&last=a", ""),
		list("?n=1&ns=docker.io", "last=10&n=1&ns=docker.io", "10"),
		{url: "/v2/repo/tags/list?n=-1", status: 400, wantCode: "UNSUPPORTED"},
		{url: "/v2/repo/tags/list?n=x", status: 400, wantCode: "UNSUPPORTED"},
		{url: "/v2/repo/tags/list?n=", status: 400, wantCode: "UNSUPPORTED"},
		{url: "/v2/repo/tags/list?n=1;", status: 400, wantCode: "UNSUPPORTED"},
		{url: "/v2/unknown/tags/list?n=0", status: 404, wantCode: "NAME_UNKNOWN"},
		pushBlob("untagged", "x"),
		{url: "/v2/untagged/tags/list", status: 200, wantBody: `{"name":"untagged","tags":[]}`},
	})
	for n := 1; n <= len(all)+1; n++ {
		qt.Check(t, qt.DeepEquals(follow(t, h, fmt.Sprintf("/v2/repo/tags/list?n=%d", n), nil), all))
	}
}

func TestCatalog(t *testing.T) {
	h := registry.New(registry.WithLimits(registry.Limits{PageNames: 2}))
	call{url: "/v2/_catalog", status: 200, wantBody: `{"repositories":[]}`}.do(t, h)
	all := []string{"a", "a-b/c", "a/b", "a0", "z"}
	for _, repo := range all {
		pushBlob(repo, "x").do(t, h)
	}
	qt.Check(t, qt.DeepEquals(follow(t, h, "/v2/_catalog", nil), all))
	qt.Check(t, qt.DeepEquals(follow(t, h, "/v2/_catalog?n=1", nil), all))
	run(t, h, []call{
		{url: "/v2/_catalog?n=100", status: 200, wantBody: `{"repositories":["a","a-b/c"]}`, wantHeader: map[string]string{"Link": `</v2/_catalog?last=a-b%2Fc&n=100>; rel="next"`}},
		{url: "/v2/_catalog?n=0", status: 200, wantBody: `{"repositories":[]}`, wantHeader: map[string]string{"Link": ""}},
		{url: "/v2/_catalog?n=q", status: 400},
	})
}

// TestListWhileNamesChange pages through a list while names are added and deleted,
// and checks that names that exist throughout are listed exactly once.
func TestListWhileNamesChange(t *testing.T) {
	h := registry.New()
	var stay []string
	for i := range 50 {
		tag := fmt.Sprintf("stay%03d", i)
		stay = append(stay, tag)
		pushManifest("a", tag, "text/plain", "m").do(t, h)
	}
	n := 0
	all := follow(t, h, "/v2/a/tags/list?n=7", func(names []string) {
		n++
		last := names[len(names)-1]
		pushManifest("a", last+"-added", "text/plain", "m").do(t, h)
		pushManifest("a", "a-before"+url.PathEscape(fmt.Sprint(n)), "text/plain", "m").do(t, h)
		call{method: "DELETE", url: "/v2/a/manifests/" + last + "-added", status: 202}.do(t, h)
		pushManifest("a", last+"-added2", "text/plain", "m").do(t, h)
	})
	qt.Check(t, qt.IsTrue(slices.IsSorted(all)))
	qt.Check(t, qt.Equals(len(slices.Compact(slices.Clone(all))), len(all)))
	got := slices.DeleteFunc(all, func(name string) bool { return strings.Contains(name, "-") })
	qt.Check(t, qt.DeepEquals(got, stay))
}
