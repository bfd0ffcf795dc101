// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/tlsserver"
)

// Server is a registry that listens on loopback until its test ends.
type Server struct {
	*httptest.Server

	// Host is the host and port, as in image references. The embedded
	// server's URL includes the scheme.
	Host string

	// Store holds the registry's content. It is a *registry.MemStore unless an
	// option sets another store.
	Store registry.Store

	handler *atomic.Pointer[http.Handler]
}

// Use puts middleware, such as that of a [Faults] or a [Journal], around the registry and
// the middleware that it has. Requests in progress are not affected.
func (s *Server) Use(middleware func(http.Handler) http.Handler) {
	h := middleware(*s.handler.Load())
	s.handler.Store(&h)
}

// NewServer starts a registry with the given options. It is closed when the test
// ends.
func NewServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, registry.New, opts, (*httptest.Server).Start)
}

// NewTLSServer is like NewServer, but uses HTTPS. The server's Client trusts its
// certificate.
func NewTLSServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, registry.New, opts, (*httptest.Server).StartTLS)
}

// start starts a server for the handler that newHandler returns.
func start(tb testing.TB, newHandler func(...registry.Option) http.Handler, opts []registry.Option, listen func(*httptest.Server)) *Server {
	// The default store is first, so that an option can replace it.
	opts = append([]registry.Option{registry.WithStore(new(registry.MemStore))}, opts...)
	store := registry.New(opts...).(interface{ Store() registry.Store }).Store()
	h, handler := newHandler(opts...), new(atomic.Pointer[http.Handler])
	handler.Store(&h)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*handler.Load()).ServeHTTP(w, r)
	}))
	listen(s)
	tb.Cleanup(s.Close)
	return &Server{Server: s, Host: s.Listener.Addr().String(), Store: store, handler: handler}
}

// TLS starts a new registry that uses HTTPS, with a certificate for the given
// domain. The server's Client trusts the certificate, and sends requests for any
// host to the server. The caller must close the server.
//
// TLS is compatible with the function of that name in go-containerregistry's
// package registry.
func TLS(domain string) (*httptest.Server, error) {
	return tlsserver.Start(registry.New(), domain)
}
