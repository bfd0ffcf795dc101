// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"net"
	"net/http"

	"github.com/berth-oci/registry"
)

// Namespaces is one server that plays several registries, for tests of mirrors
// and proxies: a request goes to the one whose name its ns parameter has
// (section "Registry Proxying"), without one to that whose name is its host,
// with or without the port. Each may have faults, a journal and users of its
// own. A request for none of them is answered 404 NAME_UNKNOWN.
//
// Of one registry with several stores, registry.WithNamespaces is less to say.
func Namespaces(upstreams map[string]http.Handler) http.Handler {
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
