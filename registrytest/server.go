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

	// Host is the host and port, as image references have it; URL of the
	// embedded server has the scheme too.
	Host string

	// Store is what the registry has, unless an option of NewServer gave it
	// another.
	Store *registry.MemStore
}

// NewServer starts a registry with the given options, which tb.Cleanup closes.
func NewServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, registry.New, opts, (*httptest.Server).Start)
}

// NewTLSServer is NewServer with HTTPS. The certificate is one that the
// Client of the server trusts.
func NewTLSServer(tb testing.TB, opts ...registry.Option) *Server {
	tb.Helper()
	return start(tb, registry.New, opts, (*httptest.Server).StartTLS)
}

func start(tb testing.TB, handler func(...registry.Option) http.Handler, opts []registry.Option, listen func(*httptest.Server)) *Server {
	store := new(registry.MemStore)
	// First, so that an option may give another.
	opts = append([]registry.Option{registry.WithStore(store)}, opts...)
	s := httptest.NewUnstartedServer(handler(opts...))
	listen(s)
	tb.Cleanup(s.Close)
	return &Server{Server: s, Host: s.Listener.Addr().String(), Store: store}
}

// TLS returns an HTTPS server of a new registry, with a certificate for the
// given domain. The transport of its client sends requests for any host to the
// server, and trusts the certificate. The caller must close the server.
//
// It is the function of go-containerregistry's package registry.
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

// certificate makes a certificate for a domain and for loopback, signed by
// itself.
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
