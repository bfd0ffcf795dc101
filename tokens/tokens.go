// SPDX-License-Identifier: Apache-2.0

// Package tokens verifies the tokens of token servers other than
// [auth.TokenServer]: GitLab, Keycloak, docker_auth, Harbor and all that sign JSON
// Web Tokens with RSA, ECDSA or Ed25519 and grant rights in the access claim of the
// Docker token protocol.
//
//	tokens, err := tokens.New(tokens.Config{
//		Service: "container_registry",
//		Issuer:  "gitlab-issuer",
//		Keys:    []string{"https://gitlab.example/oauth/discovery/keys"},
//	})
//	if err != nil {
//		log.Fatal(err)
//	}
//	h := auth.Bearer("https://gitlab.example/jwt/auth", "container_registry", tokens.Verify)(registry.New())
//
// It is a module of its own because of its dependency, [github.com/go-jose/go-jose/v4].
package tokens

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/berth-oci/registry/auth"
)

// Config says which tokens a [Verifier] accepts.
type Config struct {
	// Service is the registry's name, which a token's audience must contain.
	Service string

	// AnyService accepts tokens for any service, and tokens without an
	// audience. Service must be empty. Each service that the token server
	// knows can then use its tokens here.
	AnyService bool

	// Issuer, unless empty, is the required issuer.
	Issuer string

	// Keys are the places of the token server's public keys, each of them
	//   - the URL of a JWK Set, which most servers publish as jwks_uri. It is
	//     fetched when a token arrives, and again for tokens with an unknown
	//     key, but at most every 10 seconds; keys that are no longer in the set
	//     are accepted for an hour. While the server can't be reached, its keys
	//     are accepted for a day, and after that Verify fails. A URL must be
	//     https, unless its host is on the same machine or a name without a
	//     dot.
	//   - the path of a file with a JWK Set, or with public keys or
	//     certificates in PEM. It is read by New.
	Keys []string

	// PublicKeys are further keys: each an *rsa.PublicKey of at least 2048
	// bits, an *ecdsa.PublicKey on P-256, P-384 or P-521, or an
	// ed25519.PublicKey.
	PublicKeys []crypto.PublicKey

	// Roots, unless nil, are the authorities of the certificates that tokens
	// bring along in their header x5c. The first one's key verifies the token.
	Roots *x509.CertPool

	// Leeway is the difference of clocks that is tolerated: a minute by
	// default, none if it is negative.
	Leeway time.Duration

	// Client fetches JWK Sets; by default one with a timeout of 10 seconds.
	Client *http.Client
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	config Config
	keys   []key
	sets   []*keySet
}

// New returns a Verifier. Errors: mistakes in c, such as a key that no supported
// algorithm uses, and those of reading files. It does not fetch JWK Sets, since
// the token server may start later than the registry.
func New(c Config) (*Verifier, error) {
	switch {
	case c.Service == "" && !c.AnyService:
		return nil, errors.New("tokens: Config requires a Service, or AnyService")
	case c.Service != "" && c.AnyService:
		return nil, errors.New("tokens: Config has a Service and AnyService")
	case len(c.Keys) == 0 && len(c.PublicKeys) == 0 && c.Roots == nil:
		return nil, errors.New("tokens: Config requires Keys, PublicKeys or Roots")
	case c.Leeway == 0:
		c.Leeway = jwt.DefaultLeeway
	}
	c.Leeway = max(c.Leeway, 0)
	v := &Verifier{config: c}
	for _, place := range c.Keys {
		if strings.Contains(place, "://") {
			s, err := newKeySet(place, c.Client)
			if err != nil {
				return nil, err
			}
			v.sets = append(v.sets, s)
			continue
		}
		keys, err := readKeys(place)
		if err != nil {
			return nil, err
		}
		v.keys = append(v.keys, keys...)
	}
	for _, public := range c.PublicKeys {
		k, err := newKey(public)
		if err != nil {
			return nil, fmt.Errorf("tokens: Config.PublicKeys: %w", err)
		}
		v.keys = append(v.keys, k)
	}
	return v, nil
}

// maxToken is the maximum size of a token in bytes.
const maxToken = 64 << 10

// maxDate is the end of the year 9999, in seconds: a later one overflows.
const maxDate = 253402300799

// claims are the claims of a token.
type claims struct {
	jwt.Claims
	Access []auth.Grant `json:"access"`
}

// Verify returns the content of a token; it is the function that [auth.Bearer]
// requires. It checks the signature, the audience, the issuer, and that the current
// time is between nbf and exp. A token without exp is invalid, and one of another
// type than JWT.
//
// Errors wrap [auth.ErrTokenInvalid] if the token is invalid; any other error means
// that its key could not be fetched, and a registry should respond with 503.
func (v *Verifier) Verify(ctx context.Context, token string) (auth.Token, error) {
	if len(token) > maxToken {
		return auth.Token{}, invalid("too long")
	}
	jws, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return auth.Token{}, invalid(err.Error())
	}
	header := jws.Signatures[0].Protected
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok {
		if name, ok := typ.(string); !ok || !strings.EqualFold(name, "JWT") {
			return auth.Token{}, invalid("not of type JWT")
		}
	}
	payload, err := v.verifySignature(ctx, jws, header)
	if err != nil {
		return auth.Token{}, err
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil {
		return auth.Token{}, invalid(err.Error())
	}
	for _, date := range []*jwt.NumericDate{c.Expiry, c.NotBefore, c.IssuedAt} {
		if date != nil && (*date < 0 || *date > maxDate) {
			return auth.Token{}, invalid("date out of range")
		}
	}
	expected := jwt.Expected{Issuer: v.config.Issuer}
	if !v.config.AnyService {
		expected.AnyAudience = jwt.Audience{v.config.Service}
	}
	if c.Expiry == nil {
		return auth.Token{}, invalid("no exp")
	}
	if err := c.ValidateWithLeeway(expected, v.config.Leeway); err != nil {
		return auth.Token{}, invalid(err.Error())
	}
	return auth.Token{User: c.Subject, Grants: c.Access, Expires: c.Expiry.Time()}, nil
}

func invalid(reason string) error {
	return fmt.Errorf("%w: %s", auth.ErrTokenInvalid, strings.TrimPrefix(reason, "go-jose/go-jose: "))
}

// verifySignature returns the payload of a token that one of the keys has signed.
func (v *Verifier) verifySignature(ctx context.Context, jws *jose.JSONWebSignature, header jose.Header) ([]byte, error) {
	if v.config.Roots != nil {
		chains, err := header.Certificates(x509.VerifyOptions{Roots: v.config.Roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err == nil {
			k, err := newKey(chains[0][0].PublicKey)
			if err != nil {
				return nil, invalid(err.Error())
			}
			if payload, ok := k.verify(jws, header.Algorithm); ok {
				return payload, nil
			}
			return nil, invalid("wrong signature")
		}
	}
	payload, known, ok := verifyWith(v.keys, jws, header)
	if ok {
		return payload, nil
	}
	var failure error
	for _, s := range v.sets {
		// A key that is unknown may be new.
		for _, refresh := range []bool{false, true} {
			if refresh && known {
				break
			}
			keys, err := s.get(ctx, refresh)
			if err != nil {
				failure = err
			}
			payload, found, ok := verifyWith(keys, jws, header)
			if ok {
				return payload, nil
			}
			known = known || found
		}
	}
	switch {
	case known:
		return nil, invalid("wrong signature")
	case failure != nil:
		return nil, failure
	}
	return nil, invalid("unknown key")
}

// verifyWith returns the payload of a token that one of keys has signed. It reports
// whether the token names one of them.
func verifyWith(keys []key, jws *jose.JSONWebSignature, header jose.Header) (payload []byte, known, ok bool) {
	for _, k := range keys {
		if !k.matches(header.KeyID) {
			continue
		}
		known = known || header.KeyID != "" && slices.Contains(k.ids, header.KeyID)
		if payload, ok := k.verify(jws, header.Algorithm); ok {
			return payload, true, true
		}
	}
	return nil, known, false
}
