// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// served returns the certificate that s serves, after it has verified it for all hosts
// with the authority of ca.crt.
func served(t *testing.T, s *selfSigned) *x509.Certificate {
	t.Helper()
	cert, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorityOf(t, s.dir))
	for _, host := range s.hosts {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: s.now()}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	return cert.Leaf
}

func authorityOf(t *testing.T, dir string) []byte {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestSelfSigned starts servers one after another with the same folder, and checks which
// certificates they have in common.
func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "tls")
	hosts := []string{"127.0.0.1", "::1", "localhost"}
	more := append(slices.Clone(hosts), "registry.example")
	open := func(hosts []string) *selfSigned {
		t.Helper()
		s, err := openSelfSigned(dir, hosts, discardLog())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(hosts)
	ca, last := authorityOf(t, dir), served(t, s)
	for _, name := range []string{".", caFile, caKeyFile, serverFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	for _, step := range []struct {
		name            string
		change          func() error
		hosts           []string
		sameCertificate bool
		sameAuthority   bool
	}{
		{"restart", nil, hosts, true, true},
		{"other_hosts", nil, more, false, true},
		{"restart_with_other_hosts", nil, more, true, true},
		{"ca.crt_removed", func() error { return os.Remove(filepath.Join(dir, caFile)) }, more, true, true},
		{"damaged_certificate", func() error { return os.WriteFile(filepath.Join(dir, serverFile), []byte("x"), 0o600) }, more, false, true},
		{"authority_removed", func() error { return os.Remove(filepath.Join(dir, caKeyFile)) }, more, false, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			if step.change != nil {
				if err := step.change(); err != nil {
					t.Fatal(err)
				}
			}
			cert := served(t, open(step.hosts))
			if cert.Equal(last) != step.sameCertificate {
				t.Errorf("the same certificate: %v", !step.sameCertificate)
			}
			if bytes.Equal(ca, authorityOf(t, dir)) != step.sameAuthority {
				t.Errorf("the same authority: %v", !step.sameAuthority)
			}
			ca, last = authorityOf(t, dir), cert
		})
	}
}

// TestSelfSignedRenewal lets years pass.
func TestSelfSignedRenewal(t *testing.T) {
	const day = 24 * time.Hour
	dir := t.TempDir()
	s, err := openSelfSigned(dir, []string{"localhost"}, discardLog())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	ca, last := authorityOf(t, dir), served(t, s)
	for _, step := range []struct {
		name                     string
		after                    time.Duration
		newCertificate, newIssue bool
	}{
		{"fresh", 59 * day, false, false},
		{"soon_expired", 61 * day, true, false},
		{"fresh_again", 90 * day, false, false},
		{"expired", 300 * day, true, false},
		{"authority_still_valid", caValidity - 100*day, true, false},
		{"authority_soon_expired", caValidity - 39*day, true, true},
	} {
		s.now = func() time.Time { return start.Add(step.after) }
		cert := served(t, s)
		if cert.Equal(last) == step.newCertificate {
			t.Errorf("%s: renewed: %v", step.name, !step.newCertificate)
		}
		if bytes.Equal(ca, authorityOf(t, dir)) == step.newIssue {
			t.Errorf("%s: new authority: %v", step.name, !step.newIssue)
		}
		ca, last = authorityOf(t, dir), cert
	}

	// If it can't be renewed, the old one is served, and no attempt follows at once.
	writeData(t, filepath.Join(dir, caKeyFile), []byte("x"))
	var logged bytes.Buffer
	s.log = (&serveCmd{}).openLog(&logged).Logger
	s.now = func() time.Time { return start.Add(caValidity + 30*day) }
	for range 3 {
		if cert, err := s.GetCertificate(nil); err != nil || !cert.Leaf.Equal(last) {
			t.Error(cert.Leaf.NotAfter, err)
		}
	}
	if n := strings.Count(logged.String(), "not renewed"); n != 1 {
		t.Errorf("%d lines: %s", n, &logged)
	}
}

// TestSelfSignedErrors checks that an authority that clients may trust is not replaced
// because it can't be read.
func TestSelfSignedErrors(t *testing.T) {
	a := newTestAuthority(t)
	other := newTestAuthority(t)
	_, key, _ := bytes.Cut(a.issue(pkix.Name{}), []byte("-----END CERTIFICATE-----\n"))
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"garbage":      {[]byte("x"), "failed to find any PEM data"},
		"no_key":       {pemCertificate(a.pair.Leaf), "found a certificate rather than a key"},
		"other_key":    {append(pemCertificate(other.pair.Leaf), key...), "private key does not match"},
		"no_authority": {a.issue(pkix.Name{}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(caValidity) }), "is not the certificate of an authority"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeData(t, filepath.Join(dir, caKeyFile), test.content)
			_, err := openSelfSigned(dir, []string{"localhost"}, discardLog())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if content, _ := os.ReadFile(filepath.Join(dir, caKeyFile)); !bytes.Equal(content, test.content) {
				t.Error("the file was replaced")
			}
		})
	}
}

// TestSelfSignedTogether starts servers at the same time in one folder.
func TestSelfSignedTogether(t *testing.T) {
	dir := t.TempDir()
	all := make([]*selfSigned, 8)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var err error
			if all[i], err = openSelfSigned(dir, []string{"localhost"}, discardLog()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range all {
		if s != nil {
			served(t, s)
		}
	}
}

func TestOwnHosts(t *testing.T) {
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	base := []string{"127.0.0.1", "::1", "localhost", strings.ToLower(machine)}
	for _, test := range []struct {
		addr  string
		ip    string // of the listener
		hosts []string
		want  []string // in addition
	}{
		{"127.0.0.1:5000", "127.0.0.1", nil, nil},
		{"127.0.0.2:5000", "127.0.0.2", nil, []string{"127.0.0.2"}},
		{":5000", "::", nil, nil},
		{"0.0.0.0:5000", "0.0.0.0", nil, nil},
		{"[::]:5000", "::", nil, nil},
		{"Registry.example:5000", "192.0.2.1", nil, []string{"192.0.2.1", "registry.example"}},
		{"[fe80::1%lo]:5000", "fe80::1", nil, []string{"fe80::1"}},
		{"unix:/run/x:y", "", nil, nil},
		{"systemd:web", "192.0.2.1", nil, []string{"192.0.2.1"}},
		{"127.0.0.1:5000", "127.0.0.1", []string{"registry.example", "localhost"}, []string{"registry.example"}},
	} {
		var l net.Listener = addrListener{addr: &net.TCPAddr{IP: net.ParseIP(test.ip)}}
		if test.ip == "" {
			l = addrListener{addr: &net.UnixAddr{Name: test.addr}}
		}
		want := append(slices.Clone(base), test.want...)
		slices.Sort(want)
		if got := ownHosts([]string{test.addr}, []net.Listener{l}, test.hosts); !slices.Equal(got, want) {
			t.Errorf("%s %v: %v, want %v", test.addr, test.hosts, got, want)
		}
	}
}

// addrListener has only an address.
type addrListener struct {
	net.Listener
	addr net.Addr
}

func (l addrListener) Addr() net.Addr { return l.addr }

// TestSelfSignedHandshake checks that clients that trust ca.crt connect.
func TestSelfSignedHandshake(t *testing.T) {
	dir := t.TempDir()
	_, addr := serveTLS(t, TLSFlags{TLSSelfSigned: true, TLSDir: dir}, "127.0.0.1", "registry.example")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authorityOf(t, dir))
	for name, want := range map[string]bool{"127.0.0.1": true, "registry.example": true, "other.example": false} {
		conn, err := tls.Dial("tcp", addr.String(), &tls.Config{RootCAs: roots, ServerName: name})
		if (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
