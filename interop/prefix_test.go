// SPDX-License-Identifier: Apache-2.0

// A registry behind a reverse proxy that serves it below a path prefix.

package interop

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/berth-oci/registry"
)

// TestPrefix pushes and pulls with crane through a proxy that serves several
// registries below prefixes: the images of ours are named HOST/team/NAME, and the
// proxy passes on /v2/team/NAME/… as /v2/NAME/…, and /team/… as it comes. The
// Locations in responses must lead back through the proxy.
func TestPrefix(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/team/", http.StripPrefix("/team", registry.New(registry.WithPrefix("/team"))))
	backend := httptest.NewServer(mux)
	defer backend.Close()
	target, err := url.Parse(backend.URL)
	qt.Assert(t, qt.IsNil(err))
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		path := r.In.URL.Path
		switch name, ok := strings.CutPrefix(path, "/v2/team/"); {
		case ok:
			path = "/team/v2/" + name
		case path == "/v2/":
			path = "/team/v2/"
		}
		r.Out.URL.Path = path
	}})
	defer front.Close()

	ref := strings.TrimPrefix(front.URL, "http://") + "/team/app:v1"
	img, err := random.Image(50_000, 3)
	qt.Assert(t, qt.IsNil(err))
	want, err := img.Digest()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(crane.Push(img, ref)))
	got, err := crane.Digest(ref)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, want.String()))
	pulled, err := crane.Pull(ref)
	qt.Assert(t, qt.IsNil(err))
	layers, err := pulled.Layers()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(layers, 3))
	for _, l := range layers {
		r, err := l.Compressed()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(r.Close()))
	}
	qt.Check(t, qt.IsNil(crane.Tag(ref, "v2")))
}
