// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

const exampleRules = `
groups:
  ci: [robot, alice]
rules:
- users: [anonymous]
  repositories: [public/**]
  actions: [pull]
- users: ["*"]
  repositories: [library/*]
  actions: [pull]
- users: ["@ci"]
  repositories: [public/**]
  actions: [pull, push, delete]
  immutable-tags: [v*]
- users: [robot]
  repositories: [team/app]
  actions: [pull, create]
- users: [admin]
  repositories: ["**"]
  actions: ["*"]
- users: [alice]
  actions: [catalog]
- users: [owner]
  repositories: [team/**]
  actions: ["*"]
`

// rulesFile writes rules to a file and returns its name.
func rulesFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestRules sends requests by different users, in order, with passwords and with tokens.
func TestRules(t *testing.T) {
	flags := serveCmd{User: []string{"alice:a", "robot:r", "admin:x", "owner:o"}, Rules: rulesFile(t, exampleRules), AllowSparse: true}
	withTokens := flags
	withTokens.Token = true
	for name, c := range map[string]serveCmd{"password": flags, "token": withTokens} {
		t.Run(name, func(t *testing.T) {
			s := serveHandler(t, c)
			for _, step := range []struct {
				user         string // name:password, "" for none
				method, path string
				body         string // of a manifest
				want         int
			}{
				{"", "GET", "/v2/", "", 401},
				{"alice:a", "GET", "/v2/", "", 200},
				{"alice:wrong", "GET", "/v2/", "", 401},
				// Everyone, with and without a password.
				{"", "GET", "/v2/library/x/tags/list", "", 404},
				{"alice:a", "GET", "/v2/library/x/tags/list", "", 404},
				{"", "GET", "/v2/library/x/y/tags/list", "", 401},
				// Anonymous is not everyone.
				{"", "GET", "/v2/public/x/tags/list", "", 404},
				{"robot:r", "GET", "/v2/team/other/tags/list", "", 403},
				{"", "PUT", "/v2/public/x/manifests/latest", "1", 401},
				// A group, with immutable tags.
				{"alice:a", "PUT", "/v2/public/x/manifests/latest", "1", 201},
				{"alice:a", "PUT", "/v2/public/x/manifests/latest", "2", 201},
				{"alice:a", "PUT", "/v2/public/x/manifests/v1", "1", 201},
				{"robot:r", "PUT", "/v2/public/x/manifests/v1", "1", 201},
				{"robot:r", "PUT", "/v2/public/x/manifests/v1", "2", 403},
				{"robot:r", "DELETE", "/v2/public/x/manifests/v1", "", 403},
				{"robot:r", "DELETE", "/v2/public/x/manifests/" + digest.FromString("1").String(), "", 403},
				{"robot:r", "DELETE", "/v2/public/x/manifests/latest", "", 202},
				{"admin:x", "PUT", "/v2/public/x/manifests/v1", "2", 201},
				{"admin:x", "DELETE", "/v2/public/x/manifests/v1", "", 202},
				{"alice:a", "POST", "/v2/public/x/blobs/uploads/?digest=" + digest.FromString("layer").String(), "layer", 201},
				{"robot:r", "DELETE", "/v2/public/x/blobs/" + digest.FromString("layer").String(), "", 403}, // of v1, perhaps
				{"admin:x", "DELETE", "/v2/public/x/blobs/" + digest.FromString("layer").String(), "", 202},
				// Create.
				{"robot:r", "PUT", "/v2/team/app/manifests/a", "1", 201},
				{"robot:r", "PUT", "/v2/team/app/manifests/a", "2", 403},
				{"robot:r", "DELETE", "/v2/team/app/manifests/a", "", 403},
				{"alice:a", "GET", "/v2/team/app/tags/list", "", 403},
				// The list of all repositories.
				{"alice:a", "GET", "/v2/_catalog", "", 200},
				{"robot:r", "GET", "/v2/_catalog", "", 403},
				{"admin:x", "GET", "/v2/_catalog", "", 200},
				{"owner:o", "GET", "/v2/team/x/tags/list", "", 404},
				{"owner:o", "GET", "/v2/_catalog", "", 403},
				{"", "GET", "/v2/_catalog", "", 401},
			} {
				r, _ := http.NewRequest(step.method, s.URL+step.path, strings.NewReader(step.body))
				r.Header.Set("Content-Type", "text/plain")
				status := send(t, s, r, step.user, c.Token)
				if c.Token && step.want == 403 && status == 401 {
					status = 403 // a token without the right: the client may get one with more
				}
				if c.Token && step.user == "" && step.path == "/v2/" {
					step.want = 200 // by an anonymous token
				}
				if status != step.want {
					t.Errorf("%s as %q: %d, want %d", step.method+" "+step.path, step.user, status, step.want)
				}
			}
		})
	}
}

// send sends a request as a user, or with a token for that. It returns the status.
func send(t *testing.T, s *httptest.Server, r *http.Request, user string, byToken bool) int {
	t.Helper()
	name, password, ok := strings.Cut(user, ":")
	switch {
	case byToken:
		token, status := fetchToken(t, s, r, user)
		if status != http.StatusOK {
			return status
		}
		r.Header.Set("Authorization", "Bearer "+token)
	case ok:
		r.SetBasicAuth(name, password)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// fetchToken does what a client does after the response 401.
func fetchToken(t *testing.T, s *httptest.Server, r *http.Request, user string) (token string, status int) {
	t.Helper()
	probe, err := s.Client().Do(r.Clone(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	probe.Body.Close()
	r.Body, _ = r.GetBody()
	challenge := probe.Header.Get("WWW-Authenticate")
	scope := ""
	if _, rest, ok := strings.Cut(challenge, `scope="`); ok {
		scope, _, _ = strings.Cut(rest, `"`)
	}
	if !strings.Contains(challenge, `realm="`+s.URL+`/token"`) {
		t.Fatalf("%s %s: challenge %q", probe.Status, r.URL, challenge)
	}
	get, _ := http.NewRequest("GET", s.URL+"/token?service=berth&scope="+scope, nil)
	if name, password, ok := strings.Cut(user, ":"); ok {
		get.SetBasicAuth(name, password)
	}
	resp, err := s.Client().Do(get)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct{ Token string }
	json.NewDecoder(resp.Body).Decode(&body)
	return body.Token, resp.StatusCode
}

// TestKeysOfTokensAreRotated reads the same file at different times.
func TestKeysOfTokensAreRotated(t *testing.T) {
	name := filepath.Join(t.TempDir(), "keys.pem")
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		day  int
		want int // keys
	}{
		{0, 1}, {1, 1}, {90, 1}, {91, 2}, {120, 2}, {122, 1}, {182, 2}, {1000, 1},
	} {
		keys, err := rotateKeys(name, start.AddDate(0, 0, test.day))
		if err != nil || len(keys) != test.want {
			t.Errorf("day %d: %d keys, %v; want %d", test.day, len(keys), err, test.want)
		}
	}
	if err := os.WriteFile(name, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rotateKeys(name, start); err == nil || !strings.Contains(err.Error(), "is no file of private keys in PEM") {
		t.Errorf("%v", err)
	}
}
