// SPDX-License-Identifier: Apache-2.0

// Passwords with each request: RFC 7617.

package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"

	"github.com/berth-oci/registry"
)

// ErrCredentials is returned by a [Check] if there is no such user or the
// password is wrong.
var ErrCredentials = errors.New("wrong user name or password")

// Check verifies a user's password. It returns nil if the password is right,
// ErrCredentials (or an error that wraps it) if it is wrong or there is no such
// user, and any other error if the check fails: see the package documentation.
// It should take the same time whether or not the user exists. The user is never
// empty.
type Check func(ctx context.Context, user, password string) error

// verify calls c. It returns registry.ErrUnauthorized for wrong credentials.
func (c Check) verify(ctx context.Context, user, password string) error {
	if c == nil || user == "" { // "" is a client without credentials, not a user
		return registry.ErrUnauthorized
	}
	err := c(ctx, user, password)
	if errors.Is(err, ErrCredentials) {
		return registry.ErrUnauthorized
	}
	return err
}

// Users maps the names of users to their passwords, in plain text. It is for
// tests, and for programs that are configured with such passwords. A program
// that stores other people's passwords should use a Check that compares hashes.
type Users map[string]string

// Check is a [Check]. Its timing reveals neither whether the user exists nor how
// much of the password is right.
func (u Users) Check(_ context.Context, user, password string) error {
	want, known := u[user]
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(password))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || !known {
		return ErrCredentials
	}
	return nil
}

// Known is the function of the same name in a [TokenServer].
func (u Users) Known(_ context.Context, user string) error {
	if _, known := u[user]; !known {
		return ErrCredentials
	}
	return nil
}

// Basic is middleware that accepts a user's name and password with each request
// (RFC 7617). The realm is a text for people. It responds with
//
//   - 401 UNAUTHORIZED, with a challenge for realm, to a request with wrong
//     credentials, and to one without credentials unless policy grants the
//     needed right to everyone;
//   - 403 DENIED to a request that policy denies to the user;
//   - 503 UNAVAILABLE, or the error that they return, if check or policy fails:
//     see the package documentation.
//
// Without credentials, the response to /v2/ is always a 401: a client that gets
// a 200 there never sends its password.
//
// It panics if check is nil. If policy is nil, see [Policy].
func Basic(realm string, check Check, policy Policy) func(http.Handler) http.Handler {
	if check == nil {
		panic("auth: Basic requires a Check")
	}
	unauthorized := *registry.ErrUnauthorized
	unauthorized.Header = http.Header{"Www-Authenticate": {`Basic realm=` + quote(realm) + `, charset="UTF-8"`}}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, err := authenticate(r, check, policy)
			switch {
			case err == nil:
				h.ServeHTTP(w, r.WithContext(ctx))
			case errors.Is(err, registry.ErrUnauthorized):
				writeError(w, r, &unauthorized)
			default:
				writeError(w, r, err)
			}
		})
	}
}

// authenticate returns the context in which the registry serves r. It returns
// registry.ErrUnauthorized if the client should send credentials, or different
// ones.
func authenticate(r *http.Request, check Check, policy Policy) (ctx context.Context, err error) {
	user, err := basicUser(r, check)
	defer func() { report(r.Context(), user, err) }()
	if err != nil {
		return nil, err
	}
	req, _ := registry.ParseRequest(r)
	action := neededAction(req)
	if user == "" && action == "" {
		err = registry.ErrUnauthorized
		return nil, err
	}
	ctx, err = admit(r.Context(), action, req, func(action Action, req registry.Request) error {
		return policy.check(r.Context(), user, action, req)
	})
	if user == "" && isDenied(err) {
		return nil, registry.ErrUnauthorized
	}
	return WithUser(ctx, user), err
}

// basicUser returns the user that r's credentials authenticate, "" if it has
// none. Errors: registry.ErrUnauthorized if they are wrong or malformed, and
// those of check.
//
// An empty name with an empty password counts as no credentials: some clients
// send that if they have none (containers/image, and so skopeo).
func basicUser(r *http.Request, check Check) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", nil
	}
	user, password, ok := r.BasicAuth()
	switch {
	case !ok || len(headers) > 1:
		return "", registry.ErrUnauthorized
	case user == "" && password == "":
		return "", nil
	}
	return user, check.verify(r.Context(), user, password)
}

// errUnavailable hides the text of a failure from the client.
var errUnavailable = &registry.Error{
	Status:     http.StatusServiceUnavailable,
	Code:       registry.ErrUnavailable.Code,
	Message:    "authentication is unavailable",
	RetryAfter: registry.ErrUnavailable.RetryAfter,
}

// writeError writes an error as the registry's response.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	registry.WriteError(w, r, publicError(err))
}

// publicError returns err if it wraps a *registry.Error, errUnavailable
// otherwise.
func publicError(err error) error {
	if e := (*registry.Error)(nil); errors.As(err, &e) {
		return err
	}
	return errUnavailable
}

// quote returns s as a quoted-string (RFC 9110 section 5.6.4), without the
// characters that can't be part of one.
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
