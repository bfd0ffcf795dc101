// SPDX-License-Identifier: Apache-2.0

// The users of a server, and how they log in.

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// users are the users of a server.
type users struct {
	passwords auth.Users // of --user
	file      *htpasswd  // nil: there is none
	fileCheck auth.Check
	rules     *rules // nil: users may do everything
	anonymous bool   // everyone may pull, if there are no rules
}

// hasUsers reports whether the server requires users to log in.
func (c *serveCmd) hasUsers() bool {
	return len(c.User) > 0 || c.Htpasswd != "" || len(c.TokenKeys) > 0 || c.TLSClientCA != ""
}

// checkUsers checks the flags about users.
func (c *serveCmd) checkUsers() error {
	passwords := len(c.User) > 0 || c.Htpasswd != ""
	switch {
	case c.AnonymousPull && !c.hasUsers():
		return errors.New("--anonymous-pull requires --user or --htpasswd: without users, anyone may push too")
	case c.AnonymousPull && c.TLSClientCA != "" && c.TLSClientAuth != "optional":
		return errors.New("--anonymous-pull requires --tls-client-auth=optional: otherwise all clients have a certificate")
	case c.AnonymousPull && c.Rules != "":
		return errors.New("--anonymous-pull and --rules exclude each other: let a rule allow anonymous to pull")
	case c.Rules != "" && !c.hasUsers():
		return errors.New("--rules requires users: see --user and --htpasswd")
	case c.Token && !passwords:
		return errors.New("--token requires --user or --htpasswd")
	case !c.Token && (c.TokenKeyFile != "" || c.TokenLifetime != 0):
		return errors.New("--token-key-file and --token-lifetime require --token")
	case c.TokenLifetime < 0:
		return errors.New("--token-lifetime requires a positive time")
	case len(c.TokenKeys) > 0 && c.Token:
		return errors.New("--token-keys and --token exclude each other: either another server issues tokens, or this one")
	case len(c.TokenKeys) > 0 && passwords:
		return errors.New("--token-keys excludes --user and --htpasswd: the server that issues tokens knows the users")
	case len(c.TokenKeys) > 0 && (c.TokenRealm == "" || c.TokenService == ""):
		return errors.New("--token-keys requires --token-realm, the URL at which clients get tokens, and --token-service, the name for which they are issued")
	case len(c.TokenKeys) == 0 && c.TokenIssuer != "":
		return errors.New("--token-issuer requires --token-keys")
	case len(c.TokenKeys) == 0 && !c.Token && (c.TokenRealm != "" || c.TokenService != ""):
		return errors.New("--token-realm and --token-service require --token or --token-keys")
	case len(c.TokenKeys) > 0 && c.AnonymousPull:
		return errors.New("--anonymous-pull has no effect with --token-keys: the server that issues tokens decides")
	}
	return nil
}

// loadUsers returns the users that the flags name.
func (c *serveCmd) loadUsers() (*users, error) {
	u := &users{passwords: make(auth.Users), anonymous: c.AnonymousPull}
	for _, entry := range c.User {
		name, password, ok := strings.Cut(entry, ":")
		if !ok || name == "" || password == "" {
			return nil, errors.New("--user requires a name and a password: NAME:PASSWORD")
		}
		if err := checkUserName(name); err != nil {
			return nil, fmt.Errorf("--user: %w", err)
		}
		if _, twice := u.passwords[name]; twice {
			return nil, fmt.Errorf("--user: the name %q occurs twice", name)
		}
		u.passwords[name] = password
	}
	var err error
	if c.Htpasswd != "" {
		if u.file, err = openHtpasswd(c.Htpasswd); err != nil {
			return nil, err
		}
		u.fileCheck = u.file.check()
		for name := range u.file.hashes {
			if err := checkUserName(name); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Htpasswd, err)
			}
			if _, twice := u.passwords[name]; twice {
				return nil, fmt.Errorf("%s: --user names %q, too", c.Htpasswd, name)
			}
		}
	}
	if c.Rules != "" {
		if u.rules, err = readRules(c.Rules); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// checkUserName rejects names that mean something else in rules.
func checkUserName(name string) error {
	if name == anonymous || name == everyone || name[0] == '@' {
		return fmt.Errorf("the name %q is reserved for rules", name)
	}
	return nil
}

// check is an [auth.Check].
func (u *users) check(ctx context.Context, user, password string) error {
	if _, ok := u.passwords[user]; ok || u.file == nil {
		return u.passwords.Check(ctx, user, password)
	}
	return u.fileCheck(ctx, user, password)
}

// known returns auth.ErrCredentials for a name that is no user's.
func (u *users) known(ctx context.Context, user string) error {
	if u.file != nil && u.file.hashes[user] != nil {
		return nil
	}
	return u.passwords.Known(ctx, user)
}

// policy is an [auth.Policy].
func (u *users) policy(ctx context.Context, user string, action auth.Action, req registry.Request) error {
	switch {
	case u.rules != nil:
		return u.rules.allow(ctx, user, action, req)
	case user != "" || u.anonymous && action == auth.Pull:
		return nil
	}
	return registry.ErrDenied
}

// groupsKey is the context key of the groups that a client's certificate names.
type groupsKey struct{}

func groupsOf(ctx context.Context) []string {
	groups, _ := ctx.Value(groupsKey{}).([]string)
	return groups
}

// authenticate returns middleware that lets users log in: by certificate, by password, or
// by token.
func (s *server) authenticate(c *serveCmd, u *users) (middleware func(http.Handler) http.Handler, err error) {
	byPassword := auth.Basic("berth", u.check, u.policy)
	switch {
	case c.Token:
		middleware, err = s.withTokens(c, u, byPassword)
	case len(c.TokenKeys) > 0:
		middleware, err = foreignTokens(c, u)
	default:
		middleware = byPassword
	}
	if err == nil && c.TLSClientCA != "" {
		middleware = withCertificates(c, u, middleware)
	}
	return middleware, err
}

// withCertificates returns middleware that lets users in by certificate. Other means have
// precedence, if there are any and a client uses them.
func withCertificates(c *serveCmd, u *users, others func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	only := len(c.User) == 0 && c.Htpasswd == "" && len(c.TokenKeys) == 0
	return func(h http.Handler) http.Handler {
		h, others := auth.Require(u.policy)(h), others(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, groups, ok := c.transport.clients.user(r)
			if !ok || !only && (r.Header.Get("Authorization") != "" || c.Token && r.URL.Path == tokenPath) {
				others.ServeHTTP(w, r)
				return
			}
			ctx := auth.WithUser(context.WithValue(r.Context(), groupsKey{}, groups), name)
			registry.ReportUser(ctx, name)
			h.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}
