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

// TestReadCertificate changes the files of a certificate, and checks that a good one is
// used and a bad one is not.
func TestReadCertificate(t *testing.T) {
	a := newTestAuthority(t)
	one, two, three := a.issue(pkix.Name{CommonName: "one"}), a.issue(pkix.Name{CommonName: "two"}), a.issue(pkix.Name{CommonName: "three"})
	old := a.issue(pkix.Name{CommonName: "old"}, expired)
	cert, key := writeTemp(t, "tls.crt", one), writeTemp(t, "tls.key", one)
	var logged bytes.Buffer
	c, err := openCertificates(cert, key, slog.New(slog.NewTextHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	transport := &serverTLS{files: []reader{c.read}}
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
		t.Run(step.name, func(t *testing.T) {
			logged.Reset()
			writeData(t, cert, step.cert)
			writeData(t, key, step.key)
			if err := reload(transport); (err == nil) != (step.err == "") || err != nil && !strings.Contains(err.Error(), step.err) {
				t.Errorf("%v, want %q", err, step.err)
			}
			for range 2 {
				if got := servedName(t, c); got != step.want {
					t.Errorf("served %s, want %s", got, step.want)
				}
			}
			if n := strings.Count(logged.String(), "has expired"); n > 1 || (n == 1) != (step.log != "") {
				t.Errorf("%d warnings: %s", n, &logged)
			}
		})
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
