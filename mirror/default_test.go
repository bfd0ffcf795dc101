// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
)

// TestDefault pushes to a repository that the default upstream does not have, with the
// requests of containerd, BuildKit, crane and cosign: they look for manifests first. That
// does not depend on the upstream.
func TestDefault(t *testing.T) {
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	d := string(digest.FromString(manifest))
	exchanges := []struct {
		method, path, header, body string

		want int
	}{
		{"HEAD", "/v2/own/app/manifests/1", "", "", 404},
		{"HEAD", "/v2/own/app/manifests/" + d, "", "", 404},
		{"HEAD", "/v2/own/app/blobs/" + d, "", "", 404},
		{"PUT", "/v2/own/app/manifests/1", "Content-Type: application/vnd.oci.image.index.v1+json", manifest, 201},
		{"HEAD", "/v2/own/app/manifests/1", "", "", 200},
		{"GET", "/v2/own/app/manifests/" + d, "", "", 200},
		{"HEAD", "/v2/own/app/manifests/2", "", "", 404},
		{"GET", "/v2/own/app/manifests/sha256-0.sig", "", "", 404},
		{"GET", "/v2/own/app/tags/list", "", "", 200},
		{"GET", "/v2/own/app/referrers/" + d, "", "", 200},
	}
	for name, fault := range map[string]func(http.Handler) http.Handler{
		"works":       nil,
		"unreachable": nil,
		"no response": fails(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		"401":         status(401, ""),
		"private":     status(401, ""),
		"429":         status(429, "Retry-After: 30"),
		"500":         status(500, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
					opts.Default, opts.Upstreams[0].Private = "docker.io", name == "private"
				})
				o.set(fault)
				if name == "unreachable" {
					o.stop()
				}
				for _, e := range exchanges {
					got := c.do(e.method, e.path, e.header, e.body)
					qt.Check(t, qt.Equals(got.status, e.want), qt.Commentf("%s %s: %s", e.method, e.path, got.body))
				}
			})
		})
	}
}
