// SPDX-License-Identifier: Apache-2.0

package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/auth"
)

func newEd25519(t testing.TB) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	qt.Assert(t, qt.IsNil(err))
	return key
}

func newECDSA(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	qt.Assert(t, qt.IsNil(err))
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	qt.Assert(t, qt.IsNil(err))
	return key
}

// TestTokenServerKeys checks that a token server signs with each common kind of
// key, and verifies its tokens with that key alone.
func TestTokenServerKeys(t *testing.T) {
	keys := map[string]crypto.Signer{
		"EdDSA": newEd25519(t),
		"ES256": newECDSA(t, elliptic.P256()),
		"ES384": newECDSA(t, elliptic.P384()),
		"ES512": newECDSA(t, elliptic.P521()),
		"RS256": newRSA(t, 2048),
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			tokens := newTokenServer()
			tokens.Key, tokens.Issuer = key, "https://tokens.test"
			qt.Assert(t, qt.IsNil(tokens.Validate()))
			for range 20 { // some signatures have leading zeros
				token := tokenFor(t, tokens, "alice", "repository:ns/x:pull")
				header, _, _ := strings.Cut(token, ".")
				text, err := base64.RawURLEncoding.DecodeString(header)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(string(text), `{"typ":"JWT","alg":"`+name+`"}`))
				got, err := tokens.Verify(t.Context(), token)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(got.User, "alice"))
				qt.Assert(t, qt.DeepEquals(got.Grants, []auth.Grant{{Type: "repository", Name: "ns/x", Actions: []string{"pull"}}}))
				for otherName, otherKey := range keys {
					if otherName == name {
						continue
					}
					other := newTokenServer()
					other.Key = otherKey
					_, err := other.Verify(t.Context(), token)
					qt.Assert(t, qt.ErrorIs(err, auth.ErrTokenInvalid), qt.Commentf("%s", otherName))
				}
			}
			for _, other := range []*auth.TokenServer{
				{Service: "other", Key: key},
				{Service: "registry.test", Issuer: "https://other.test", Key: key},
			} {
				_, err := other.Verify(t.Context(), tokenFor(t, tokens, "alice"))
				qt.Assert(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
			}
		})
	}
}

// oddSigner is a key of a kind that no one knows.
type oddSigner struct{ crypto.Signer }

func (oddSigner) Public() crypto.PublicKey { return "a key" }

// TestUnusableKeyIsFoundAtStart checks that Validate finds each key that can't
// sign, and that a server which was started with one fails with 500 or 503, never
// with 401.
func TestUnusableKeyIsFoundAtStart(t *testing.T) {
	for name, key := range map[string]crypto.Signer{
		"P-224":         newECDSA(t, elliptic.P224()),
		"short_RSA":     newRSA(t, 1024),
		"short_Ed25519": ed25519.PrivateKey("short"),
		"nil_ECDSA":     (*ecdsa.PrivateKey)(nil),
		"nil_RSA":       (*rsa.PrivateKey)(nil),
		"odd":           oddSigner{},
	} {
		t.Run(name, func(t *testing.T) {
			tokens := newTokenServer()
			tokens.Key = key
			qt.Check(t, qt.ErrorMatches(tokens.Validate(), "auth: a TokenServer's Key must be .*"))
			a := call(t, tokens, "GET", "/token", "")
			qt.Check(t, qt.Equals(a.StatusCode, 500))
			qt.Check(t, qt.Not(qt.StringContains(a.body, "P-256")))
			a = call(t, tokens, "POST", "/token", "grant_type=refresh_token&refresh_token=a.b.c", form)
			qt.Check(t, qt.Equals(a.StatusCode, 503))
			a = call(t, auth.Bearer("r", "s", tokens.Verify)(tokens), "GET", "/v2/", "", bearer("a.b.c"))
			qt.Check(t, qt.Equals(a.StatusCode, 503))
		})
	}
}
