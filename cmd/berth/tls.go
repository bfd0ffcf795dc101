// SPDX-License-Identifier: Apache-2.0

// TLS: flags, and certificates from files.

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
)

// TLSFlags are the flags of berth serve about TLS and HTTP/2.
type TLSFlags struct {
	TLSCert       string
	TLSKey        string
	TLSSelfSigned bool
	TLSDir        string
	ACMEDomain    []string
	ACMECache     string
	ACMEEmail     string
	ACMEDirectory string
	TLSClientCA   string
	TLSClientAuth string // "" is require
	H2C           bool
}

func (f *TLSFlags) define(set *pflag.FlagSet) {
	set.Var(existingFile(&f.TLSCert), "tls-cert", "Serve HTTPS with the certificate chain in this `FILE`, in PEM. It is read again when it changes.")
	set.Var(existingFile(&f.TLSKey), "tls-key", "The `FILE` of the certificate's private key, in PEM.")
	set.BoolVar(&f.TLSSelfSigned, "tls-self-signed", false, "Serve HTTPS with a certificate of an authority of its own, for localhost, the name of this machine, the host of --addr, and each --host. Clients must trust its ca.crt.")
	set.Var(anyPath(&f.TLSDir), "tls-dir", "Keep the authority of --tls-self-signed in this `DIR` (default: berth/tls in the user's configuration).")
	set.StringArrayVar(&f.ACMEDomain, "acme-domain", nil, "Serve HTTPS with a certificate for this domain `NAME` from Let's Encrypt, or from --acme-directory, whose terms of service you accept by this flag. The authority must reach this server at port 443 of the domain. Can be repeated.")
	set.Var(anyPath(&f.ACMECache), "acme-cache", "Keep the account and the certificates in this `DIR` (default: berth/acme in the user's configuration).")
	set.StringVar(&f.ACMEEmail, "acme-email", "", "`ADDRESS` for messages of the authority.")
	set.StringVar(&f.ACMEDirectory, "acme-directory", "", "`URL` of the authority's directory, instead of that of Let's Encrypt.")
	set.Var(existingFile(&f.TLSClientCA), "tls-client-ca", "Accept clients with a certificate of the authorities in this `FILE`, in PEM, as users. The user's name is the common name of the certificate, or else its first URI or e-mail address.")
	set.Var(enumValue{&f.TLSClientAuth, []string{"require", "optional"}}, "tls-client-auth", "`MODE` of these certificates: require or optional (default require). Without one, clients need another way to authenticate.")
	set.BoolVar(&f.H2C, "h2c", false, "Accept HTTP/2 without TLS too, from clients that know so beforehand. HTTP/2 over TLS needs no flag.")
}

// enabled reports whether the server speaks TLS.
func (f *TLSFlags) enabled() bool {
	return f.TLSCert != "" || f.TLSSelfSigned || len(f.ACMEDomain) > 0
}

// check returns an error for flags that contradict each other, or have no effect.
func (f *TLSFlags) check() error {
	sources := 0
	for _, given := range []bool{f.TLSCert != "", f.TLSSelfSigned, len(f.ACMEDomain) > 0} {
		if given {
			sources++
		}
	}
	switch acme := f.ACMECache != "" || f.ACMEEmail != "" || f.ACMEDirectory != ""; {
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key require each other")
	case sources > 1:
		return errors.New("only one of --tls-cert, --tls-self-signed and --acme-domain can be given")
	case f.TLSDir != "" && !f.TLSSelfSigned:
		return errors.New("--tls-dir requires --tls-self-signed")
	case acme && len(f.ACMEDomain) == 0:
		return errors.New("--acme-cache, --acme-email and --acme-directory require --acme-domain")
	case f.TLSClientCA != "" && !f.enabled():
		return errors.New("--tls-client-ca requires --tls-cert, --tls-self-signed or --acme-domain")
	case f.TLSClientAuth != "" && f.TLSClientCA == "":
		return errors.New("--tls-client-auth requires --tls-client-ca")
	case f.H2C && f.enabled():
		return errors.New("--h2c is for servers without TLS: over TLS, clients use HTTP/2 without a flag")
	}
	return nil
}

// checkFiles returns an error for files and names that the server could not use.
func (f *TLSFlags) checkFiles() error {
	if f.TLSCert != "" {
		if _, err := openCertificates(f.TLSCert, f.TLSKey, slog.New(slog.DiscardHandler)); err != nil {
			return fmt.Errorf("--tls-cert: %w", err)
		}
	}
	if f.TLSClientCA != "" {
		if _, err := (&clientAuthorities{file: f.TLSClientCA}).read(); err != nil {
			return fmt.Errorf("--tls-client-ca: %w", err)
		}
	}
	_, err := f.acmeDomains()
	return err
}

// protocols returns the protocols that the server speaks.
func (f *TLSFlags) protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	p.SetUnencryptedHTTP2(f.H2C)
	return p
}

// serverTLS is the TLS of a server.
type serverTLS struct {
	config  *tls.Config
	files   []reader              // read again by a reload
	clients *clientAuthorities    // nil: clients need no certificate
	start   func(context.Context) // runs while the server serves
}

// reader reads files again, and returns a function that puts them to use.
type reader func() (use func(), err error)

// openTLS returns the TLS that the flags ask for, or nil. The hosts are those of the
// server, for a certificate of its own.
func (f *TLSFlags) openTLS(hosts []string, log *slog.Logger) (*serverTLS, error) {
	if err := f.check(); err != nil || !f.enabled() {
		return nil, err
	}
	t := &serverTLS{
		config: &tls.Config{NextProtos: []string{"h2", "http/1.1"}},
		start:  func(context.Context) {},
	}
	switch {
	case f.TLSCert != "":
		c, err := openCertificates(f.TLSCert, f.TLSKey, log)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert: %w", err)
		}
		t.config.GetCertificate = c.GetCertificate
		t.files = append(t.files, c.read)
	case f.TLSSelfSigned:
		dir, err := configDir(f.TLSDir, "tls")
		if err != nil {
			return nil, fmt.Errorf("--tls-self-signed requires --tls-dir: %w", err)
		}
		s, err := openSelfSigned(dir, hosts, log)
		if err != nil {
			return nil, fmt.Errorf("--tls-self-signed: %w", err)
		}
		t.config.GetCertificate = s.GetCertificate
	default:
		if err := f.openACME(t, log); err != nil {
			return nil, err
		}
	}
	if f.TLSClientCA != "" {
		if err := f.requireClients(t); err != nil {
			return nil, fmt.Errorf("--tls-client-ca: %w", err)
		}
	}
	return t, nil
}

// read reads all files again, and returns a function that puts them to use.
func (t *serverTLS) read() (use func(), err error) {
	var uses []func()
	if t != nil {
		for _, read := range t.files {
			use, err := read()
			if err != nil {
				return nil, err
			}
			uses = append(uses, use)
		}
	}
	return func() {
		for _, use := range uses {
			use()
		}
	}, nil
}

// configDir returns dir, or by default a folder of the user's configuration.
func configDir(dir, name string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	config, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(config, "berth", name), nil
}

// certificates is a certificate from files.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]
	expired           atomic.Pointer[tls.Certificate] // the last that a warning was logged for
}

func openCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log}
	use, err := c.read()
	if err != nil {
		return nil, err
	}
	use()
	return c, nil
}

// read is a [reader].
func (c *certificates) read() (use func(), err error) {
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)
	}
	return func() {
		c.current.Store(&cert)
		c.warn(&cert)
	}, nil
}

// GetCertificate is for a [tls.Config].
func (c *certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert := c.current.Load()
	c.warn(cert)
	return cert, nil
}

// warn logs once if clients will reject a certificate for its time.
func (c *certificates) warn(cert *tls.Certificate) {
	now, leaf := time.Now(), cert.Leaf
	if now.Before(leaf.NotAfter) && now.After(leaf.NotBefore) || c.expired.Swap(cert) == cert {
		return
	}
	if now.Before(leaf.NotBefore) {
		c.log.Warn("the certificate is not valid yet", "file", c.certFile, "from", leaf.NotBefore)
	} else {
		c.log.Warn("the certificate has expired", "file", c.certFile, "at", leaf.NotAfter)
	}
}
