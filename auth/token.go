// SPDX-License-Identifier: Apache-2.0

// The token server: the "Docker Registry v2 authentication via central
// service", by GET and by POST (OAuth 2.0, RFC 6749).

package auth

import (
	"cmp"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// TokenServer issues and verifies tokens. It is an [http.Handler], to be served
// at the realm of [Bearer].
//
//   - GET takes the parameters service, scope (once or several times) and
//     offline_token, and a user's name and password by Basic authentication.
//   - POST takes a form with grant_type ("password" or "refresh_token"),
//     service, scope (separated by spaces), access_type, username and password,
//     or refresh_token.
//
// A token grants those of the requested rights that the Policy allows, possibly
// none. Without credentials, the token has no user. The response contains the
// token twice, as token and as access_token, and its lifetime in seconds as
// expires_in. With offline_token=true, or access_type=offline, it also contains
// a refresh_token, which a user can send instead of a password if Known is set.
//
// It responds with 400 to a request that is malformed or for another service,
// with 401 to wrong credentials, and with 503 UNAVAILABLE, or the error that
// they return, if Check, Known or Policy fails: see the package documentation.
type TokenServer struct {
	// Service is the registry's name, the audience of the tokens.
	Service string

	// Check verifies passwords. If it is nil, there are no users.
	Check Check

	// Known verifies that a user still exists, each time that a refresh token
	// is used: the password is not asked again. It returns the errors of a
	// [Check]. If it is nil, the server issues no refresh tokens and accepts
	// none.
	Known func(ctx context.Context, user string) error

	// Policy decides which rights are granted. In the request that it gets,
	// only Repo is set, since a token is valid for every request to a
	// repository.
	Policy Policy

	// Key signs the tokens: an Ed25519 key (alg EdDSA), an ECDSA key on P-256
	// (ES256), P-384 (ES384) or P-521 (ES512), or an RSA key of at least 2048
	// bits (RS256). If it is nil, the server generates an Ed25519 key, and
	// tokens become invalid when the process ends.
	Key crypto.Signer

	// OldKeys are keys that signed tokens before Key, which are still accepted:
	// a new Key logs nobody out. After RefreshLifetime an old key is not needed
	// anymore.
	OldKeys []crypto.Signer

	// Issuer is the iss claim of the tokens; it may be empty.
	Issuer string

	// Lifetime is how long a token is valid: five minutes by default.
	// RefreshLifetime is the same for refresh tokens: 30 days by default. A
	// refresh token obtained with another one expires with it, so that a user
	// must send the password again after this time.
	Lifetime, RefreshLifetime time.Duration

	// Opaque encrypts the tokens, except refresh tokens, so that only this
	// TokenServer can read them.
	Opaque bool

	once sync.Once
	keys []tokenKey  // of Key, or of the generated one, and of OldKeys
	err  error       // the reason why a key can't be used
	seal cipher.AEAD // for Opaque
}

// init prepares s. It returns errKey if s can't work.
func (s *TokenServer) init() error {
	s.once.Do(func() {
		signer := s.Key
		if signer == nil {
			_, signer, _ = ed25519.GenerateKey(nil) // crypto/rand never fails
		}
		for _, signer := range append([]crypto.Signer{signer}, s.OldKeys...) {
			key, err := newTokenKey(signer)
			s.keys = append(s.keys, key)
			s.err = cmp.Or(s.err, err)
		}
		secret := make([]byte, 32)
		rand.Read(secret)
		block, _ := aes.NewCipher(secret)
		s.seal, _ = cipher.NewGCMWithRandomNonce(block)
	})
	return s.err
}

// Validate reports why s can't issue tokens: one of its keys is of a kind that it does not
// support. A program should call it when it starts; otherwise each request fails.
// No field may be changed afterwards.
func (s *TokenServer) Validate() error { return s.init() }

// Verify returns the content of a token that s has issued. Errors:
// ErrTokenInvalid.
func (s *TokenServer) Verify(_ context.Context, token string) (Token, error) {
	if err := s.init(); err != nil {
		return Token{}, err
	}
	if s.Opaque {
		if len(token) > maxToken {
			return Token{}, ErrTokenInvalid
		}
		sealed, err := encoding.DecodeString(token)
		if err != nil {
			return Token{}, ErrTokenInvalid
		}
		opened, err := s.seal.Open(nil, nil, sealed, nil)
		if err != nil {
			return Token{}, ErrTokenInvalid
		}
		token = string(opened)
	}
	c, err := s.open(typeAccess, token)
	if err != nil {
		return Token{}, err
	}
	return c.token(), nil
}

// maxForm is the maximum size in bytes of a token request's parameters, in the URL
// or in the body. The longest of them is a refresh token.
const maxForm = maxToken + 16<<10

// tokenRequest is a token request by GET or POST, with verified credentials.
type tokenRequest struct {
	user    string
	service string
	scopes  []string
	offline bool
	// refresh has the claims of the refresh token, if the request has one.
	refresh *claims
}

// ServeHTTP responds to a token request.
func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var req tokenRequest
	var err error
	switch r.Method {
	case http.MethodGet:
		req, err = s.parseGet(r)
	case http.MethodPost:
		req, err = s.parsePost(w, r)
	default:
		err = &registry.Error{
			Status:  http.StatusMethodNotAllowed,
			Code:    registry.ErrUnsupported.Code,
			Message: "method not allowed",
			Header:  http.Header{"Allow": {"GET, POST"}},
		}
	}
	var grants []Grant
	if err == nil && req.service != "" && req.service != s.Service {
		err = badRequest("unknown service")
	}
	if err == nil {
		grants, err = s.grants(r.Context(), req)
	}
	report(r.Context(), req.user, err)
	if err != nil {
		if errors.Is(err, registry.ErrUnauthorized) {
			err = errWrongCredentials
		}
		registry.WriteError(w, r, publicError(err))
		return
	}
	s.issue(w, r, req, grants)
}

func badRequest(message string) error {
	e := *registry.ErrUnsupported
	e.Message = message
	return &e
}

// errWrongCredentials is the response to wrong credentials. It does not reveal
// whether the user exists.
var errWrongCredentials = &registry.Error{
	Status:  http.StatusUnauthorized,
	Code:    registry.ErrUnauthorized.Code,
	Message: "wrong credentials",
	Header:  http.Header{"Www-Authenticate": {`Basic realm="token server", charset="UTF-8"`}},
}

func (s *TokenServer) parseGet(r *http.Request) (tokenRequest, error) {
	if len(r.URL.RawQuery) > maxForm {
		return tokenRequest{}, badRequest("query too long")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return tokenRequest{}, badRequest("malformed query")
	}
	req := tokenRequest{
		service: query.Get("service"),
		scopes:  query["scope"],
		offline: query.Get("offline_token") == "true",
	}
	req.user, err = basicUser(r, s.Check)
	return req, err
}

func (s *TokenServer) parsePost(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return tokenRequest{}, badRequest("malformed form")
	}
	form := r.PostForm // without the URL's parameters: URLs are logged
	req := tokenRequest{
		service: form.Get("service"),
		scopes:  form["scope"],
		offline: form.Get("access_type") == "offline",
	}
	switch form.Get("grant_type") {
	case "password":
		req.user = form.Get("username")
		return req, s.Check.verify(r.Context(), req.user, form.Get("password"))
	case "refresh_token":
		if s.Known == nil {
			return req, registry.ErrUnauthorized
		}
		c, err := s.open(typeRefresh, form.Get("refresh_token"))
		switch {
		case errors.Is(err, ErrTokenInvalid):
			return req, registry.ErrUnauthorized
		case err != nil:
			return req, err
		}
		req.user, req.refresh = c.Subject, &c
		known := Check(func(ctx context.Context, user, _ string) error { return s.Known(ctx, user) })
		return req, known.verify(r.Context(), req.user, "")
	}
	return req, badRequest("grant_type is neither password nor refresh_token")
}

// maxScopes is the maximum number of scopes in a request, maxScope the length of
// the longest in bytes, and maxName that of the longest name in one: a token must
// fit in a header.
const (
	maxScopes = 100
	maxScope  = 1 << 10
	maxName   = 255
)

// grants returns the rights that req requests and the policy allows.
func (s *TokenServer) grants(ctx context.Context, req tokenRequest) ([]Grant, error) {
	var scopes []string
	for _, list := range req.scopes {
		scopes = append(scopes, strings.Fields(list)...)
	}
	if len(scopes) > maxScopes {
		return nil, badRequest("too many scopes")
	}
	all := []Grant{} // not null in JSON
	for _, scope := range scopes {
		if len(scope) > maxScope {
			return nil, badRequest("scope too long")
		}
		kind, rest, ok1 := strings.Cut(scope, ":")
		name, list, ok2 := cutLast(rest, ':')
		if !ok1 || !ok2 || kind == "" || name == "" || len(name) > maxName {
			return nil, badRequest("malformed scope")
		}
		actions, err := s.grantedActions(ctx, req.user, kind, name, strings.Split(list, ","))
		if err != nil {
			return nil, err
		}
		if actions != nil {
			all = append(all, Grant{Type: kind, Name: name, Actions: actions})
		}
	}
	return all, nil
}

// grantedActions returns the actions of a scope that are granted. It calls the
// policy once for each, however often the scope repeats it.
func (s *TokenServer) grantedActions(ctx context.Context, user, kind, name string, requested []string) ([]string, error) {
	all := slices.Contains(requested, "*")
	actions, req := []Action{Pull, Push, Delete}, registry.Request{Repo: name}
	switch {
	case kind == "registry" && name == "catalog" && all:
		actions, req = []Action{Catalog}, registry.Request{}
	case kind != "repository":
		return nil, nil
	}
	var granted []string
	for _, action := range actions {
		if !all && !slices.Contains(requested, string(action)) {
			continue
		}
		err := s.Policy.check(ctx, user, action, req)
		switch {
		case err == nil && action == Catalog:
			granted = append(granted, "*")
		case err == nil:
			granted = append(granted, string(action))
		case action == Push && errors.Is(err, ErrCreateOnly):
			granted = append(granted, string(Create))
		case !isDenied(err):
			return nil, err
		}
	}
	return granted, nil
}

func (s *TokenServer) lifetime() time.Duration {
	if s.Lifetime > 0 {
		return s.Lifetime
	}
	return 5 * time.Minute
}

func (s *TokenServer) refreshLifetime() time.Duration {
	if s.RefreshLifetime > 0 {
		return s.RefreshLifetime
	}
	return 30 * 24 * time.Hour
}

// issue responds with a token.
func (s *TokenServer) issue(w http.ResponseWriter, r *http.Request, req tokenRequest, grants []Grant) {
	now := time.Now().Truncate(time.Second) // the precision of claims
	c := claims{
		Issuer:    s.Issuer,
		Subject:   req.user,
		Audience:  audience{s.Service},
		NotBefore: date(now),
		IssuedAt:  date(now),
		Expires:   date(now.Add(s.lifetime())),
		ID:        rand.Text(),
		Access:    grants,
	}
	var resp struct {
		Token        string    `json:"token"`
		AccessToken  string    `json:"access_token"`
		ExpiresIn    int       `json:"expires_in"` // seconds
		IssuedAt     time.Time `json:"issued_at"`
		RefreshToken string    `json:"refresh_token,omitempty"`
	}
	err := s.init()
	var token string
	if err == nil {
		token, err = s.keys[0].sign(typeAccess, c)
	}
	if err == nil && req.offline && req.user != "" && s.Known != nil {
		c.Access, c.Expires = nil, date(now.Add(s.refreshLifetime()))
		if req.refresh != nil {
			c.Expires = req.refresh.Expires
		}
		resp.RefreshToken, err = s.keys[0].sign(typeRefresh, c)
	}
	if err != nil {
		report(r.Context(), req.user, err)
		registry.WriteError(w, r, err)
		return
	}
	if s.Opaque {
		token = encoding.EncodeToString(s.seal.Seal(nil, nil, []byte(token), nil))
	}
	resp.Token, resp.AccessToken = token, token
	resp.ExpiresIn = int(s.lifetime() / time.Second)
	resp.IssuedAt = now.UTC()
	doc, _ := json.Marshal(resp)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749 section 5.1
	w.Write(doc)
}
