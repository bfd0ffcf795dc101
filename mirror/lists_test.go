// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
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
