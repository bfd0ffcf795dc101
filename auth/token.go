// SPDX-License-Identifier: Apache-2.0

// The token server: the "Docker Registry v2 authentication via central
// service", by GET and by POST (OAuth 2.0, RFC 6749).

package auth

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// TokenServer gives tokens, as an [http.Handler] to be served at the realm of
// [Bearer], and verifies those that it gave.
//
//   - GET takes the parameters service, scope (once or several times) and
//     offline_token, and a user's name and password by Basic authentication.
//   - POST takes the form's fields grant_type ("password" or
//     "refresh_token"), service, scope (separated by spaces), access_type,
//     username and password, or refresh_token.
//
// Without credentials it gives a token for nobody, which grants what the
// Policy grants to "". A token has what was asked for and is granted; it may
// be nothing. The answer has the token twice, as token and as access_token,
// and says in expires_in when it ends. With offline_token=true, or
// access_type=offline, it has a refresh_token too, which a user can use instead
// of a password.
//
// It answers 401 to wrong credentials, and 400 to a request that is malformed
// or for another service.
type TokenServer struct {
	// Service is the registry's name, the audience of its tokens.
	Service string

	// Check reports whether a user has a password; nil for no users. It
	// should take its time alike for users that there are and are not.
	Check func(user, password string) bool

	// Policy says what a token may grant to whom.
	Policy Policy

	// Key signs the tokens: an ed25519.PrivateKey, or an *ecdsa.PrivateKey on
	// P-256. Nil is an Ed25519 key of its own: then all tokens end with the
	// process.
	Key crypto.Signer

	// Issuer is the iss claim of the tokens; none if it is empty.
	Issuer string

	// Lifetime is how long a token holds: five minutes by default.
	// RefreshLifetime is that of a refresh token: 30 days by default.
	Lifetime, RefreshLifetime time.Duration

	// Opaque has it give tokens that nobody but itself can read.
	Opaque bool

	once sync.Once
	key  crypto.Signer // Key, or its own
	seal cipher.AEAD   // for Opaque
}

func (s *TokenServer) init() {
	s.once.Do(func() {
		if s.key = s.Key; s.key == nil {
			_, s.key, _ = ed25519.GenerateKey(nil) // crypto/rand never fails
		}
		secret := make([]byte, 32)
		rand.Read(secret)
		block, _ := aes.NewCipher(secret)
		s.seal, _ = cipher.NewGCMWithRandomNonce(block)
	})
}

func (s *TokenServer) jwt() JWT {
	s.init()
	return JWT{Service: s.Service, Issuer: s.Issuer, Keys: []crypto.PublicKey{s.key.Public()}}
}

// Verify returns what a token says that s has given. Errors: ErrTokenInvalid.
func (s *TokenServer) Verify(token string) (Token, error) {
	j := s.jwt()
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
	return j.Verify(token)
}

// maxForm bounds a token request's body, in bytes. A refresh token is the
// longest part of it.
const maxForm = maxToken + 16<<10

// tokenRequest is a token request, by either method.
type tokenRequest struct {
	user    string
	service string
	scopes  []string
	offline bool
}

// ServeHTTP answers a token request.
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
		err = badRequest("tokens for this service are not given here")
	}
	if err == nil {
		grants, err = s.grants(req)
	}
	if err != nil {
		registry.WriteError(w, r, err)
		return
	}
	s.answer(w, r, req, grants)
}

func badRequest(message string) error {
	e := *registry.ErrUnsupported
	e.Message = message
	return &e
}

// errCredentials is an answer to wrong credentials. Whether there is such a
// user it does not say.
var errCredentials = &registry.Error{
	Status:  http.StatusUnauthorized,
	Code:    registry.ErrUnauthorized.Code,
	Message: "wrong credentials",
	Header:  http.Header{"Www-Authenticate": {`Basic realm="token server", charset="UTF-8"`}},
}

func (s *TokenServer) parseGet(r *http.Request) (tokenRequest, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return tokenRequest{}, badRequest("malformed query")
	}
	req := tokenRequest{
		service: query.Get("service"),
		scopes:  query["scope"],
		offline: query.Get("offline_token") == "true",
	}
	user, _, ok := password(r, s.check)
	if !ok {
		return req, errCredentials
	}
	req.user = user
	return req, nil
}

func (s *TokenServer) parsePost(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return tokenRequest{}, badRequest("malformed form")
	}
	form := r.PostForm // not what the URL has: URLs are logged
	req := tokenRequest{
		service: form.Get("service"),
		scopes:  form["scope"],
		offline: form.Get("access_type") == "offline",
	}
	switch form.Get("grant_type") {
	case "password":
		req.user = form.Get("username")
		if req.user == "" || !s.check(req.user, form.Get("password")) {
			return req, errCredentials
		}
	case "refresh_token":
		c, err := s.jwt().open(typeRefresh, form.Get("refresh_token"))
		if err != nil {
			return req, errCredentials
		}
		req.user = c.Subject
	default:
		return req, badRequest("grant_type is neither password nor refresh_token")
	}
	return req, nil
}

func (s *TokenServer) check(user, password string) bool {
	return s.Check != nil && s.Check(user, password)
}

// maxScopes is the most scopes in a request, maxName the longest name in one,
// in bytes: what is granted must fit in a header.
const (
	maxScopes = 100
	maxName   = 255
)

// grants returns what of the scopes of req is granted.
func (s *TokenServer) grants(req tokenRequest) ([]Grant, error) {
	var scopes []string
	for _, field := range req.scopes {
		scopes = append(scopes, strings.Fields(field)...)
	}
	if len(scopes) > maxScopes {
		return nil, badRequest("too many scopes")
	}
	all := []Grant{} // not null
	for _, scope := range scopes {
		kind, rest, ok1 := strings.Cut(scope, ":")
		name, actions, ok2 := cutLast(rest, ':')
		if !ok1 || !ok2 || kind == "" || name == "" || len(name) > maxName {
			return nil, badRequest("malformed scope")
		}
		g := Grant{Type: kind, Name: name}
		for action := range strings.SplitSeq(actions, ",") {
			for _, granted := range s.granted(req.user, kind, name, action) {
				if !slices.Contains(g.Actions, granted) {
					g.Actions = append(g.Actions, granted)
				}
			}
		}
		if g.Actions != nil {
			all = append(all, g)
		}
	}
	return all, nil
}

// granted returns what is granted where a scope asks for an action.
func (s *TokenServer) granted(user, kind, name, action string) []string {
	switch {
	case kind == "registry" && name == "catalog" && action == "*":
		if s.Policy.allows(user, "", Catalog) {
			return []string{"*"}
		}
		return nil
	case kind != "repository":
		return nil
	}
	var granted []string
	for _, a := range []Action{Pull, Push, Delete} {
		switch {
		case action != "*" && action != string(a):
		case s.Policy.allows(user, name, a):
			granted = append(granted, string(a))
		case a == Push && s.Policy.allows(user, name, Create):
			granted = append(granted, string(Create))
		}
	}
	return granted
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

// answer gives a token.
func (s *TokenServer) answer(w http.ResponseWriter, r *http.Request, req tokenRequest, grants []Grant) {
	s.init()
	now := time.Now().Truncate(time.Second) // as claims have it
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
	var answer struct {
		Token        string    `json:"token"`
		AccessToken  string    `json:"access_token"`
		ExpiresIn    int       `json:"expires_in"` // seconds
		IssuedAt     time.Time `json:"issued_at"`
		RefreshToken string    `json:"refresh_token,omitempty"`
	}
	token, err := sign(s.key, typeAccess, c)
	if err == nil && req.offline && req.user != "" {
		c.Access, c.Expires = nil, date(now.Add(s.refreshLifetime()))
		answer.RefreshToken, err = sign(s.key, typeRefresh, c)
	}
	if err != nil {
		registry.WriteError(w, r, err)
		return
	}
	if s.Opaque {
		token = encoding.EncodeToString(s.seal.Seal(nil, nil, []byte(token), nil))
	}
	answer.Token, answer.AccessToken = token, token
	answer.ExpiresIn = int(s.lifetime() / time.Second)
	answer.IssuedAt = now.UTC()
	doc, _ := json.Marshal(answer)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // RFC 6749 section 5.1
	w.Write(doc)
}
