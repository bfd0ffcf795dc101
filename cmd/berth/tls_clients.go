// SPDX-License-Identifier: Apache-2.0

// Certificates of clients.

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// clientAuthorities are the authorities whose certificates clients may have.
type clientAuthorities struct {
	file    string
	current atomic.Pointer[trusted]
}

// trusted are the authorities in a file.
type trusted struct {
	roots []*x509.Certificate
	pool  *x509.CertPool
}

// read is a [reader].
func (a *clientAuthorities) read() (use func(), err error) {
	roots, err := readAuthorities(a.file)
	if err != nil {
		return nil, err
	}
	t := &trusted{roots, x509.NewCertPool()}
	for _, cert := range roots {
		t.pool.AddCert(cert)
	}
	return func() { a.current.Store(t) }, nil
}

// readAuthorities reads the certificates in a file.
func readAuthorities(name string) (all []*x509.Certificate, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != certType {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, cert)
	}
	if all == nil {
		return nil, fmt.Errorf("%s has no certificate in PEM", name)
	}
	return all, nil
}

// requireClients lets t verify the certificates of clients.
func (f *TLSFlags) requireClients(t *serverTLS) error {
	t.clients = &clientAuthorities{file: f.TLSClientCA}
	use, err := t.clients.read()
	if err != nil {
		return err
	}
	use()
	t.files = append(t.files, t.clients.read)
	base := t.config
	verifying := base.Clone()
	verifying.ClientAuth = tls.RequireAndVerifyClientCert
	if f.TLSClientAuth == "optional" {
		verifying.ClientAuth = tls.VerifyClientCertIfGiven
	}
	verifying.VerifyConnection = requireName
	// A resumed session would not notice that an authority was removed.
	verifying.SessionTicketsDisabled = true
	t.config = base.Clone()
	t.config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if isChallenge(hello) {
			return nil, nil // the authority has no certificate of a client
		}
		config := verifying.Clone()
		config.ClientCAs = t.clients.current.Load().pool
		return config, nil
	}
	return nil
}

// requireName rejects a client whose certificate names no user.
func requireName(state tls.ConnectionState) error {
	if len(state.PeerCertificates) > 0 && certificateUser(state.PeerCertificates[0]) == "" {
		return errors.New("the client's certificate has no common name, URI or e-mail address, so it names no user")
	}
	return nil
}

// certificateUser returns the name of a certificate's user: its subject's common name,
// or else its first URI, or else its first e-mail address.
func certificateUser(cert *x509.Certificate) string {
	switch {
	case cert.Subject.CommonName != "":
		return cert.Subject.CommonName
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.EmailAddresses) > 0:
		return cert.EmailAddresses[0]
	}
	return ""
}

// user returns the user whose certificate r's client has, and the user's groups: the
// organizational units of the certificate's subject. A connection outlives its
// certificate, and its authority's presence in the file: they are checked again.
func (a *clientAuthorities) user(r *http.Request) (name string, groups []string, ok bool) {
	if a == nil || r.TLS == nil {
		return "", nil, false
	}
	current, now := a.current.Load(), time.Now()
	for _, chain := range r.TLS.VerifiedChains {
		root, cert := chain[len(chain)-1], chain[0]
		if slices.ContainsFunc(current.roots, root.Equal) && now.Before(cert.NotAfter) {
			name = certificateUser(cert)
			return name, cert.Subject.OrganizationalUnit, name != ""
		}
	}
	return "", nil, false
}
