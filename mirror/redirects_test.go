// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/go-quicktest/qt"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// TestRedirectsWithoutCredentials has an upstream redirect twice: no other host, or port of
// the same host, gets the credentials.
func TestRedirectsWithoutCredentials(t *testing.T) {
	const upstream = "registry.example"
	for _, hosts := range [][]string{
		{"storage.example"},
		{"storage.example", "storage.example"},
		{"cdn.registry.example"},
		{"cdn.registry.example", "cdn.registry.example"},
		{"registry.example:8443", "registry.example:8443"},
		{"storage.example", "registry.example:8443"},
		{"cdn.registry.example", "registry.example:8443", "cdn.registry.example"},
	} {
		o := newOrigin()
		_, blob := o.push(t, "library/app", "1", "a layer")
		var got []string
		transport := registrytest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == upstream && r.Header.Get("Authorization") == "" {
				w.Header().Set("WWW-Authenticate", "Basic")
				w.WriteHeader(401)
				return
			}
			if r.Host != upstream {
				got = append(got, r.Header.Get("Authorization"))
			}
			if len(got) < len(hosts) {
				w.Header().Set("Location", "https://"+hosts[len(got)]+r.URL.Path)
				w.WriteHeader(307)
				return
			}
			o.ServeHTTP(w, r)
		}))
		c := newClient(t, nil, &registry.MemStore{}, func(opts *mirror.Options) {
			opts.Transport = transport
			opts.Upstreams[0].URL = "https://" + upstream
			opts.Upstreams[0].Credential = func(context.Context, string) (auth.Credential, error) {
				return auth.Credential{Username: "user", Password: "secret"}, nil
			}
		})
		qt.Check(t, qt.Equals(c.get("/v2/docker.io/app/blobs/"+string(blob)).status, 200))
		for i := range hosts {
			qt.Check(t, qt.Equals(got[i], ""), qt.Commentf("%v: host %d", hosts, i))
		}
	}
}
