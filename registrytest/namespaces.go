// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"fmt"
	"net"
	"net/http"

	"github.com/berth-oci/registry"
)

// Namespaces returns a handler that serves several registries, for tests of
// mirrors and proxies. The keys of upstreams are the registries' names. A request
// goes to the registry that its ns parameter names (section "Registry Proxying");
// without the parameter, to the one named like the request's host, with or
// without the port. A request for any other registry gets 404 NAME_UNKNOWN.
//
// Each registry can have its own faults, journal and users. To serve several
// stores as one registry, registry.WithNamespaces is simpler.
func Namespaces(upstreams map[string]http.Handler) http.Handler {
	for name, h := range upstreams {
		if h == nil {
			panic(fmt.Sprintf("registrytest: the handler of the registry %q is nil", name))
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ns := r.URL.Query().Get("ns")
		names := []string{ns}
		if ns == "" {
			names = []string{r.Host}
			if host, _, err := net.SplitHostPort(r.Host); err == nil {
				names = append(names, host)
			}
		}
		for _, name := range names {
			if h, ok := upstreams[name]; ok {
				if ns != "" {
					w.Header().Set("OCI-Namespace", ns)
				}
				h.ServeHTTP(w, r)
				return
			}
		}
		registry.WriteError(w, r, registry.ErrNameUnknown)
	})
}
