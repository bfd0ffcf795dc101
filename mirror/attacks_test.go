// SPDX-License-Identifier: Apache-2.0

// Tests of what was found by attacks on mirrors.

package mirror_test

import (
	"net/http"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
)

const (
	indexType  = "Content-Type: application/vnd.oci.image.index.v1+json"
	emptyIndex = `{"schemaVersion":2,"manifests":[]}`
)

// TestCatalog lists repositories before and after the names of fetched content, each once.
func TestCatalog(t *testing.T) {
	for _, fetched := range []bool{false, true} {
		o := newOrigin()
		o.push(t, "library/nginx", "1", "a layer")
		c := newClient(t, o, &registry.MemStore{}, nil)
		theirs := ""
		if fetched {
			qt.Assert(t, qt.Equals(c.get("/v2/docker.io/nginx/manifests/1").status, 200))
			theirs = `"docker.io/library/nginx",`
		}
		for _, name := range []string{"app", "mirror.cache", "mirror.cache0", "nginx", "zoo"} {
			qt.Assert(t, qt.Equals(c.do(http.MethodPut, "/v2/"+name+"/manifests/1", indexType, emptyIndex).status, 201))
		}
		for query, want := range map[string]string{
			"":                     `"app",` + theirs + `"mirror.cache","mirror.cache0","nginx","zoo"`,
			"?last=b":              theirs + `"mirror.cache","mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache":   `"mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache/x": `"mirror.cache0","nginx","zoo"`,
			"?last=mirror.cache0":  `"nginx","zoo"`,
			"?last=n":              `"nginx","zoo"`,
			"?n=2&last=m":          `"mirror.cache","mirror.cache0"`,
			"?last=zoo":            ``,
		} {
			qt.Check(t, qt.Equals(c.get("/v2/_catalog"+query).body, `{"repositories":[`+want+`]}`), qt.Commentf("%s", query))
		}
	}
}
