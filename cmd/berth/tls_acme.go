// SPDX-License-Identifier: Apache-2.0

// Certificates from Let's Encrypt and other authorities with ACME (RFC 8555).

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/net/idna"
)

// openACME lets t serve the certificates of an authority, which verifies the domains by
// connections to this server (TLS-ALPN-01, RFC 8737).
func (f *TLSFlags) openACME(t *serverTLS, log *slog.Logger) error {
	domains, err := f.acmeDomains()
	if err != nil {
		return err
	}
	client := &acme.Client{
		DirectoryURL: autocert.DefaultACMEDirectory,
		HTTPClient:   &http.Client{Transport: &orderLocations{next: http.DefaultTransport}},
	}
	if f.ACMEDirectory != "" {
		u, err := url.Parse(f.ACMEDirectory)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("--acme-directory=%s: this requires a URL with https://", f.ACMEDirectory)
		}
		client.DirectoryURL = f.ACMEDirectory
	}
	dir, err := configDir(f.ACMECache, "acme")
	if err != nil {
		return fmt.Errorf("--acme-domain requires --acme-cache: %w", err)
	}
	manager := &autocert.Manager{
		Prompt:     autocert.AcceptTOS,
		Cache:      autocert.DirCache(dir),
		HostPolicy: autocert.HostWhitelist(domains...),
		Client:     client,
		Email:      f.ACMEEmail,
	}
	t.config.GetCertificate = manager.GetCertificate
	t.config.NextProtos = append(t.config.NextProtos, acme.ALPNProto)
	t.start = func(ctx context.Context) { obtain(ctx, manager, domains, log) }
	return nil
}

// acmeDomains returns the domains in lower case and ASCII, as clients send them.
func (f *TLSFlags) acmeDomains() ([]string, error) {
	var domains []string
	for _, domain := range f.ACMEDomain {
		name, err := idna.Lookup.ToASCII(strings.TrimSuffix(domain, "."))
		_, notAddr := netip.ParseAddr(name)
		if err != nil || notAddr == nil || !strings.Contains(name, ".") {
			return nil, fmt.Errorf("--acme-domain=%s: this requires the name of a public domain, without wildcards", domain)
		}
		domains = append(domains, name)
	}
	return domains, nil
}

// obtain obtains the certificates before clients wait for them. The manager renews them
// from then on. After a failure, it tries again when a client comes.
func obtain(ctx context.Context, manager *autocert.Manager, domains []string, log *slog.Logger) {
	for _, domain := range domains {
		if ctx.Err() != nil {
			return
		}
		cert, err := manager.GetCertificate(&tls.ClientHelloInfo{
			ServerName:       domain,
			CipherSuites:     []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
			SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
			SupportedCurves:  []tls.CurveID{tls.CurveP256},
		})
		if err != nil {
			log.Error("no certificate was obtained, the next client causes another attempt", "domain", domain, "error", err)
			continue
		}
		log.Info("a certificate was obtained", "domain", domain, "expires", cert.Leaf.NotAfter)
	}
}

// isChallenge reports whether hello is that of an authority that verifies a domain. Such a
// connection speaks no HTTP.
func isChallenge(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acme.ALPNProto
}

// orderLocations adds the Location of an order to the response that finalizes it, if it has
// none. RFC 8555 does not require it, but package acme does before golang.org/x/crypto
// v0.58.0, which needs Go 1.26 (golang/go#77704).
type orderLocations struct {
	next   http.RoundTripper
	orders sync.Map // from the URLs that finalize orders to those of the orders
}

// maxOrder is the size in bytes of the largest order.
const maxOrder = 1 << 20

func (o *orderLocations) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	location := resp.Header.Get("Location")
	switch {
	case resp.StatusCode == http.StatusOK && location == "":
		if order, ok := o.orders.LoadAndDelete(req.URL.String()); ok {
			resp.Header.Set("Location", order.(string))
		}
	case resp.StatusCode == http.StatusCreated && location != "":
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxOrder))
		if err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		var order struct{ Finalize string }
		if json.Unmarshal(body, &order) == nil && order.Finalize != "" {
			o.orders.Store(order.Finalize, location)
		}
	}
	return resp, nil
}
