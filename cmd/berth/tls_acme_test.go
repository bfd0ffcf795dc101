// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/berth-oci/registry/internal/freeaddr"
)

// serveDNS starts a server that resolves every name to 127.0.0.1. It speaks TCP, as Pebble
// does.
func serveDNS(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				resolve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// resolve responds to a query.
func resolve(conn net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, query); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return err
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	for _, q := range m.Questions {
		if q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	response, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(response))), response...))
	return err
}

// startPebble starts Pebble, the ACME server of Let's Encrypt for tests, which connects to
// port for its challenges. It returns the URLs of its directory and of its root certificate.
func startPebble(t *testing.T, a testAuthority, port int) (directory, root string) {
	t.Helper()
	program, err := exec.LookPath("pebble")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no pebble: go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1")
	}
	pair := writeTemp(t, "pebble.pem", a.issue(pkix.Name{}))
	addr, management := freeaddr.New(t), freeaddr.New(t)
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress":           addr,
		"managementListenAddress": management,
		"certificate":             pair,
		"privateKey":              pair,
		"httpPort":                1,
		"tlsPort":                 port,
	}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-strict", "-config", writeTemp(t, "pebble.json", config), "-dnsserver", serveDNS(t))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1")
	log, err := os.Create(filepath.Join(t.TempDir(), "pebble.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if content, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("pebble: %s", content)
		}
	})
	for _, addr := range []string{addr, management} {
		for range 500 {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				conn.Close()
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return "https://" + addr + "/dir", "https://" + management + "/roots/0"
}

// TestACME obtains a certificate from Pebble, by a challenge on the listener itself. With
// --tls-client-ca, the challenge needs no certificate, but clients do. After a restart, the
// certificate comes from the cache.
func TestACME(t *testing.T) {
	skipOnWindows(t)
	const domain = "registry.example"
	a := newTestAuthority(t)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	directory, root := startPebble(t, a, socket.Addr().(*net.TCPAddr).Port)
	resp, err := newHTTPClient(t, a.pool()).Get(root)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(data) {
		t.Fatal(err)
	}

	cache, ca := filepath.Join(t.TempDir(), "cache"), a.file()
	var first *x509.Certificate
	for _, test := range []struct {
		name  string
		flags []string
	}{
		{"new", []string{"--acme-email=admin@registry.example"}},
		{"cached", nil},
		{"client_certificates", []string{"--tls-client-ca=" + ca, "--acme-domain=other.example"}},
	} {
		addrFile := filepath.Join(t.TempDir(), "addr")
		cmd := activate(t, "", []net.Listener{socket}, append(test.flags, "--addr=systemd:", "--addr-file="+addrFile,
			"--acme-domain="+domain, "--acme-directory="+directory, "--acme-cache="+cache)...)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+ca)
		c := startServe(t, cmd, addrFile)
		config := &tls.Config{RootCAs: roots, ServerName: domain}
		if test.name == "client_certificates" {
			config.ServerName = "other.example" // requires another challenge
			config.Certificates = []tls.Certificate{*mustParse(t, a.issue(pkix.Name{CommonName: "alice"}))}
		}
		transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + c.addrs[0] + "/v2/")
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", test.name, resp.Status)
		}
		leaf := resp.TLS.PeerCertificates[0]
		switch {
		case first == nil:
			first = leaf
		case leaf.Equal(first) != (test.name == "cached"):
			t.Errorf("%s: the same certificate: %v", test.name, leaf.Equal(first))
		}
		if resp.ProtoMajor != 2 {
			t.Errorf("%s: %s", test.name, resp.Proto)
		}
		c.logged(t, `msg="a certificate was obtained" domain=`+domain)
		c.stop(t)
		if log := c.stderr.String(); strings.Contains(log, "level=ERROR") {
			t.Errorf("%s: %s", test.name, log)
		}
	}
	if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
}

// TestACMEDomains checks which names are accepted.
func TestACMEDomains(t *testing.T) {
	for domain, want := range map[string]bool{
		"registry.example":  true,
		"registry.example.": true,
		"Registry.Example":  true,
		"bücher.example":    true,
		"localhost":         false,
		"*.example.com":     false,
		"192.0.2.1":         false,
		"::1":               false,
		"a b.example":       false,
		"":                  false,
	} {
		_, err := (&TLSFlags{ACMEDomain: []string{domain}, ACMECache: t.TempDir()}).openTLS(nil, discardLog())
		if (err == nil) != want || err != nil && err.Error() != "--acme-domain="+domain+": this requires the name of a public domain, without wildcards" {
			t.Errorf("%q: %v", domain, err)
		}
	}
}
