// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package auth_test

import (
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
