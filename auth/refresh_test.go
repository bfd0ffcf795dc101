// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/auth"
)

// refreshToken returns a refresh token for alice.
func refreshToken(t testing.TB, s *auth.TokenServer) string {
	t.Helper()
	a := call(t, s, "GET", "/token?offline_token=true", "", as("alice"))
	return decodeToken(t, a).RefreshToken
}

// refreshWith sends a refresh token, and asks for another one.
func refreshWith(t testing.TB, s *auth.TokenServer, token string) response {
	t.Helper()
	return call(t, s, "POST", "/token", "grant_type=refresh_token&access_type=offline&refresh_token="+token, form)
}

func decodeToken(t testing.TB, a response) (token tokenResponse) {
	t.Helper()
	qt.Assert(t, qt.Equals(a.StatusCode, 200), qt.Commentf("%s", a.body))
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(a.body), &token)))
	return token
}

// TestRemovedUserCannotRefresh checks that a refresh token is of no use once its
// user does not exist any more.
func TestRemovedUserCannotRefresh(t *testing.T) {
	staff := maps.Clone(users)
	s := &auth.TokenServer{Service: "s", Check: staff.Check, Known: staff.Known}
	token := refreshToken(t, s)
	token = decodeToken(t, refreshWith(t, s, token)).RefreshToken
	delete(staff, "alice")
	a := refreshWith(t, s, token)
	qt.Assert(t, qt.Equals(a.StatusCode, 401), qt.Commentf("%s", a.body))
	qt.Assert(t, qt.Equals(a.code(), "UNAUTHORIZED"))
}

// TestNoRefreshTokensWithoutKnown checks that a server which can't tell whether a
// user still exists neither issues refresh tokens nor accepts those of another.
func TestNoRefreshTokensWithoutKnown(t *testing.T) {
	other := newTokenServer()
	other.Key = newEd25519(t)
	s := newTokenServer()
	s.Key, s.Known = other.Key, nil
	qt.Check(t, qt.Equals(refreshToken(t, s), ""))
	qt.Check(t, qt.Equals(refreshWith(t, s, refreshToken(t, other)).StatusCode, 401))
}
