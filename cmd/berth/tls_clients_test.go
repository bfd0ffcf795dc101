// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestClientCertificates checks who may connect, and as which user.
func TestClientCertificates(t *testing.T) {
	a, stranger := newTestAuthority(t), newTestAuthority(t)
	const denied = ""
	for _, test := range []struct {
		name                       string
		pair                       []byte
		wantRequired, wantOptional string // responses
	}{
		{"no_certificate", nil, denied, ` [] false`},
		{"name", a.issue(pkix.Name{CommonName: "alice"}), `alice [] true`, `alice [] true`},
		{"groups", a.issue(pkix.Name{CommonName: "alice", OrganizationalUnit: []string{"dev"}}), `alice ["dev"] true`, `alice ["dev"] true`},
		{"name_before_URI", a.issue(pkix.Name{CommonName: "alice"}, withURI("spiffe://x/y")), `alice [] true`, `alice [] true`},
		{"URI", a.issue(pkix.Name{}, withEmail("a@x.example"), withURI("spiffe://x/y")), `spiffe://x/y [] true`, `spiffe://x/y [] true`},
		{"email", a.issue(pkix.Name{OrganizationalUnit: []string{"dev"}}, withEmail("a@x.example")), `a@x.example ["dev"] true`, `a@x.example ["dev"] true`},
		{"no_name", a.issue(pkix.Name{}), denied, denied},
		{"expired", a.issue(pkix.Name{CommonName: "alice"}, expired), denied, denied},
		{"only_for_servers", a.issue(pkix.Name{CommonName: "alice"}, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), denied, denied},
		{"other_authority", stranger.issue(pkix.Name{CommonName: "alice"}), denied, denied},
	} {
		t.Run(test.name, func(t *testing.T) {
			pair := writeTemp(t, "pair.pem", a.issue(pkix.Name{}))
			for mode, want := range map[string]string{"": test.wantRequired, "require": test.wantRequired, "optional": test.wantOptional} {
				_, addr := serveTLS(t, TLSFlags{TLSCert: pair, TLSKey: pair, TLSClientCA: a.file(), TLSClientAuth: mode})
				c := newHTTPClient(t, a.pool())
				if test.pair != nil {
					// Certificates would be left out if the server does not ask for their issuer.
					c.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						return mustParse(t, test.pair), nil
					}
				}
				resp, err := c.Get("https://" + addr.String())
				if err != nil {
					if want != denied {
						t.Errorf("mode %q: %v", mode, err)
					}
					continue
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != want {
					t.Errorf("mode %q: %s, want %s", mode, body, want)
				}
			}
		})
	}
}

// TestRemovedAuthority checks that an authority that was removed from the file admits no
// more clients, not even one that resumes a session.
func TestRemovedAuthority(t *testing.T) {
	a, b := newTestAuthority(t), newTestAuthority(t)
	pair := writeTemp(t, "pair.pem", a.issue(pkix.Name{}))
	file := writeTemp(t, "clients.pem", append(pemCertificate(a.pair.Leaf), pemCertificate(b.pair.Leaf)...))
	transport, addr := serveTLS(t, TLSFlags{TLSCert: pair, TLSKey: pair, TLSClientCA: file})
	c := newHTTPClient(t, a.pool(), *mustParse(t, b.issue(pkix.Name{CommonName: "bob"})))
	c.Transport.(*http.Transport).TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	get := func() error {
		resp, err := c.Get("https://" + addr.String())
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	writeData(t, file, []byte("no PEM"))
	if err := reload(transport); err == nil {
		t.Error("a file without certificates was accepted")
	}
	if err := get(); err != nil {
		t.Errorf("the old file was not kept: %v", err)
	}
	writeData(t, file, pemCertificate(a.pair.Leaf))
	if err := reload(transport); err != nil {
		t.Fatal(err)
	}
	if err := get(); err == nil {
		t.Error("a client of a removed authority was admitted")
	}
}

// TestRulesForCertificates checks what the users of certificates and their groups may do,
// and that a connection ends its user's rights with the authority's.
func TestRulesForCertificates(t *testing.T) {
	skipOnWindows(t)
	a, b := newTestAuthority(t), newTestAuthority(t)
	pair := writeTemp(t, "pair.pem", a.issue(pkix.Name{}))
	authorities := writeTemp(t, "clients.pem", pemCertificate(b.pair.Leaf))
	rules := writeTemp(t, "rules.yaml", []byte(`
groups: {dev: []}
rules:
- {users: ["@dev"], repositories: [team/**], actions: [pull, push]}
- {users: [bob], repositories: ["**"], actions: [pull]}
`))
	c := serveArgs(t, "--tls-cert="+pair, "--tls-key="+pair, "--tls-client-ca="+authorities, "--rules="+rules)
	client := func(name pkix.Name) *http.Client {
		c := newHTTPClient(t, a.pool(), *mustParse(t, b.issue(name)))
		c.Transport.(*http.Transport).DisableKeepAlives = false
		return c
	}
	alice, bob := client(pkix.Name{CommonName: "alice", OrganizationalUnit: []string{"dev"}}), client(pkix.Name{CommonName: "bob"})
	send := func(client *http.Client, method, path string) int {
		t.Helper()
		r, _ := http.NewRequest(method, "https://"+c.addrs[0]+path, nil)
		r.Header.Set("Authorization", "Basic eDp5") // there are no passwords
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, test := range []struct {
		client       *http.Client
		method, path string
		want         int
	}{
		{alice, "GET", "/v2/", 200},
		{alice, "POST", "/v2/team/app/blobs/uploads/", 202},
		{alice, "POST", "/v2/other/app/blobs/uploads/", 403},
		{alice, "GET", "/v2/other/app/tags/list", 403},
		{bob, "GET", "/v2/team/app/tags/list", 404},
		{bob, "POST", "/v2/team/app/blobs/uploads/", 403},
	} {
		if got := send(test.client, test.method, test.path); got != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, got, test.want)
		}
	}

	writeData(t, authorities, pemCertificate(a.pair.Leaf))
	c.Process.Signal(syscall.SIGHUP)
	for n := 0; send(alice, "GET", "/v2/") != 401; n++ {
		if n == 500 {
			t.Fatal("the connection of a removed authority's client is still its user's")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestChallengesSpeakNoHTTP checks that a client that acts as an authority, which needs no
// certificate, can't send requests.
func TestChallengesSpeakNoHTTP(t *testing.T) {
	a := newTestAuthority(t)
	pair := writeTemp(t, "pair.pem", a.issue(pkix.Name{}))
	for _, test := range []struct {
		name          string
		flags         TLSFlags
		wantHandshake bool
	}{
		{"files", TLSFlags{TLSCert: pair, TLSKey: pair, TLSClientCA: a.file()}, false},
		{"acme", TLSFlags{ACMEDomain: []string{"registry.example"}, ACMECache: t.TempDir(), TLSClientCA: a.file()}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			transport, err := test.flags.openTLS(nil, discardLog())
			if err != nil {
				t.Fatal(err)
			}
			transport.start = func(context.Context) {}
			transport.config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return mustParse(t, a.issue(pkix.Name{})), nil // as if a challenge were in progress
			}
			addr := startTLS(t, transport)
			conn, err := tls.Dial("tcp", addr.String(), &tls.Config{RootCAs: a.pool(), NextProtos: []string{"acme-tls/1"}})
			if (err == nil) != test.wantHandshake {
				t.Fatalf("handshake: %v", err)
			}
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: registry.example\r\n\r\n")
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				t.Error(resp.Status)
			}
		})
	}
}
