// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/berth-oci/registry"
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
	s := httptest.NewUnstartedServer(newHandler(opts...))
	listen(s)
	tb.Cleanup(s.Close)
	return &Server{Server: s, Host: s.Listener.Addr().String(), Store: store}
}

// TLS starts a new registry that uses HTTPS, with a certificate for the given
// domain. The server's Client trusts the certificate, and sends requests for any
// host to the server. The caller must close the server.
//
// TLS is compatible with the function of that name in go-containerregistry's
// package registry.
func TLS(domain string) (*httptest.Server, error) {
	cert, err := certificate(domain)
	if err != nil {
		return nil, err
	}
	s := httptest.NewUnstartedServer(registry.New())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	addr := s.Listener.Addr()
	s.Client().Transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trusted},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		},
	}
	return s, nil
}

// certificate returns a self-signed certificate for a domain and for loopback.
func certificate(domain string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		DNSNames:              []string{domain},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
