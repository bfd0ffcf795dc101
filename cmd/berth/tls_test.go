// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

func writeUser(w io.Writer, user string, groups []string, ok bool) {
	fmt.Fprintf(w, "%s %q %v", user, groups, ok)
}

func pemCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: cert.Raw})
}

// servedName returns the common name of the certificate that a handshake with c gets.
func servedName(t *testing.T, c interface {
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
}) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: c.GetCertificate})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// TestReload changes the files of a certificate, and checks that a good one is used and a
// bad one is not, both with Reload and at the next handshake.
func TestReload(t *testing.T) {
	a := newTestAuthority(t)
	one, two, three := a.issue(pkix.Name{CommonName: "one"}), a.issue(pkix.Name{CommonName: "two"}), a.issue(pkix.Name{CommonName: "three"})
	old := a.issue(pkix.Name{CommonName: "old"}, expired)
	cert, key := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	write := func(c, k []byte) {
		writeData(t, cert, c)
		writeData(t, key, k)
	}
	write(one, one)
	var logged bytes.Buffer
	c, err := openCertificates(cert, key, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name      string
		cert, key []byte
		want      string
		err       string
		log       string
	}{
		{"unchanged", one, one, "one", "", ""},
		{"other_pair", two, two, "two", "", ""},
		{"key_of_another", two, three, "two", "private key does not match", ""},
		{"the_certificate_follows", three, three, "three", "", ""},
		{"no_PEM", []byte("no PEM"), three, "three", "failed to find any PEM data", ""},
		{"expired", old, old, "old", "", "the certificate has expired"},
		{"valid_again", one, one, "one", "", ""},
	} {
		for _, byHandshake := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s_by_handshake_%v", step.name, byHandshake), func(t *testing.T) {
				logged.Reset()
				if byHandshake {
					write(two, two)
					if err := c.Reload(); err != nil {
						t.Fatal(err)
					}
					write(step.cert, append(step.key, '\n')) // differs in size
					c.every = 0
					defer func() { c.every = checkFiles }()
					if step.err != "" {
						step.want = "two"
					}
				} else {
					write(step.cert, step.key)
					err := c.Reload()
					if (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
						t.Errorf("Reload: %v, want %q", err, step.err)
					}
				}
				if got := servedName(t, c); got != step.want {
					t.Errorf("served %s, want %s", got, step.want)
				}
				servedName(t, c)
				if n := strings.Count(logged.String(), "can't be used"); byHandshake && (n == 1) != (step.err != "") {
					t.Errorf("a failure was logged %d times: %s", n, &logged)
				}
				if n := strings.Count(logged.String(), "has expired"); n > 1 || (n == 1) != (step.log != "") {
					t.Errorf("%d warnings: %s", n, &logged)
				}
			})
			if step.err != "" { // the next step starts from a good pair
				write(two, two)
				if step.want == "three" {
					write(three, three)
				}
				if err := c.Reload(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// TestReloadOfKubernetes replaces a symbolic link to the folder that has the files, as
// the kubelet does for a secret.
func TestReloadOfKubernetes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links require a privilege on Windows")
	}
	a, dir := newTestAuthority(t), t.TempDir()
	link := func(version string) {
		t.Helper()
		pair := a.issue(pkix.Name{CommonName: version})
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		writeData(t, filepath.Join(dir, version, "tls.crt"), pair)
		writeData(t, filepath.Join(dir, version, "tls.key"), pair)
		if err := os.Symlink(version, filepath.Join(dir, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("v1")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	c, err := openCertificates(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), discardLog())
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v2", "v3"} {
		link(version)
		if got := servedName(t, c); got == version {
			t.Errorf("the files were checked again before %v", checkFiles)
		}
		c.every = 0
		if got := servedName(t, c); got != version {
			t.Errorf("served %s, want %s", got, version)
		}
		c.every = checkFiles
	}
}

// TestHTTP2 checks that clients get HTTP/2 with each source of certificates, and
// HTTP/1.1 if they ask for that.
func TestHTTP2(t *testing.T) {
	a := newTestAuthority(t)
	pair := writeTemp(t, "pair.pem", a.issue(pkix.Name{}))
	client := mustParse(t, a.issue(pkix.Name{CommonName: "alice"}))
	dir := t.TempDir()
	for _, test := range []struct {
		name  string
		flags TLSFlags
	}{
		{"files", TLSFlags{TLSCert: pair, TLSKey: pair}},
		{"self_signed", TLSFlags{TLSSelfSigned: true, TLSDir: dir}},
		{"client_certificates", TLSFlags{TLSCert: pair, TLSKey: pair, TLSClientCA: a.file()}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, addr := serveTLS(t, test.flags, "127.0.0.1")
			roots := a.pool()
			if test.flags.TLSSelfSigned {
				roots = x509.NewCertPool()
				ca, err := os.ReadFile(filepath.Join(dir, caFile))
				if err != nil || !roots.AppendCertsFromPEM(ca) {
					t.Fatal(err)
				}
			}
			for want := 1; want <= 2; want++ {
				c := newHTTPClient(t, roots, *client)
				protocols := new(http.Protocols)
				protocols.SetHTTP1(want == 1)
				protocols.SetHTTP2(want == 2)
				c.Transport.(*http.Transport).Protocols = protocols
				resp, err := c.Get("https://" + addr.String())
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.ProtoMajor != want {
					t.Errorf("%s, want version %d", resp.Proto, want)
				}
			}
		})
	}
}
