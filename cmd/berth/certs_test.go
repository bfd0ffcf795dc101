// SPDX-License-Identifier: Apache-2.0

// Certificates for tests.

package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// testAuthority is a certificate authority.
type testAuthority struct {
	t    *testing.T
	pair *tls.Certificate
}

func newTestAuthority(t *testing.T) testAuthority {
	t.Helper()
	data, err := certify(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "authority of " + t.Name()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return testAuthority{t, mustParse(t, data)}
}

func mustParse(t *testing.T, data []byte) *tls.Certificate {
	t.Helper()
	pair, err := parsePair(data)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// file writes the authority's certificate to a file.
func (a testAuthority) file() string {
	return writeTemp(a.t, "ca.crt", pemCertificate(a.pair.Leaf))
}

func (a testAuthority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.pair.Leaf)
	return pool
}

// issue returns a certificate for loopback, localhost and further names, and its key.
func (a testAuthority) issue(subject pkix.Name, edit ...func(*x509.Certificate)) []byte {
	a.t.Helper()
	template := &x509.Certificate{
		Subject:     subject,
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, e := range edit {
		e(template)
	}
	data, err := certify(template, a.pair)
	if err != nil {
		a.t.Fatal(err)
	}
	return data
}

func withURI(text string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		u, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, u)
	}
}

func withEmail(address string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.EmailAddresses = append(c.EmailAddresses, address) }
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func writeTemp(t *testing.T, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	writeData(t, name, data)
	return name
}

func writeData(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newHTTPClient returns a client that trusts the authorities in roots, speaks HTTP/2 too,
// and has a new connection for each request.
func newHTTPClient(t *testing.T, roots *x509.CertPool, pairs ...tls.Certificate) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: pairs},
		ForceAttemptHTTP2: true,
		DisableKeepAlives: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// serveTLS starts a server with the TLS of flags. Its handler responds with the user of
// the client's certificate.
func serveTLS(t *testing.T, flags TLSFlags, hosts ...string) (*serverTLS, net.Addr) {
	t.Helper()
	transport, err := flags.openTLS(hosts, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	return transport, startTLS(t, transport)
}

func startTLS(t *testing.T, transport *serverTLS) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ErrorLog: quietLog(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, groups, ok := transport.clients.user(r)
			writeUser(w, user, groups, ok)
		}),
	}
	done := serveAll(t.Context(), server, []net.Listener{l}, transport)
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr()
}

// reload reads the files of transport again, and puts them to use.
func reload(transport *serverTLS) error {
	use, err := transport.read()
	if err == nil {
		use()
	}
	return err
}
