// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestHtpasswd(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("wonder:land"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# users\n\nalice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := serveHandler(t, serveCmd{Htpasswd: file})
	open := serveHandler(t, serveCmd{Htpasswd: file, AnonymousPull: true})
	for _, c := range []struct {
		server         *httptest.Server
		method, path   string
		user, password string
		want           int
	}{
		{closed, "GET", "/healthz", "", "", 200},
		{closed, "GET", "/v2/", "", "", 401},
		{closed, "GET", "/v2/", "alice", "wonder:land", 200},
		{closed, "GET", "/v2/", "alice", "wonder:land", 200}, // known by now
		{closed, "GET", "/v2/", "alice", "wonder", 401},
		{closed, "GET", "/v2/", "bob", "wonder:land", 401},
		{closed, "GET", "/v2/a/tags/list", "", "", 401},
		{closed, "POST", "/v2/a/blobs/uploads/", "alice", "wonder:land", 202},
		{open, "GET", "/v2/a/tags/list", "", "", 404},
		{open, "POST", "/v2/a/blobs/uploads/", "", "", 401},
		{open, "GET", "/v2/_catalog", "", "", 401},
	} {
		req, _ := http.NewRequest(c.method, c.server.URL+c.path, nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		resp, err := c.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s as %q: %s, want %d", c.method, c.path, c.user, resp.Status, c.want)
		}
	}

	for _, text := range []string{"alice", "alice:secret", ":" + string(hash), "alice:{SHA}x"} {
		if _, err := readHtpasswd(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
