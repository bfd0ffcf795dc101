// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/guard"
)

// TestHostsOfWebPagesAreRejected sends requests with the Host headers that clients
// on the same machine send, and with those of DNS rebinding.
func TestHostsOfWebPagesAreRejected(t *testing.T) {
	h := guard.Hosts(guard.Local("registry.example"))(registry.New())
	for _, c := range []struct {
		host   string
		status int
	}{
		{"127.0.0.1", 200},
		{"127.0.0.1:5000", 200},
		{"127.8.9.1:5000", 200},
		{"[::1]:5000", 200},
		{"[::1]", 200},
		{"[::ffff:127.0.0.1]:5000", 200},
		{"localhost", 200},
		{"LocalHost:5000", 200},
		{"localhost.:5000", 200},
		{"registry.localhost:5000", 200},
		{"kind-registry:5000", 200},
		{"host.docker.internal:5000", 200},
		{"host.containers.internal:5000", 200},
		{"registry.example:5000", 200},
		{"Registry.Example", 200},

		{"", 421},
		{"attacker.example", 421},
		{"attacker.example:5000", 421},
		{"sub.registry.example", 421},
		{"notlocalhost.example", 421},
		{"localhost.attacker.example", 421},
		{"127.0.0.1.attacker.example:5000", 421},
		{"xlocalhost.", 200}, // without the root's dot, a name without a dot
		{"a.xlocalhost", 421},
		{"192.168.1.1:5000", 421},
		{"0.0.0.0:5000", 421},
		{"[2001:db8::1]:5000", 421},
		{"[fe80::1%25lo]:5000", 421},
		{"x.docker.internal", 421},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r := httptest.NewRequest(method, "/v2/", nil)
			r.Host = c.host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, c.status), qt.Commentf("%s for %q: %s", method, c.host, w.Body))
			if w.Code == 421 && method == "GET" {
				qt.Check(t, qt.StringContains(w.Body.String(), `{"errors":[{"code":"DENIED","message":"the host `), qt.Commentf("%q", c.host))
			}
		}
	}
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Host = strings.Repeat("a.", 100_000)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	qt.Check(t, qt.IsTrue(w.Body.Len() < 1000))
	qt.Check(t, qt.PanicMatches(func() { guard.Hosts(nil) }, "guard: Hosts requires a function"))
}
