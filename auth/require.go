// SPDX-License-Identifier: Apache-2.0

// A policy behind tokens.

package auth

import (
	"net/http"

	"github.com/berth-oci/registry"
)

// Require is middleware behind [Bearer], [Basic] or [WithUser] that requires policy, too, for each
// request. Tokens grant rights in a repository, and are valid until they expire; policy
// can distinguish requests by more than their repository, and change at any time. It
// responds with 403 DENIED to a request that policy denies, and otherwise like Basic.
// If policy is nil, see [Policy].
func Require(policy Policy) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user := User(r.Context())
			req, _ := registry.ParseRequest(r)
			ctx, err := admit(r.Context(), neededAction(req), req, func(action Action, req registry.Request) error {
				return policy.check(r.Context(), user, action, req)
			})
			if err != nil {
				report(r.Context(), user, err)
				writeError(w, r, err)
				return
			}
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}
