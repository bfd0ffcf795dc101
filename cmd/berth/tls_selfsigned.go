// SPDX-License-Identifier: Apache-2.0

// A certificate authority for one machine.

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Validity of the certificates of --tls-self-signed.
const (
	caValidity     = 10 * 365 * 24 * time.Hour
	serverValidity = 90 * 24 * time.Hour
	serverRenewal  = 30 * 24 * time.Hour // before its end
	renewalPause   = time.Minute         // after a failure
)

// Files of --tls-dir. Those with a key have it after the certificate: a file is replaced
// as a whole.
const (
	caFile       = "ca.crt" // for clients
	caKeyFile    = "ca-key.pem"
	serverFile   = "server-key.pem"
	certType     = "CERTIFICATE"
	keyType      = "PRIVATE KEY"
	organization = "Berth"
)

// selfSigned issues certificates for a server by an authority of its own.
type selfSigned struct {
	dir   string
	hosts []string
	log   *slog.Logger
	now   func() time.Time

	current atomic.Pointer[tls.Certificate]

	mu   sync.Mutex // held while a certificate is issued
	next time.Time  // no attempt before it
}

// openSelfSigned returns the authority in dir, with a certificate for hosts. It creates
// what is missing.
func openSelfSigned(dir string, hosts []string, log *slog.Logger) (*selfSigned, error) {
	s := &selfSigned{dir: dir, hosts: hosts, log: log, now: time.Now}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := s.renew(); err != nil {
		return nil, err
	}
	ca := filepath.Join(dir, caFile)
	log.Info("clients must trust the authority of this server's certificate", "ca", ca, "hosts", hosts)
	log.Info("curl trusts it with --cacert; docker, podman and skopeo, and containerd, if it is copied to HOST:PORT/ca.crt below /etc/docker/certs.d, /etc/containers/certs.d and /etc/containerd/certs.d")
	return s, nil
}

// GetCertificate is for a [tls.Config]. It renews the certificate if that is due; until
// that is done, other clients get the old one.
func (s *selfSigned) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if s.isDue(s.current.Load()) && s.mu.TryLock() {
		defer s.mu.Unlock()
		if now := s.now(); s.isDue(s.current.Load()) && !now.Before(s.next) {
			s.next = now.Add(renewalPause)
			if err := s.renew(); err != nil {
				s.log.Error("the certificate was not renewed", "error", err)
			} else {
				s.log.Info("the certificate was renewed", "expires", s.current.Load().Leaf.NotAfter)
			}
		}
	}
	return s.current.Load(), nil
}

// isDue reports whether it is time to renew a certificate.
func (s *selfSigned) isDue(cert *tls.Certificate) bool {
	return s.now().After(cert.Leaf.NotAfter.Add(-serverRenewal)) || s.now().Before(cert.Leaf.NotBefore)
}

// renew reads the certificate of the server, and issues another one unless it is for the
// same hosts, of the same authority, and fresh.
func (s *selfSigned) renew() error {
	ca, err := s.authority()
	if err != nil {
		return err
	}
	name := filepath.Join(s.dir, serverFile)
	cert, err := readPair(name)
	if err != nil || s.isDue(cert) || cert.Leaf.CheckSignatureFrom(ca.Leaf) != nil || !slices.Equal(certificateHosts(cert.Leaf), s.hosts) {
		if cert, err = s.issue(ca, name); err != nil {
			return err
		}
	}
	s.current.Store(cert)
	return nil
}

// authority returns the authority in dir, which it creates if there is none, or if it
// ends before a certificate that it would issue.
func (s *selfSigned) authority() (*tls.Certificate, error) {
	name := filepath.Join(s.dir, caKeyFile)
	ca, err := readPair(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if ca, err = s.create(name, false); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err // not replaced, since clients trust it
	case !ca.Leaf.IsCA:
		return nil, fmt.Errorf("%s is not the certificate of an authority", name)
	case s.now().Add(serverValidity).After(ca.Leaf.NotAfter):
		s.log.Warn("the authority expires, so a new one replaces it: clients must trust that", "expires", ca.Leaf.NotAfter)
		if ca, err = s.create(name, true); err != nil {
			return nil, err
		}
	}
	if info, err := os.Stat(name); err == nil && runtime.GOOS != "windows" && info.Mode()&0o077 != 0 {
		s.log.Warn("other users of this machine can access the key of the authority", "file", name, "mode", info.Mode())
	}
	public := pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: ca.Leaf.Raw})
	crt := filepath.Join(s.dir, caFile)
	if old, err := os.ReadFile(crt); err != nil || string(old) != string(public) {
		if err := writeFile(crt, public, 0o600); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// create makes an authority. Unless it may replace another one, it returns that which
// another process has made at the same time.
func (s *selfSigned) create(name string, replace bool) (*tls.Certificate, error) {
	machine, err := os.Hostname()
	if err != nil || machine == "" {
		machine = "localhost"
	}
	now := s.now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Berth on " + machine + " since " + now.UTC().Format(time.DateOnly), Organization: []string{organization}},
		NotBefore:             now.Add(-time.Hour), // clocks differ
		NotAfter:              now.Add(caValidity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	data, err := certify(template, nil)
	if err != nil {
		return nil, err
	}
	write := createFile
	if replace {
		write = writeFile
	}
	if err := write(name, data, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readPair(name)
}

// issue makes a certificate of ca for the server.
func (s *selfSigned) issue(ca *tls.Certificate, name string) (*tls.Certificate, error) {
	now := s.now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "localhost", Organization: []string{organization}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(serverValidity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, host := range s.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	data, err := certify(template, ca)
	if err != nil {
		return nil, fmt.Errorf("a certificate for %q: %w", s.hosts, err)
	}
	if err := writeFile(name, data, 0o600); err != nil {
		return nil, err
	}
	return parsePair(data)
}

// certify returns a certificate and its new key in PEM. The issuer is nil for one that
// signs itself.
func certify(template *x509.Certificate, issuer *tls.Certificate) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	parent, signer := template, any(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: certType, Bytes: cert})
	return append(data, pem.EncodeToMemory(&pem.Block{Type: keyType, Bytes: pkcs8})...), nil
}

// readPair reads a certificate and its key.
func readPair(name string) (*tls.Certificate, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	cert, err := parsePair(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cert, nil
}

func parsePair(data []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(data, data)
	return &cert, err
}

// certificateHosts returns the hosts of a certificate, in order.
func certificateHosts(cert *x509.Certificate) []string {
	list := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		list = append(list, ip.String())
	}
	slices.Sort(list)
	return list
}

// ownHosts returns the hosts of a certificate for a server on addrs, in order.
func ownHosts(addrs []string, all []net.Listener, more []string) []string {
	list := append([]string{"localhost", "127.0.0.1", "::1"}, more...)
	if machine, err := os.Hostname(); err == nil && isASCII(machine) {
		list = append(list, strings.ToLower(machine))
	}
	for _, addr := range addrs {
		if host, _, err := net.SplitHostPort(addr); err == nil && host != "" && !hasPrefix(addr, unixPrefix, systemdPrefix) {
			list = append(list, strings.ToLower(host))
		}
	}
	for _, l := range all { // sockets of systemd too
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			list = append(list, tcp.IP.String())
		}
	}
	list = slices.DeleteFunc(list, func(host string) bool {
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.IsUnspecified()
	})
	for i, host := range list {
		if addr, err := netip.ParseAddr(host); err == nil {
			list[i] = addr.Unmap().WithZone("").String()
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func hasPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}

func isASCII(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c >= 0x80 })
}
