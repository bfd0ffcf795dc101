// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry/auth"
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

	for _, text := range []string{"alice", "alice:secret", ":" + string(hash), "alice:{SHA}x", "alice:" + string(hash) + "\nalice:" + string(hash), "alice:$2a$31$" + string(hash)[7:]} {
		if _, err := readHtpasswd(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestFloodOfPasswords sends many wrong passwords at once, for a user that exists
// and for others. Only some of them are hashed; the rest is told to come back
// later, and a user whose password is known does not wait.
func TestFloodOfPasswords(t *testing.T) {
	s := serveHandler(t, serveCmd{Htpasswd: htpasswdFile(t, bcrypt.DefaultCost)})
	ping := func(user, password string) (status int, retryAfter string) {
		req, _ := http.NewRequest("GET", s.URL+"/v2/", nil)
		req.SetBasicAuth(user, password)
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	if status, _ := ping("alice", "wonderland"); status != 200 {
		t.Fatal(status)
	}
	var mu sync.Mutex
	statuses := make(map[int]int)
	var flood sync.WaitGroup
	for i := range 300 {
		flood.Go(func() {
			user := "alice"
			if i%2 == 0 {
				user = fmt.Sprint("user", i)
			}
			status, retryAfter := ping(user, fmt.Sprint("wrong", i))
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
			if status == 429 && retryAfter != "1" {
				t.Errorf("Retry-After is %q", retryAfter)
			}
		})
	}
	for range 10 {
		if status, _ := ping("alice", "wonderland"); status != 200 {
			t.Errorf("the cached user got %d", status)
		}
	}
	flood.Wait()
	if statuses[401] == 0 || statuses[429] == 0 || statuses[401]+statuses[429] != 300 {
		t.Error(statuses)
	}
}

// TestHashesOfAFlood counts hashes: one for each password, at the same costs for
// users that exist and that don't, and none for a password that is repeated.
func TestHashesOfAFlood(t *testing.T) {
	var file strings.Builder
	for i := range 20 {
		hash, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost+i%2)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "user%d:%s\n", i, hash)
	}
	users, err := readHtpasswd(strings.NewReader(file.String()))
	if err != nil {
		t.Fatal(err)
	}
	costs := make(map[int]int)
	users.compare = func(hash, _ []byte) error {
		cost, err := bcrypt.Cost(hash)
		if err != nil {
			t.Error(err)
		}
		costs[cost]++
		return bcrypt.ErrMismatchedHashAndPassword
	}
	check := users.check()
	for _, name := range []string{"user", "nobody"} {
		clear(costs)
		for range 3 {
			for i := range 20 {
				if err := check(t.Context(), fmt.Sprint(name, i), "wrong"); err != auth.ErrCredentials {
					t.Error(err)
				}
			}
		}
		if len(costs) != 2 || costs[bcrypt.MinCost]+costs[bcrypt.MinCost+1] != 20 {
			t.Errorf("%s: %v hashes of each cost", name, costs)
		}
	}
	clear(costs)
	for i := range 5 { // an unknown user's cost does not change
		check(t.Context(), "nobody", fmt.Sprint(i))
	}
	if len(costs) != 1 {
		t.Error(costs)
	}
}
