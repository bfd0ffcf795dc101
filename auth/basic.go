// SPDX-License-Identifier: Apache-2.0

// Passwords with each request: RFC 7617.

package auth

import (
	"net/http"

	"github.com/berth-oci/registry"
)

// Basic is middleware that takes a user's name and password with each request
// (RFC 7617). It answers
//
//   - 401 UNAUTHORIZED, with a challenge for realm, to a request without
//     credentials, unless policy grants it to everyone, and to wrong ones;
//   - 403 DENIED to a user who may not do what was asked.
//
// The realm is a text for people. Without credentials /v2/ is always a 401: a
// client that finds it open never sends its password.
func Basic(realm string, check func(user, password string) bool, policy Policy) func(http.Handler) http.Handler {
	unauthorized := *registry.ErrUnauthorized
	unauthorized.Header = http.Header{"Www-Authenticate": {`Basic realm=` + quote(realm) + `, charset="UTF-8"`}}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, given, ok := password(r, check)
			req, _ := registry.ParseRequest(r)
			need := needs(req)
			anonymous := !given && need.action != ""
			if !ok || !given && !anonymous {
				refuse(w, r, &unauthorized)
				return
			}
			ctx, ok := admit(r.Context(), need, func(repo string, action Action) bool { return policy.allows(user, repo, action) })
			switch {
			case ok:
				h.ServeHTTP(w, r.WithContext(withUser(ctx, user)))
			case anonymous:
				refuse(w, r, &unauthorized)
			default:
				refuse(w, r, registry.ErrDenied)
			}
		})
	}
}

// password returns the user whose credentials r has. Without any, given is
// false; ok is false if they are wrong or malformed.
//
// An empty name with an empty password is what some clients send that have no
// credentials (containers/image, and so skopeo), and is taken for that.
func password(r *http.Request, check func(user, password string) bool) (user string, given, ok bool) {
	fields := r.Header.Values("Authorization")
	if len(fields) == 0 {
		return "", false, true
	}
	user, pass, ok := r.BasicAuth()
	switch {
	case !ok || len(fields) > 1:
		return "", true, false
	case user == "" && pass == "":
		return "", false, true
	case user == "" || !check(user, pass): // "" is nobody, not a user
		return "", true, false
	}
	return user, true, true
}

// refuse answers in the registry's stead.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	registry.WriteError(w, r, err)
}

// quote returns s as a quoted-string (RFC 9110 section 5.6.4), without what
// that can't have.
func quote(s string) string {
	quoted := []byte{'"'}
	for _, c := range []byte(s) {
		switch {
		case c < ' ' || c == 0x7f:
			continue
		case c == '"' || c == '\\':
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, c)
	}
	return string(append(quoted, '"'))
}
