// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// TestPushOfUpstreams pushes an image as clients do: they do not push blobs that a HEAD has
// found, which may be the upstream's. What was pushed does not need the upstream anymore.
func TestPushOfUpstreams(t *testing.T) {
	for _, test := range []struct {
		name, repo string
		maxBytes   int64
		unplug     bool // before the manifest is pushed
		want       int
	}{
		{name: "by its name", repo: "docker.io/mine/app", want: 201},
		{name: "with little space", repo: "docker.io/mine/app", maxBytes: 150_000, want: 201},
		{name: "with no space", repo: "docker.io/mine/app", maxBytes: 1, want: 201},
		{name: "by the default", repo: "mine/app", want: 201},
		{name: "without the upstream", repo: "docker.io/mine/app", unplug: true, want: 404},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				_, err := registrytest.PushRandomImage(t.Context(), o.store, "mine/app", "1", 1, 3, 100_000)
				qt.Assert(t, qt.IsNil(err))
				image, err := o.store.GetTag(t.Context(), "mine/app", "1")
				qt.Assert(t, qt.IsNil(err))
				manifest, err := registry.ParseManifest(image.MediaType, image.Content)
				qt.Assert(t, qt.IsNil(err))
				c := newClient(t, o, &registry.MemStore{}, func(opts *mirror.Options) {
					opts.MaxBytes, opts.Default = test.maxBytes, "docker.io"
				})
				path := "/v2/" + test.repo
				qt.Assert(t, qt.Equals(c.get(path+"/manifests/1").status, 200))
				for _, d := range manifest.Blobs {
					qt.Assert(t, qt.Equals(c.do(http.MethodHead, path+"/blobs/"+string(d), "", "").status, 200))
				}
				if test.unplug {
					o.stop()
				}
				put := c.do(http.MethodPut, path+"/manifests/mine", "Content-Type: "+image.MediaType, string(image.Content))
				qt.Assert(t, qt.Equals(put.status, test.want), qt.Commentf("%s", put.body))
				if test.want != 201 {
					return
				}
				synctest.Wait()
				o.stop()
				qt.Check(t, qt.Equals(c.get(path+"/manifests/mine").status, 200))
				for _, d := range manifest.Blobs {
					qt.Check(t, qt.Equals(c.get(path+"/blobs/"+string(d)).status, 200))
				}
			})
		})
	}
}
