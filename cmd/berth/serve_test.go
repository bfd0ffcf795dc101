// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// TestMemory checks that --memory bounds requests in progress with every store:
// the registry derives the limit from a MemStore, the command from the flag.
func TestMemory(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags serveCmd
		want  int64
	}{
		{"unlimited", serveCmd{store: new(ocidir.Store)}, 0},
		{"mem", serveCmd{Memory: 1 << 30, store: new(registry.MemStore)}, 0},
		{"dir", serveCmd{Memory: 1 << 30, store: new(ocidir.Store)}, 128 << 20},
		{"dir_at_least_one_manifest", serveCmd{Memory: 64 << 20, store: new(ocidir.Store)}, 16<<20 + 16<<10},
		{"dir_small_manifests", serveCmd{Memory: 64 << 20, MaxManifest: 1 << 20, store: new(ocidir.Store)}, 8 << 20},
		{"dir_less_than_one_manifest", serveCmd{Memory: 1 << 20, store: new(ocidir.Store)}, 4<<20 + 16<<10},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.flags.limits().InFlightBytes; got != test.want {
				t.Errorf("%d bytes, want %d", got, test.want)
			}
		})
	}
	l := (&serveCmd{Memory: 1 << 20, Disk: 1 << 30, MaxUploads: 3}).memLimits()
	if l.TotalBytes != 1<<20+1<<30 || l.MemoryBytes != 1<<20 || l.Uploads != 3 {
		t.Errorf("%+v", l)
	}
}

// TestUsersWithCertificates checks who is asked for a password if clients may have
// certificates.
func TestUsersWithCertificates(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := writeTemp(t, "users", []byte("alice:"+string(hash)+"\n"))
	for _, test := range []struct {
		name        string
		flags       serveCmd
		certificate bool
		password    string
		want        int
		user        string
	}{
		{"certificate", serveCmd{}, true, "", 202, "bob"},
		{"neither", serveCmd{}, false, "", 401, ""},
		{"password_without_users", serveCmd{}, false, "wonderland", 401, "alice"},
		{"certificate_and_password_without_users", serveCmd{}, true, "wonderland", 202, "bob"},
		{"anonymous_push", serveCmd{AnonymousPull: true}, false, "", 401, ""},
		{"certificate_and_users", serveCmd{Htpasswd: users}, true, "", 202, "bob"},
		{"password", serveCmd{Htpasswd: users}, false, "wonderland", 202, "alice"},
		{"password_before_certificate", serveCmd{Htpasswd: users}, true, "wonderland", 202, "alice"},
		{"wrong_password_with_certificate", serveCmd{Htpasswd: users}, true, "wrong", 401, "alice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.flags.TLSClientCA, test.flags.TLSClientAuth = "ca.pem", "optional"
			c := &test.flags
			root := &x509.Certificate{Raw: []byte("root")}
			c.transport = &serverTLS{clients: new(clientAuthorities)}
			c.transport.clients.current.Store(&trusted{roots: []*x509.Certificate{root}})
			u, err := c.loadUsers()
			if err != nil {
				t.Fatal(err)
			}
			authenticate, err := new(server).authenticate(c, u)
			if err != nil {
				t.Fatal(err)
			}
			h := authenticate(registry.New())
			var user string
			h = registry.Observe(func(e registry.Event) { user = e.User })(h)
			r := httptest.NewRequest("POST", "/v2/a/blobs/uploads/", nil)
			if test.certificate {
				r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "bob"}, NotAfter: time.Now().Add(time.Hour)}, root}}}
			}
			if test.password != "" {
				r.SetBasicAuth("alice", test.password)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != test.want || user != test.user {
				t.Errorf("%d %q, want %d %q", w.Code, user, test.want, test.user)
			}
		})
	}
}
