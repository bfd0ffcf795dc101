// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

func get(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	resp, err := client.Get(url)
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	return resp.StatusCode
}

func TestServers(t *testing.T) {
	var url string
	t.Run("until_the_test_ends", func(t *testing.T) {
		for _, start := range []func(testing.TB, ...registry.Option) *registrytest.Server{registrytest.NewServer, registrytest.NewTLSServer} {
			s := start(t, registry.ReadOnly())
			d := digest.FromString("seeded")
			qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s.Store, "a", d, strings.NewReader("seeded"))))
			qt.Check(t, qt.Equals(get(t, s.Client(), s.URL+"/v2/a/blobs/"+d.String()), 200))
			qt.Check(t, qt.IsTrue(strings.HasSuffix(s.URL, "://"+s.Host)))
			if url == "" {
				url = s.URL
			}
		}
	})
	_, err := http.Get(url + "/v2/")
	qt.Check(t, qt.IsNotNil(err))
}

// TestServerStoreIsTheOneServed checks that an option's store is the server's Store,
// and that its limits hold.
func TestServerStoreIsTheOneServed(t *testing.T) {
	store := &registry.MemStore{Limits: registry.MemLimits{TotalBytes: 10}}
	for _, s := range []*registrytest.Server{
		registrytest.NewServer(t, registry.WithStore(store)),
		registrytest.NewTLSServer(t, registry.WithLimits(registry.Limits{PageNames: 1}), registry.WithStore(store)),
		registrytest.Profiles()[0].NewServer(t, registry.WithStore(store)),
	} {
		qt.Check(t, qt.Equals[registry.Store](s.Store, store))
		d := digest.FromString("more than ten bytes")
		resp, err := s.Client().Post(s.URL+"/v2/a/blobs/uploads/?digest="+d.String(), "", strings.NewReader("more than ten bytes"))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, 413))
	}
	own := registrytest.NewServer(t)
	d := digest.FromString("seeded")
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), own.Store, "a", d, strings.NewReader("seeded"))))
	qt.Check(t, qt.Equals(get(t, own.Client(), own.URL+"/v2/a/blobs/"+d.String()), 200))
}

func TestTLS(t *testing.T) {
	s, err := registrytest.TLS("registry.example.com")
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	qt.Check(t, qt.Equals(get(t, s.Client(), "https://registry.example.com/v2/"), 200))
	_, err = s.Client().Get("https://other.example.com/v2/")
	qt.Check(t, qt.ErrorMatches(err, ".*certificate is valid for.*"))
}
