// SPDX-License-Identifier: Apache-2.0

// The JSON Web Tokens of a TokenServer: RFC 7515 (JWS, compact form), RFC 7519
// (claims), RFC 8037 (EdDSA), with the access claim of the token protocol. Module
// tokens verifies those of other servers, with a library for them.

package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // for ES384 and ES512
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"
)

// claims are the claims of a token.
type claims struct {
	Issuer    string   `json:"iss,omitempty"`
	Subject   string   `json:"sub"`
	Audience  audience `json:"aud"`
	Expires   *numeric `json:"exp"`
	NotBefore *numeric `json:"nbf,omitempty"`
	IssuedAt  *numeric `json:"iat,omitempty"`
	ID        string   `json:"jti,omitempty"`
	Access    []Grant  `json:"access"`
}

func (c claims) token() Token {
	return Token{User: c.Subject, Grants: c.Access, Expires: c.Expires.time()}
}

// audience is one string or several: RFC 7519 section 4.1.3.
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one *string
	if json.Unmarshal(data, &one) == nil {
		if *a = nil; one != nil { // not null
			*a = audience{*one}
		}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// numeric is a NumericDate, seconds since 1970: RFC 7519 section 2.
type numeric float64

func (n numeric) time() time.Time {
	return time.UnixMilli(int64(float64(n) * 1000))
}

func date(t time.Time) *numeric {
	n := numeric(t.Unix())
	return &n
}

// The types of tokens. The registry rejects refresh tokens, and the token server
// rejects access tokens.
const (
	typeAccess  = "JWT"
	typeRefresh = "refresh+jwt"
)

type jwtHeader struct {
	Type      string `json:"typ"`
	Algorithm string `json:"alg"`
	// Critical lists extensions that a verifier must support (RFC 7515 section
	// 4.1.11). TokenServer supports none.
	Critical []string `json:"crit,omitempty"`
}

// maxToken is the maximum size of a token in bytes.
const maxToken = 64 << 10

// maxDate is the end of the year 9999, in seconds. Later dates could overflow.
const maxDate = 253402300799

// tokenKey is a key that signs tokens, with its algorithm of RFC 7518 or RFC 8037.
type tokenKey struct {
	crypto.Signer
	public    crypto.PublicKey
	algorithm string
	hash      crypto.Hash
}

// errKey is a mistake of the program: see TokenServer.Validate.
var errKey = errors.New("auth: a TokenServer's Key must be an Ed25519 key, an ECDSA key on P-256, P-384 or P-521, or an RSA key of at least 2048 bits")

func newTokenKey(signer crypto.Signer) (tokenKey, error) {
	// Public panics for these.
	if v := reflect.ValueOf(signer); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return tokenKey{}, errKey
	}
	if ed, ok := signer.(ed25519.PrivateKey); ok && len(ed) != ed25519.PrivateKeySize {
		return tokenKey{}, errKey
	}
	key := tokenKey{Signer: signer, public: signer.Public()}
	switch public := key.public.(type) {
	case ed25519.PublicKey:
		key.algorithm = "EdDSA"
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			key.algorithm, key.hash = "ES256", crypto.SHA256
		case elliptic.P384():
			key.algorithm, key.hash = "ES384", crypto.SHA384
		case elliptic.P521():
			key.algorithm, key.hash = "ES512", crypto.SHA512
		}
	case *rsa.PublicKey:
		if public.N != nil && public.N.BitLen() >= 2048 {
			key.algorithm, key.hash = "RS256", crypto.SHA256
		}
	}
	if key.algorithm == "" {
		return tokenKey{}, errKey
	}
	return key, nil
}

// digest returns the message that is signed instead of signed.
func (k tokenKey) digest(signed []byte) []byte {
	if k.hash == 0 {
		return signed
	}
	h := k.hash.New()
	h.Write(signed)
	return h.Sum(nil)
}

// verify reports whether signature is k's signature of signed.
func (k tokenKey) verify(signed, signature []byte) bool {
	message := k.digest(signed)
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(public, message, signature)
	case *ecdsa.PublicKey:
		n := coordinateSize(public)
		return len(signature) == 2*n &&
			ecdsa.Verify(public, message, new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:]))
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(public, k.hash, message, signature) == nil
	}
	return false
}

// sign returns a signed token of the given type. Errors: those of the key.
func (k tokenKey) sign(kind string, c claims) (string, error) {
	signed := bytes.Join([][]byte{encode(jwtHeader{Type: kind, Algorithm: k.algorithm}), encode(c)}, []byte("."))
	signature, err := k.Sign(rand.Reader, k.digest(signed), k.hash)
	if public, ok := k.public.(*ecdsa.PublicKey); ok && err == nil {
		signature, err = fixedSize(signature, coordinateSize(public))
	}
	if err != nil {
		return "", err
	}
	return string(signed) + "." + encoding.EncodeToString(signature), nil
}

// coordinateSize returns the size of half a signature in bytes.
func coordinateSize(k *ecdsa.PublicKey) int { return (k.Curve.Params().BitSize + 7) / 8 }

// fixedSize converts an ECDSA signature from ASN.1 to the form of JWS: RFC 7518
// section 3.4.
func fixedSize(der []byte, n int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	both := make([]byte, 2*n)
	sig.R.FillBytes(both[:n])
	sig.S.FillBytes(both[n:])
	return both, nil
}

// open verifies a token of the given type that s has issued, and returns its
// claims. It allows no leeway, since the clock that it was issued by is the same.
func (s *TokenServer) open(kind, token string) (claims, error) {
	if err := s.init(); err != nil {
		return claims{}, err
	}
	fail := func(reason string) (claims, error) { return claims{}, fmt.Errorf("%w: %s", ErrTokenInvalid, reason) }
	if len(token) > maxToken {
		return fail("too long")
	}
	signed, encodedSignature, _ := cutLast(token, '.')
	encodedHeader, encodedClaims, ok := strings.Cut(signed, ".")
	if !ok {
		return fail("malformed")
	}
	var header jwtHeader
	if !decode(encodedHeader, &header) || header.Critical != nil ||
		header.Type != kind && (kind != typeAccess || header.Type != "") { // typ is optional
		return fail("unexpected header")
	}
	signature, err := encoding.DecodeString(encodedSignature)
	if err != nil || !slices.ContainsFunc(s.keys, func(k tokenKey) bool {
		return header.Algorithm == k.algorithm && k.verify([]byte(signed), signature)
	}) {
		return fail("wrong signature")
	}
	var c claims
	if !decode(encodedClaims, &c) {
		return fail("malformed claims")
	}
	now := time.Now()
	switch {
	case c.Expires == nil || *c.Expires > maxDate || !now.Before(c.Expires.time()):
		return fail("expired")
	case c.NotBefore != nil && (*c.NotBefore > maxDate || now.Before(c.NotBefore.time())):
		return fail("not yet valid")
	case !slices.Contains(c.Audience, s.Service):
		return fail("another audience")
	case s.Issuer != "" && c.Issuer != s.Issuer:
		return fail("another issuer")
	}
	return c, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// encoding is base64url without padding. It is strict, so that each value has
// only one encoding.
var encoding = base64.RawURLEncoding.Strict()

func decode(s string, v any) bool {
	// The decoder ignores line breaks, which are not base64url.
	if strings.ContainsAny(s, "\r\n") {
		return false
	}
	data, err := encoding.DecodeString(s)
	return err == nil && len(data) > 0 && data[0] == '{' && json.Unmarshal(data, v) == nil
}

func encode(v any) []byte {
	data, _ := json.Marshal(v) // strings and numbers: cannot fail
	return encoding.AppendEncode(nil, data)
}
