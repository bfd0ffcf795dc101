// SPDX-License-Identifier: Apache-2.0

// Tokens: those that the server issues, and those of another issuer.

package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/tokens"
)

// tokenPath is the path at which the server issues tokens.
const tokenPath = "/token"

// withTokens returns middleware that issues tokens, and accepts them and passwords.
func (s *server) withTokens(c *serveCmd, u *users, byPassword func(http.Handler) http.Handler) (func(http.Handler) http.Handler, error) {
	keys, err := s.tokenKeys(c)
	if err != nil {
		return nil, err
	}
	service := c.TokenService
	if service == "" {
		service = "berth"
	}
	issuer := &auth.TokenServer{
		Service:  service,
		Check:    u.check,
		Known:    u.known,
		Policy:   u.policy,
		Key:      keys[0],
		OldKeys:  keys[1:],
		Lifetime: c.TokenLifetime,
	}
	if err := issuer.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.TokenKeyFile, err)
	}
	// A user who was removed is out at once, and not when the token expires.
	verify := func(ctx context.Context, encoded string) (auth.Token, error) {
		token, err := issuer.Verify(ctx, encoded)
		if err == nil && token.User != "" && u.known(ctx, token.User) != nil {
			return token, fmt.Errorf("%w: the user %q was removed", auth.ErrTokenInvalid, token.User)
		}
		return token, err
	}
	return func(h http.Handler) http.Handler {
		h, passwords := auth.Require(u.policy)(h), byPassword(h)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); {
			case r.URL.Path == tokenPath:
				issuer.ServeHTTP(w, r)
			case strings.EqualFold(scheme, "Basic"):
				passwords.ServeHTTP(w, r)
			default:
				auth.Bearer(tokenRealm(c, r), service, verify)(h).ServeHTTP(w, r)
			}
		})
	}, nil
}

// tokenRealm returns the URL at which a client gets tokens: unless a flag says so, on
// the host that the client has used.
func tokenRealm(c *serveCmd, r *http.Request) string {
	if c.TokenRealm != "" {
		return c.TokenRealm
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + tokenPath
}

// foreignTokens returns middleware that accepts the tokens of another issuer.
func foreignTokens(c *serveCmd, u *users) (func(http.Handler) http.Handler, error) {
	verifier, err := tokens.New(tokens.Config{Service: c.TokenService, Issuer: c.TokenIssuer, Keys: c.TokenKeys})
	if err != nil {
		return nil, err
	}
	byToken := auth.Bearer(c.TokenRealm, c.TokenService, verifier.Verify)
	if u.rules == nil {
		return byToken, nil
	}
	return func(h http.Handler) http.Handler { return byToken(auth.Require(u.policy)(h)) }, nil
}

// Keys of tokens: a new one is made when the newest is older than keyAge, and those
// older than keyAge and the life of refresh tokens are deleted.
const (
	keyAge     = 90 * 24 * time.Hour
	keyTimeout = keyAge + 31*24*time.Hour
)

// tokenKeys returns the keys of tokens, the newest first. Without a file, they are those
// of the process.
func (s *server) tokenKeys(c *serveCmd) ([]crypto.Signer, error) {
	if c.TokenKeyFile == "" {
		if s.tokenKey == nil {
			_, s.tokenKey, _ = ed25519.GenerateKey(nil) // crypto/rand never fails
		}
		return []crypto.Signer{s.tokenKey}, nil
	}
	keys, err := rotateKeys(c.TokenKeyFile, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--token-key-file: %w", err)
	}
	return keys, nil
}

// madeHeader is the header of a key in PEM that has the time at which it was made.
const madeHeader = "Made"

// rotateKeys reads the keys in a file, and replaces those that are too old. It makes the
// file if there is none. A key without a time, made by other means, is never replaced.
// Processes that share the file use the same keys.
func rotateKeys(name string, now time.Time) ([]crypto.Signer, error) {
	keys, _, fresh, err := readKeys(name, now)
	if fresh || err != nil {
		return keys, err
	}
	unlock, err := lockFolder(name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	keys, kept, fresh, err := readKeys(name, now)
	if fresh || err != nil { // another process was faster
		return keys, err
	}
	_, key, _ := ed25519.GenerateKey(nil) // crypto/rand never fails
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{madeHeader: now.UTC().Format(time.RFC3339)}, Bytes: encoded}
	if err := rewriteFile(name, append(pem.EncodeToMemory(block), kept...), 0o600); err != nil {
		return nil, err
	}
	return append([]crypto.Signer{key}, keys...), nil
}

// readKeys returns the keys in a file that are not too old to be accepted, also in PEM,
// and reports whether one is fresh enough to sign. A file that does not exist has none.
func readKeys(name string, now time.Time) (keys []crypto.Signer, encoded []byte, fresh bool, err error) {
	data, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, err
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			if strings.TrimSpace(string(data)) != "" {
				return nil, nil, false, fmt.Errorf("%s is no file of private keys in PEM", name)
			}
			return keys, encoded, fresh, nil
		}
		data = rest
		made, err := time.Parse(time.RFC3339, block.Headers[madeHeader])
		if block.Headers[madeHeader] != "" && err != nil {
			return nil, nil, false, fmt.Errorf("%s: %w", name, err)
		}
		if err == nil && now.Sub(made) > keyTimeout {
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, nil, false, fmt.Errorf("%s: %w", name, err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, nil, false, fmt.Errorf("%s: a key of this type can't sign tokens", name)
		}
		keys = append(keys, signer)
		encoded = append(encoded, pem.EncodeToMemory(block)...)
		fresh = fresh || made.IsZero() || now.Sub(made) <= keyAge
	}
}
