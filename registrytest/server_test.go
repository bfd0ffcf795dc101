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

func TestTLS(t *testing.T) {
	s, err := registrytest.TLS("registry.example.com")
	qt.Assert(t, qt.IsNil(err))
	defer s.Close()
	qt.Check(t, qt.Equals(get(t, s.Client(), "https://registry.example.com/v2/"), 200))
	_, err = s.Client().Get("https://other.example.com/v2/")
	qt.Check(t, qt.ErrorMatches(err, ".*certificate is valid for.*"))
}
