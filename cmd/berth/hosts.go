// SPDX-License-Identifier: Apache-2.0

// The hosts that a server on loopback serves.

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/berth-oci/registry/guard"
)

// isLoopback reports whether only clients on this machine can reach addr.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// hostNames returns the names of --host, without ports and brackets.
func (c *serveCmd) hostNames() ([]string, error) {
	var hosts []string
	for _, host := range c.Host {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host == "" {
			return nil, errors.New("--host requires a name")
		}
		hosts = append(hosts, strings.Trim(strings.TrimSuffix(strings.ToLower(host), "."), "[]"))
	}
	return hosts, nil
}

// guardHosts protects h from web pages, which the browser of a user on this
// machine lets send requests to it. Requests through a unix socket may be for any
// host: browsers do not send such, and proxies keep the host of their clients.
func (c *serveCmd) guardHosts(h http.Handler) (http.Handler, error) {
	h = guard.CrossOrigin()(h)
	if !c.loopback {
		if len(c.Host) > 0 && !c.TLSSelfSigned {
			return nil, errors.New("--host requires an --addr on loopback: another one is reached by any host name")
		}
		return h, nil
	}
	hosts, err := c.hostNames()
	if err != nil {
		return nil, err
	}
	domains, err := c.acmeDomains()
	if err != nil {
		return nil, err
	}
	local := guard.Local(append(hosts, domains...)...)
	guarded := guard.Hosts(func(host string) error {
		if host != "" && local(host) != nil { // browsers send a Host header
			return fmt.Errorf("the host %.255q is not served on a loopback address: to serve it, start berth serve with --host=%.255s", host, host)
		}
		return nil
	})(h)
	if !slices.ContainsFunc(c.Addr, func(addr string) bool { return hasPrefix(addr, unixPrefix, systemdPrefix) }) {
		return guarded, nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && isUnix(addr) {
			h.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
	}), nil
}
