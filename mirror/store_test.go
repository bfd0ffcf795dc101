// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/storetest"
)

// TestStore tests mirrors as stores: an upstream changes nothing in them.
func TestStore(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) registry.Store{
		"memory": func(t *testing.T) registry.Store { return &registry.MemStore{} },
		"directory": func(t *testing.T) registry.Store {
			s, err := ocidir.Open(t.TempDir(), nil)
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { s.Close() })
			return s
		},
	} {
		for _, defaultName := range []string{"", "docker.io"} {
			t.Run(name+" "+defaultName, func(t *testing.T) {
				storetest.Run(t, func(t *testing.T) registry.Store {
					m, err := mirror.New(open(t), mirror.Options{
						Upstreams: []mirror.Upstream{{Name: "docker.io", URL: "http://127.0.0.1:1"}},
						Default:   defaultName,
						MaxBytes:  1 << 30,
					})
					qt.Assert(t, qt.IsNil(err))
					t.Cleanup(func() { m.Close() })
					return m
				})
			})
		}
	}
}

// BenchmarkWarm gets a manifest by its tag from a registry, and through a mirror that has it.
func BenchmarkWarm(b *testing.B) {
	o := newOrigin()
	o.push(b, "library/nginx", "1", "a layer")
	m, err := mirror.New(&registry.MemStore{}, mirror.Options{Upstreams: []mirror.Upstream{{Name: "docker.io", URL: "http://upstream.test", TTL: 1 << 60}}, Transport: o})
	qt.Assert(b, qt.IsNil(err))
	defer m.Close()
	for name, h := range map[string]http.Handler{
		"/v2/library/nginx/manifests/1":              registry.New(registry.WithStore(o.store)),
		"/v2/docker.io/library/nginx/manifests/1":    m.Handler(registry.New(registry.WithStore(m))),
		"/v2/library/nginx/manifests/1?ns=docker.io": m.Handler(registry.New(registry.WithStore(m))),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, name, nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
