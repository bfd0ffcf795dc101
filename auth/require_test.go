// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// tokenFor returns a token, or a refresh token, of s.
func issue(t *testing.T, s *auth.TokenServer, user, scope string, refresh bool) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/token?service=s&offline_token=true&scope="+scope, nil)
	r.SetBasicAuth(user, "password")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	var resp struct {
		Token   string `json:"token"`
		Refresh string `json:"refresh_token"`
	}
	qt.Assert(t, qt.Equals(w.Code, 200))
	qt.Assert(t, qt.IsNil(json.Unmarshal(w.Body.Bytes(), &resp)))
	if refresh {
		return resp.Refresh
	}
	return resp.Token
}

// TestRequire changes a policy while tokens are valid that grant more.
func TestRequire(t *testing.T) {
	users := auth.Users{"alice": "password"}
	tokens := &auth.TokenServer{Service: "s", Check: users.Check}
	token := issue(t, tokens, "alice", "repository:a:pull,push&scope=repository:b:pull&scope=repository:c:pull", false)
	allowed := map[string]error{}
	policy := func(_ context.Context, user string, action auth.Action, req registry.Request) error {
		qt.Check(t, qt.Equals(user, "alice"))
		if req.Repo == "c" || req.Repo == "other" {
			return registry.ErrDenied
		}
		return allowed[string(action)+" "+req.Tag]
	}
	m := new(registry.MemStore)
	for _, repo := range []string{"b", "c", "d"} {
		qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), m, repo, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", strings.NewReader(""))))
	}
	h := auth.Bearer("http://r/token", "s", tokens.Verify)(auth.Require(policy)(registry.New(registry.WithStore(m))))
	const mount = "/v2/a/blobs/uploads/?mount=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855&from="
	for _, c := range []struct {
		name         string
		method, path string
		err          error // of the policy for the push
		want         int
	}{
		{"allowed", "PUT", "/v2/a/manifests/v1", nil, 201},
		{"denied", "PUT", "/v2/a/manifests/v1", registry.ErrDenied, 403},
		{"the same manifest again", "PUT", "/v2/a/manifests/v1", auth.ErrCreateOnly, 201},
		{"/v2/", "GET", "/v2/", nil, 200},
		{"not granted by the token", "GET", "/v2/d/tags/list", nil, 401},
		{"mount", "POST", mount + "b", nil, 201},
		{"mount that the policy denies", "POST", mount + "c", nil, 202},
		{"mount that the token does not grant", "POST", mount + "d", nil, 202},
	} {
		t.Run(c.name, func(t *testing.T) {
			allowed["push v1"] = c.err
			r := httptest.NewRequest(c.method, c.path, strings.NewReader("{}"))
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "text/plain")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code, c.want), qt.Commentf("%s", w.Body))
		})
	}
}

// TestOldKeys changes the key of a token server.
func TestOldKeys(t *testing.T) {
	newKey := func() crypto.Signer {
		_, key, err := ed25519.GenerateKey(nil)
		qt.Assert(t, qt.IsNil(err))
		return key
	}
	users := auth.Users{"alice": "password"}
	server := func(key crypto.Signer, old ...crypto.Signer) *auth.TokenServer {
		return &auth.TokenServer{Service: "s", Check: users.Check, Known: users.Known, Key: key, OldKeys: old}
	}
	first, second := newKey(), newKey()
	before := server(first)
	token, refresh := issue(t, before, "alice", "", false), issue(t, before, "alice", "", true)
	for _, c := range []struct {
		name   string
		server *auth.TokenServer
		ok     bool
	}{
		{"same key", server(first), true},
		{"old key", server(second, first), true},
		{"forgotten key", server(second), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.server.Verify(t.Context(), token)
			qt.Check(t, qt.Equals(err == nil, c.ok), qt.Commentf("%v", err))
			r := httptest.NewRequest("POST", "/token", strings.NewReader("grant_type=refresh_token&service=s&client_id=x&refresh_token="+refresh))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			c.server.ServeHTTP(w, r)
			qt.Check(t, qt.Equals(w.Code == http.StatusOK, c.ok), qt.Commentf("%s", w.Body))
		})
	}
	qt.Check(t, qt.IsNotNil(server(first, nil).Validate()))
}
