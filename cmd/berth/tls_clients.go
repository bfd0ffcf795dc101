// SPDX-License-Identifier: Apache-2.0

// Certificates of clients.

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
)

// requireClients lets t verify the certificates of clients.
func (f *TLSFlags) requireClients(t *serverTLS, log *slog.Logger) error {
	base := t.config
	pool, err := watch(log, func() (*tls.Config, error) {
		data, err := os.ReadFile(f.TLSClientCA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s has no certificate in PEM", f.TLSClientCA)
		}
		config := base.Clone()
		config.ClientCAs = pool
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if f.TLSClientAuth == "optional" {
			config.ClientAuth = tls.VerifyClientCertIfGiven
		}
		config.VerifyConnection = requireName
		// A resumed session would not notice that an authority was removed.
		config.SessionTicketsDisabled = true
		return config, nil
	}, f.TLSClientCA)
	if err != nil {
		return err
	}
	t.reload = append(t.reload, pool.Reload)
	t.config = base.Clone()
	t.config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if isChallenge(hello) {
			return nil, nil // the authority has no certificate of a client
		}
		return pool.get(), nil
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

// clientUser returns the user whose certificate r's client has, by --tls-client-ca, and
// the user's groups: the organizational units of the certificate's subject.
func clientUser(r *http.Request) (name string, groups []string, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", nil, false
	}
	cert := r.TLS.VerifiedChains[0][0]
	name = certificateUser(cert)
	return name, cert.Subject.OrganizationalUnit, name != ""
}
