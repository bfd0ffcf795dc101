// SPDX-License-Identifier: Apache-2.0

// JSON Web Tokens: RFC 7515 (JWS, compact form), RFC 7519 (claims), RFC 8037
// (EdDSA), with the access claim of the token protocol.

package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"
)

// JWT verifies JSON Web Tokens that another token server has signed.
type JWT struct {
	// Service is the registry's name, which a token's audience must contain.
	Service string
	// Issuer, unless empty, is the required issuer.
	Issuer string
	// Keys are the accepted keys: each an ed25519.PublicKey (alg EdDSA) or an
	// *ecdsa.PublicKey on P-256 (alg ES256). The key determines the algorithm,
	// and the token's header must agree with it.
	Keys []crypto.PublicKey
}

// Verify checks a token's signature, audience, issuer, and that the current time
// is between its nbf and its exp, without leeway. A token without exp is invalid.
// Errors: ErrTokenInvalid.
func (j JWT) Verify(_ context.Context, token string) (Token, error) {
	c, err := j.open(typeAccess, token)
	if err != nil {
		return Token{}, err
	}
	return c.token(), nil
}

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
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
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
	// 4.1.11). JWT supports none.
	Critical []string `json:"crit,omitempty"`
}

// maxToken is the maximum size of a token in bytes.
const maxToken = 64 << 10

// maxDate is the end of the year 9999, in seconds. Later dates could overflow.
const maxDate = 253402300799

// open verifies a token of the given type and returns its claims.
func (j JWT) open(kind, token string) (claims, error) {
	fail := func() (claims, error) { return claims{}, ErrTokenInvalid }
	if len(token) > maxToken {
		return fail()
	}
	signed, encodedSignature, _ := cutLast(token, '.')
	encodedHeader, encodedClaims, ok := strings.Cut(signed, ".")
	if !ok {
		return fail()
	}
	var header jwtHeader
	if !decode(encodedHeader, &header) || header.Critical != nil ||
		header.Type != kind && (kind != typeAccess || header.Type != "") { // typ is optional
		return fail()
	}
	signature, err := encoding.DecodeString(encodedSignature)
	if err != nil || !slices.ContainsFunc(j.Keys, func(key crypto.PublicKey) bool {
		return verify(key, header.Algorithm, []byte(signed), signature)
	}) {
		return fail()
	}

	var c claims
	if !decode(encodedClaims, &c) {
		return fail()
	}
	now := time.Now()
	switch {
	case c.Expires == nil || *c.Expires > maxDate || !now.Before(c.Expires.time()),
		c.NotBefore != nil && (*c.NotBefore > maxDate || now.Before(c.NotBefore.time())),
		!slices.Contains(c.Audience, j.Service),
		j.Issuer != "" && c.Issuer != j.Issuer:
		return fail()
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

// verify reports whether signature is a signature of key by the named algorithm.
func verify(key crypto.PublicKey, algorithm string, signed, signature []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return algorithm == "EdDSA" && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signed, signature)
	case *ecdsa.PublicKey:
		if algorithm != "ES256" || key.Curve != elliptic.P256() || len(signature) != 64 {
			return false
		}
		sum := sha256.Sum256(signed)
		return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	return false
}

// sign returns a signed token. Errors: those of the key, and one if JWT does not
// support the type of the key.
func sign(key crypto.Signer, kind string, c claims) (string, error) {
	header := jwtHeader{Type: kind}
	switch public := key.Public().(type) {
	case ed25519.PublicKey:
		header.Algorithm = "EdDSA"
	case *ecdsa.PublicKey:
		if public.Curve == elliptic.P256() {
			header.Algorithm = "ES256"
		}
	}
	if header.Algorithm == "" {
		return "", errors.New("auth: the key is neither Ed25519 nor on P-256")
	}
	signed := bytes.Join([][]byte{encode(header), encode(c)}, []byte("."))
	var signature []byte
	var err error
	if header.Algorithm == "EdDSA" {
		signature, err = key.Sign(rand.Reader, signed, crypto.Hash(0))
	} else {
		sum := sha256.Sum256(signed)
		if signature, err = key.Sign(rand.Reader, sum[:], crypto.SHA256); err == nil {
			signature, err = fixedSize(signature)
		}
	}
	if err != nil {
		return "", err
	}
	return string(signed) + "." + encoding.EncodeToString(signature), nil
}

func encode(v any) []byte {
	data, _ := json.Marshal(v) // strings and numbers: cannot fail
	return encoding.AppendEncode(nil, data)
}

// fixedSize converts an ECDSA signature from ASN.1 to the form of JWS: RFC 7518
// section 3.4.
func fixedSize(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	both := make([]byte, 64)
	sig.R.FillBytes(both[:32])
	sig.S.FillBytes(both[32:])
	return both, nil
}
