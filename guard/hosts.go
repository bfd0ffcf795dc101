// SPDX-License-Identifier: Apache-2.0

// The hosts that a registry serves.

package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/berth-oci/registry"
)

// Hosts is middleware that rejects a request unless allow returns nil for its host,
// with 421 (RFC 9110 section 15.5.20) and the text of the error. The host is in
// lower case, without its port and without the brackets of an IPv6 address.
//
// It panics if allow is nil.
func Hosts(allow func(host string) error) func(http.Handler) http.Handler {
	if allow == nil {
		panic("guard: Hosts requires a function")
	}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := allow(hostname(r.Host)); err != nil {
				registry.WriteError(w, r, &registry.Error{
					Status:  http.StatusMisdirectedRequest,
					Code:    registry.ErrDenied.Code,
					Message: err.Error(),
				})
				return
			}
			h.ServeHTTP(w, r)
		})
	}
}

// hostname returns the host of a Host header.
func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil { // no port
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// Local returns a function for [Hosts] that allows the hosts that [IsLocal]
// reports, and those given.
func Local(hosts ...string) func(host string) error {
	return func(host string) error {
		if IsLocal(host) || slices.Contains(hosts, host) {
			return nil
		}
		return fmt.Errorf("the host %.255q is not served here", host)
	}
}

// IsLocal reports whether a host, as passed by [Hosts], can only be one that
// clients on the same machine use, or containers on it: a loopback address,
// localhost and names below it, names without a dot, host.docker.internal and
// host.containers.internal. A web page from elsewhere has none of these.
func IsLocal(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	switch host {
	case "":
		return false
	case "host.docker.internal", "host.containers.internal":
		return true
	}
	return !strings.Contains(host, ".") || strings.HasSuffix(host, ".localhost")
}
