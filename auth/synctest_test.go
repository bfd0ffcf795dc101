// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package auth_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// TestLifetime checks that a token is valid for exactly its lifetime.
func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokenServer()
		tokens.Lifetime = time.Minute
		h := auth.Bearer("r", "registry.test", tokens.Verify)(registry.New())
		token := bearer(tokenFor(t, tokens, "alice"))
		ping := func() response { return call(t, h, "GET", "/v2/", "", token) }
		qt.Assert(t, qt.Equals(ping().StatusCode, 200))
		time.Sleep(time.Minute - time.Nanosecond)
		qt.Assert(t, qt.Equals(ping().StatusCode, 200))
		time.Sleep(time.Nanosecond)
		a := ping()
		qt.Assert(t, qt.Equals(a.StatusCode, 401))
		qt.Assert(t, qt.StringContains(a.Header.Get("Www-Authenticate"), `error="invalid_token"`))
	})
}

// TestRotationKeepsTheFirstExpiry checks that refresh tokens do not renew
// themselves for ever: daily rotation ends with the first one's 30 days.
func TestRotationKeepsTheFirstExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTokenServer()
		token := refreshToken(t, s)
		for range 29 {
			time.Sleep(24 * time.Hour)
			token = decodeToken(t, refreshWith(t, s, token)).RefreshToken
		}
		time.Sleep(24 * time.Hour)
		a := refreshWith(t, s, token)
		qt.Assert(t, qt.Equals(a.StatusCode, 401), qt.Commentf("%s", a.body))
	})
}

// TestThrottleForgets checks how long passwords are remembered.
func TestThrottleForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		check := auth.Throttle(func(ctx context.Context, user, password string) error {
			calls++
			return users.Check(ctx, user, password)
		}, 1, time.Minute)
		for _, test := range []struct {
			password string
			lifetime time.Duration
		}{{"wonderland", time.Minute}, {"wrong", 10 * time.Second}} {
			calls = 0
			check(t.Context(), "alice", test.password)
			time.Sleep(test.lifetime - time.Nanosecond)
			check(t.Context(), "alice", test.password)
			qt.Check(t, qt.Equals(calls, 1))
			time.Sleep(time.Nanosecond)
			check(t.Context(), "alice", test.password)
			qt.Check(t, qt.Equals(calls, 2))
		}
	})
}
