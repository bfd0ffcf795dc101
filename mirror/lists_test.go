// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
)

// TestHostileLists has lists that are not what clients may get.
func TestHostileLists(t *testing.T) {
	d := `"digest":"sha256:` + strings.Repeat("1", 64) + `"`
	for _, test := range []struct {
		path string
		list string // of the upstream
		want string // in the response; a code for those without a list
	}{
		{"tags/list", `{"tags":["a\u0000b","ok","\n","a b","` + strings.Repeat("x", 129) + `"]}`, `"tags":["ok"]`},
		{"tags/list", `{"tags":["b","a","a"]}`, `"tags":["a","b"]`},
		{"tags/list", `{"tags":null}`, `"tags":[]`},
		{"tags/list", `[]`, "UNAVAILABLE"},
		{"tags/list", ``, "UNAVAILABLE"},
		{"tags/list", strings.Repeat("[", 100_000), "UNAVAILABLE"},
		{"referrers/", `{"manifests":[{` + d + `},{` + d + `,"size":1}]}`, `"manifests":[{` + d + `}]`},
		{"referrers/", `{"manifests":[{` + d + `,"digest":"sha256:x"},null]}`, `"manifests":[]`},
		{"referrers/", `{"manifests":[{` + d + `,"annotations":{"a":"` + "\xff" + `"}}]}`, `"manifests":[]`},
		{"referrers/", `{"manifests":["x"]}`, "UNAVAILABLE"},
	} {
		o := newOrigin()
		o.set(fails(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, test.list) }))
		c := newClient(t, o, &registry.MemStore{}, nil)
		path := test.path
		if path == "referrers/" {
			path += "sha256:" + strings.Repeat("2", 64)
		}
		got := c.get("/v2/docker.io/app/" + path)
		qt.Check(t, qt.StringContains(got.body, test.want), qt.Commentf("%.100s", test.list))
		qt.Check(t, qt.IsTrue(json.Valid([]byte(got.body)) && utf8.ValidString(got.body)))
	}
}

// TestLongLists reads lists of 3 MiB: a few of them are kept.
func TestLongLists(t *testing.T) {
	doc := `{"tags":["tag"]` + strings.Repeat(" ", 3<<20) + `}`
	o := newOrigin()
	o.set(fails(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, doc) }))
	c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) { opts.Upstreams[0].TTL = time.Hour })
	get := func(i, calls int) {
		t.Helper()
		before := o.calls()
		got := c.get(fmt.Sprintf("/v2/docker.io/app/%d/tags/list?n=1", i))
		qt.Check(t, qt.StringContains(got.body, `["tag"]`))
		qt.Check(t, qt.Equals(o.calls()-before, calls))
	}
	for i := range 7 {
		get(i, 1)
	}
	for i := range 5 {
		get(6-i, 0)
	}
	get(0, 1)
	get(2, 0) // which was used last
}

// TestManyDocuments asks for many manifests and lists at once: the upstream gets a bounded
// number of requests at the same time, since all the responses are in memory.
func TestManyDocuments(t *testing.T) {
	for _, path := range []string{"manifests/%d", "tags/list?last=%d", "referrers/sha256:%064d"} {
		synctest.Test(t, func(t *testing.T) {
			o := newOrigin()
			var running, most atomic.Int64
			o.set(fails(func(w http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), running.Add(1)))
				time.Sleep(time.Second)
				running.Add(-1)
				w.WriteHeader(404)
			}))
			c := newClient(t, o, &registry.MemStore{}, nil)
			var wg sync.WaitGroup
			for i := range 200 {
				wg.Go(func() { c.get(fmt.Sprintf("/v2/docker.io/app/%d/"+path, i, i)) })
			}
			wg.Wait()
			qt.Check(t, qt.Equals(most.Load(), 32))
		})
	}
}
