// SPDX-License-Identifier: Apache-2.0

// Tokens with each request: RFC 6750, as the token protocol of the Docker
// registry has it.

package auth

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/berth-oci/registry"
)

// Token is what a token says that was verified.
type Token struct {
	// User is the user's name, empty for a client without credentials.
	User string
	// Grants are what the bearer may do.
	Grants []Grant
	// Expires is when it ends.
	Expires time.Time
}

// Grant is an entry of a token's access claim.
type Grant struct {
	// Type is "repository" or "registry".
	Type string `json:"type"`
	// Name is the repository's name, or "catalog" where Type is "registry".
	Name string `json:"name"`
	// Actions are, of a repository, those of this package but for Catalog; of
	// the catalog, "*". "*" of a repository is all of them.
	Actions []string `json:"actions"`
}

// may reports whether the token grants an action.
func (t Token) may(repo string, action Action) bool {
	kind, name := "repository", repo
	if action == Catalog {
		kind, name, action = "registry", "catalog", "*"
	}
	for _, g := range t.Grants {
		if g.Type != kind || g.Name != name {
			continue
		}
		for _, a := range g.Actions {
			if a == string(action) || a == "*" {
				return true
			}
		}
	}
	return false
}

// ErrTokenInvalid is said of a token that is malformed, forged, expired, not yet
// valid or for another service.
var ErrTokenInvalid = errors.New("invalid token")

// Bearer is middleware that takes tokens (RFC 6750) for service, the registry's
// name, of the token server at the URL realm; clients learn both by a
// challenge. What a token says, verify tells: [TokenServer.Verify] or
// [JWT.Verify].
//
// It answers 401 UNAUTHORIZED, with what the client is to ask the token server
// for, to a request without a token, with one that verify returns an error for
// (error="invalid_token"), or with one that does not grant what was asked
// (error="insufficient_scope").
//
// The last is a 401 too, and no 403: clients go to the token server for more
// on a 401 alone.
func Bearer(realm, service string, verify func(token string) (Token, error)) func(http.Handler) http.Handler {
	challenge := "Bearer realm=" + quote(realm) + ",service=" + quote(service)
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			need := needs(req)
			refused := func(fault string) {
				err := *registry.ErrUnauthorized
				c := challenge
				if scope := need.scope(); scope != "" {
					c += ",scope=" + quote(scope)
				}
				if fault != "" {
					c += ",error=" + quote(fault)
					err.Message = strings.ReplaceAll(fault, "_", " ")
				}
				err.Header = http.Header{"Www-Authenticate": {c}}
				refuse(w, r, &err)
			}

			fields := r.Header.Values("Authorization")
			if len(fields) == 0 {
				refused("")
				return
			}
			scheme, encoded, ok := strings.Cut(fields[0], " ")
			if !ok || !strings.EqualFold(scheme, "Bearer") || len(fields) > 1 {
				refused("invalid_token")
				return
			}
			token, err := verify(strings.TrimLeft(encoded, " "))
			if err != nil {
				refused("invalid_token")
				return
			}
			ctx, ok := admit(r.Context(), need, token.may)
			if !ok {
				refused("insufficient_scope")
				return
			}
			h.ServeHTTP(w, r.WithContext(withUser(ctx, token.User)))
		})
	}
}

// scope is what to ask a token server for. Who pushes also pulls: clients look
// first for what is there already.
func (a access) scope() string {
	switch a.action {
	case "":
		return ""
	case Catalog:
		return "registry:catalog:*"
	case Push:
		return "repository:" + a.repo + ":pull,push"
	}
	return "repository:" + a.repo + ":" + string(a.action)
}
