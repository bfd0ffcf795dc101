// SPDX-License-Identifier: Apache-2.0

// Tokens with each request: RFC 6750, as in the token protocol of the Docker
// registry.

package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/berth-oci/registry"
)

// Token is the content of a verified token.
type Token struct {
	// User is the user's name, empty for a client without credentials.
	User string
	// Grants are the rights of the bearer.
	Grants []Grant
	// Expires is when the token expires.
	Expires time.Time
}

// Grant is an entry of a token's access claim.
type Grant struct {
	// Type is "repository" or "registry".
	Type string `json:"type"`
	// Name is the repository's name, or "catalog" if Type is "registry".
	Name string `json:"name"`
	// Actions are granted in the repository: Pull, Push, Create, Delete or
	// "*", which is all of them. For the catalog, the only one is "*".
	Actions []string `json:"actions"`
}

// check decides like a Policy that allows exactly the token's grants.
func (t Token) check(action Action, req registry.Request) error {
	kind, name, granted := "repository", req.Repo, action
	if action == Catalog {
		kind, name, granted = "registry", "catalog", "*"
	}
	switch {
	case t.grants(kind, name, granted):
		return nil
	case action == Push && t.grants(kind, name, Create):
		return ErrCreateOnly
	}
	return registry.ErrDenied
}

func (t Token) grants(kind, name string, action Action) bool {
	return slices.ContainsFunc(t.Grants, func(g Grant) bool {
		return g.Type == kind && g.Name == name &&
			(slices.Contains(g.Actions, string(action)) || slices.Contains(g.Actions, "*"))
	})
}

// ErrTokenInvalid is returned for a token that is malformed, forged, expired, not
// yet valid or meant for another service.
var ErrTokenInvalid = errors.New("invalid token")

// Bearer is middleware that accepts tokens (RFC 6750) for service, the
// registry's name, issued by the token server at the URL realm. A challenge tells
// clients both. The function verify returns a token's content, as
// [TokenServer.Verify] does, or the Verifier of module
// github.com/berth-oci/registry/tokens for the tokens of other servers;
// ErrTokenInvalid, or an error that wraps it, if the token is not valid; and any
// other error if the verification fails.
//
// It responds with 401 UNAUTHORIZED, and the scope to request from the token
// server, to a request without a token, with an invalid one
// (error="invalid_token"), or with one that does not grant the needed right
// (error="insufficient_scope"). The last is not a 403, because clients request a
// token with more rights only after a 401.
//
// If verify fails, it responds with 503 UNAVAILABLE, or with the error that
// verify returns: see the package documentation.
//
// It panics if verify is nil.
func Bearer(realm, service string, verify func(ctx context.Context, token string) (Token, error)) func(http.Handler) http.Handler {
	if verify == nil {
		panic("auth: Bearer requires a function that verifies tokens")
	}
	challenge := "Bearer realm=" + quote(realm) + ",service=" + quote(service)
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, _ := registry.ParseRequest(r)
			action := neededAction(req)
			reject := func(fault string, token Token, reason error) {
				report(r.Context(), token.User, reason)
				err := *registry.ErrUnauthorized
				c := challenge
				if scope := neededScope(action, req.Repo); scope != "" {
					c += ",scope=" + quote(scope)
				}
				if fault != "" {
					c += ",error=" + quote(fault)
					err.Message = strings.ReplaceAll(fault, "_", " ")
				}
				err.Header = http.Header{"Www-Authenticate": {c}}
				writeError(w, r, &err)
			}

			headers := r.Header.Values("Authorization")
			if len(headers) == 0 {
				reject("", Token{}, registry.ErrUnauthorized)
				return
			}
			scheme, encoded, ok := strings.Cut(headers[0], " ")
			if !ok || !strings.EqualFold(scheme, "Bearer") || len(headers) > 1 {
				reject("invalid_token", Token{}, ErrTokenInvalid)
				return
			}
			token, err := verify(r.Context(), strings.TrimLeft(encoded, " "))
			switch {
			case errors.Is(err, ErrTokenInvalid) || errors.Is(err, registry.ErrUnauthorized):
				reject("invalid_token", token, err)
				return
			case err != nil:
				report(r.Context(), token.User, err)
				writeError(w, r, err)
				return
			}
			ctx, err := admit(r.Context(), action, req, token.check)
			if err != nil {
				reject("insufficient_scope", token, err)
				return
			}
			report(r.Context(), token.User, nil)
			h.ServeHTTP(w, r.WithContext(WithUser(ctx, token.User)))
		})
	}
}

// neededScope returns the scope to request from a token server for an action.
// For Push it includes pull, because clients check which content the registry has
// before they push.
func neededScope(action Action, repo string) string {
	switch action {
	case "":
		return ""
	case Catalog:
		return "registry:catalog:*"
	case Push:
		return "repository:" + repo + ":pull,push"
	}
	return "repository:" + repo + ":" + string(action)
}
