// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// The keys of all tests.
var (
	rsaKey       = must(rsa.GenerateKey(rand.Reader, 2048))
	otherRSA     = must(rsa.GenerateKey(rand.Reader, 2048))
	shortRSA     = must(rsa.GenerateKey(rand.Reader, 1024))
	p224         = must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	p256         = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384         = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521         = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, edKey, _  = ed25519.GenerateKey(nil)
	signingKeys  = []crypto.Signer{rsaKey, p256, p384, p521, edKey}
	keyOf        = map[jose.SignatureAlgorithm]crypto.Signer{jose.RS256: rsaKey, jose.RS384: rsaKey, jose.RS512: rsaKey, jose.PS256: rsaKey, jose.PS384: rsaKey, jose.PS512: rsaKey, jose.ES256: p256, jose.ES384: p384, jose.ES512: p521, jose.EdDSA: edKey}
	wantGrants   = []auth.Grant{{Type: "repository", Name: "team/app", Actions: []string{"pull"}}}
	rs256        = map[string]any{"alg": "RS256", "typ": "JWT"}
	registryName = "registry.test"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// claimsOf returns the claims of a good token, changed by changes: a nil value
// removes one.
func claimsOf(changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": "issuer", "sub": "alice", "aud": registryName,
		"exp": time.Now().Add(time.Minute).Unix(), "nbf": time.Now().Unix(), "iat": time.Now().Unix(),
		"access": []map[string]any{{"type": "repository", "name": "team/app", "actions": []string{"pull"}, "class": ""}},
	}
	for name, value := range changes {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

// sign returns a token with any header and claims, signed as the header says.
func sign(t testing.TB, key crypto.Signer, header, claims map[string]any) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(must(json.Marshal(header))) + "." + b64(must(json.Marshal(claims)))
	alg := fmt.Sprint(header["alg"])
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	if alg == "EdDSA" {
		return signed + "." + b64(must(key.Sign(rand.Reader, []byte(signed), crypto.Hash(0))))
	}
	h := hash.New()
	io.WriteString(h, signed)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		qt.Assert(t, qt.IsNil(err))
		n := (key.Curve.Params().BitSize + 7) / 8
		return signed + "." + b64(append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...))
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = hash
		if alg[0] == 'P' {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
		return signed + "." + b64(must(key.Sign(rand.Reader, h.Sum(nil), opts)))
	}
	panic("unreachable")
}

func publicKeys() (keys []crypto.PublicKey) {
	for _, k := range signingKeys {
		keys = append(keys, k.Public())
	}
	return keys
}

func newVerifier(t testing.TB, c Config) *Verifier {
	t.Helper()
	v, err := New(c)
	qt.Assert(t, qt.IsNil(err))
	return v
}

// TestAlgorithms checks that each algorithm is verified with its key, and with no
// key of another kind.
func TestAlgorithms(t *testing.T) {
	v := newVerifier(t, Config{Service: registryName, Issuer: "issuer", PublicKeys: publicKeys()})
	for alg, key := range keyOf {
		t.Run(string(alg), func(t *testing.T) {
			token := sign(t, key, map[string]any{"alg": alg, "typ": "JWT", "kid": "any"}, claimsOf(nil))
			got, err := v.Verify(t.Context(), token)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got.User, "alice"))
			qt.Check(t, qt.DeepEquals(got.Grants, wantGrants))
			qt.Check(t, qt.IsTrue(time.Until(got.Expires) > 0))
			for _, other := range signingKeys {
				if fmt.Sprint(other.Public()) == fmt.Sprint(key.Public()) {
					continue
				}
				_, err := newVerifier(t, Config{Service: registryName, PublicKeys: []crypto.PublicKey{other.Public()}}).Verify(t.Context(), token)
				qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
			}
		})
	}
}

// TestTokensOfTokenServer checks that the tokens of an auth.TokenServer can be
// verified with its public key alone, and that its refresh tokens are rejected.
func TestTokensOfTokenServer(t *testing.T) {
	for _, key := range signingKeys {
		t.Run(fmt.Sprintf("%T", key), func(t *testing.T) {
			users := auth.Users{"alice": "wonderland"}
			s := &auth.TokenServer{Service: registryName, Issuer: "issuer", Key: key, Check: users.Check, Known: users.Known}
			r := httptest.NewRequest("GET", "/?offline_token=true&scope=repository:team/app:pull", nil)
			r.SetBasicAuth("alice", "wonderland")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			var doc struct {
				Token   string
				Refresh string `json:"refresh_token"`
			}
			qt.Assert(t, qt.IsNil(json.Unmarshal(w.Body.Bytes(), &doc)))
			v := newVerifier(t, Config{Service: registryName, Issuer: "issuer", PublicKeys: publicKeys()})
			got, err := v.Verify(t.Context(), doc.Token)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got.User, "alice"))
			qt.Check(t, qt.DeepEquals(got.Grants, wantGrants))
			_, err = v.Verify(t.Context(), doc.Refresh)
			qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
		})
	}
}

// TestClaims checks which claims and headers are accepted.
func TestClaims(t *testing.T) {
	now := time.Now().Unix()
	type m = map[string]any
	for _, test := range []struct {
		name   string
		header m // added to alg RS256
		claims m
		config Config
		ok     bool
	}{
		{"plain", nil, nil, Config{Service: registryName}, true},
		{"issuer", nil, nil, Config{Service: registryName, Issuer: "issuer"}, true},
		{"another_issuer", nil, nil, Config{Service: registryName, Issuer: "other"}, false},
		{"no_issuer", nil, m{"iss": nil}, Config{Service: registryName, Issuer: "issuer"}, false},
		{"typ_in_other_letters", m{"typ": "jwt"}, nil, Config{Service: registryName}, true},
		{"another_typ", m{"typ": "refresh+jwt"}, nil, Config{Service: registryName}, false},
		{"typ_of_another_kind", m{"typ": 5}, nil, Config{Service: registryName}, false},
		{"critical_extension", m{"crit": []string{"x"}, "x": 1}, nil, Config{Service: registryName}, false},
		{"several_audiences", nil, m{"aud": []string{"x", registryName}}, Config{Service: registryName}, true},
		{"another_audience", nil, m{"aud": "other"}, Config{Service: registryName}, false},
		{"no_audience", nil, m{"aud": nil}, Config{Service: registryName}, false},
		{"null_audience", nil, m{"aud": json.RawMessage("null")}, Config{Service: registryName}, false},
		{"empty_audience", nil, m{"aud": ""}, Config{Service: registryName}, false},
		{"no_audiences", nil, m{"aud": []string{}}, Config{Service: registryName}, false},
		{"audience_of_another_kind", nil, m{"aud": 5}, Config{Service: registryName}, false},
		{"any_service", nil, m{"aud": "other"}, Config{AnyService: true}, true},
		{"any_service_no_audience", nil, m{"aud": nil}, Config{AnyService: true}, true},
		{"no_exp", nil, m{"exp": nil}, Config{Service: registryName}, false},
		{"expired_within_the_leeway", nil, m{"exp": now - 50}, Config{Service: registryName}, true},
		{"expired", nil, m{"exp": now - 62}, Config{Service: registryName}, false},
		{"expired_without_leeway", nil, m{"exp": now - 2}, Config{Service: registryName, Leeway: -1}, false},
		{"expired_with_a_long_leeway", nil, m{"exp": now - 500}, Config{Service: registryName, Leeway: time.Hour}, true},
		{"clock_ahead", nil, m{"nbf": now + 50, "iat": now + 50, "exp": now + 500}, Config{Service: registryName}, true},
		{"not_yet_valid", nil, m{"nbf": now + 70, "exp": now + 500}, Config{Service: registryName}, false},
		{"exp_out_of_range", nil, m{"exp": 1e300}, Config{Service: registryName}, false},
		{"exp_largest_integer", nil, m{"exp": int64(math.MaxInt64)}, Config{Service: registryName}, false},
		{"exp_before_all_time", nil, m{"exp": -1e300}, Config{Service: registryName}, false},
		{"exp_of_another_kind", nil, m{"exp": "never"}, Config{Service: registryName}, false},
		{"access_of_another_kind", nil, m{"access": "all"}, Config{Service: registryName}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := m{"alg": "RS256"}
			for name, value := range test.header {
				header[name] = value
			}
			test.config.PublicKeys = publicKeys()
			_, err := newVerifier(t, test.config).Verify(t.Context(), sign(t, rsaKey, header, claimsOf(test.claims)))
			if test.ok {
				qt.Check(t, qt.IsNil(err))
			} else {
				qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
			}
		})
	}
}

// TestForgedTokens checks that no token is accepted that none of the keys has signed.
func TestForgedTokens(t *testing.T) {
	v := newVerifier(t, Config{Service: registryName, PublicKeys: publicKeys()})
	b64 := base64.RawURLEncoding.EncodeToString
	good := sign(t, rsaKey, rs256, claimsOf(nil))
	parts := strings.Split(good, ".")
	der := must(x509.MarshalPKIXPublicKey(rsaKey.Public()))
	mac := func(secret []byte) string {
		signed := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + parts[1]
		h := hmac.New(sha256.New, secret)
		io.WriteString(h, signed)
		return signed + "." + b64(h.Sum(nil))
	}
	root := newCertificate(t, "root", otherRSA, nil, nil)
	for name, token := range map[string]string{
		"empty":               "",
		"two_parts":           "a.b",
		"four_parts":          good + ".x",
		"not_base64":          "!.!.!",
		"not_JSON":            b64([]byte("x")) + "." + b64([]byte("x")) + "." + b64([]byte("x")),
		"JSON_serialization":  `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"oversized":           strings.Repeat("a", 100<<10),
		"alg_none":            b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"alg_None":            b64([]byte(`{"alg":"None"}`)) + "." + parts[1] + "." + b64([]byte("x")),
		"no_alg":              b64([]byte(`{"typ":"JWT"}`)) + "." + parts[1] + "." + parts[2],
		"HS256_by_public_DER": mac(der),
		"HS256_by_public_PEM": mac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256_by_modulus":    mac(rsaKey.N.Bytes()),
		"another_key":         sign(t, otherRSA, rs256, claimsOf(nil)),
		"another_key_by_jwk":  sign(t, otherRSA, map[string]any{"alg": "RS256", "jwk": jose.JSONWebKey{Key: otherRSA.Public()}}, claimsOf(nil)),
		"another_key_by_x5c":  sign(t, otherRSA, map[string]any{"alg": "RS256", "x5c": []string{base64.StdEncoding.EncodeToString(root.Raw)}}, claimsOf(nil)),
		"another_key_by_jku":  sign(t, otherRSA, map[string]any{"alg": "RS256", "jku": "https://attacker.example/keys"}, claimsOf(nil)),
		"other_claims":        parts[0] + "." + b64(must(json.Marshal(claimsOf(map[string]any{"sub": "root"})))) + "." + parts[2],
		"no_signature":        parts[0] + "." + parts[1] + ".",
		"ES256_header_by_RSA": sign(t, rsaKey, map[string]any{"alg": "ES256"}, claimsOf(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), token)
			qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
		})
	}
}

// newCertificate returns a certificate for key, self-signed unless it has a parent.
func newCertificate(t testing.TB, name string, key crypto.Signer, parent *x509.Certificate, parentKey crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: parent == nil, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name},
	}
	template.Subject.CommonName = name
	if parent == nil {
		parent, parentKey = template, key
	}
	return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey))))
}

// TestCertificateChains checks that a token's certificates are accepted only below
// the configured roots.
func TestCertificateChains(t *testing.T) {
	root := newCertificate(t, "root", p256, nil, nil)
	leaf := newCertificate(t, "leaf", rsaKey, root, p256)
	weak := newCertificate(t, "weak", shortRSA, root, p256)
	attacker := newCertificate(t, "leaf", otherRSA, nil, nil)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	v := newVerifier(t, Config{Service: registryName, Roots: roots})
	token := func(key crypto.Signer, chain ...*x509.Certificate) string {
		var x5c []string
		for _, cert := range chain {
			x5c = append(x5c, base64.StdEncoding.EncodeToString(cert.Raw))
		}
		return sign(t, key, map[string]any{"alg": "RS256", "x5c": x5c}, claimsOf(nil))
	}
	_, err := v.Verify(t.Context(), token(rsaKey, leaf))
	qt.Check(t, qt.IsNil(err))
	_, err = v.Verify(t.Context(), token(rsaKey, leaf, root))
	qt.Check(t, qt.IsNil(err))
	for name, token := range map[string]string{
		"another_root":      token(otherRSA, attacker),
		"root_added":        token(otherRSA, attacker, root),
		"key_not_certified": token(otherRSA, leaf),
		"weak_key":          token(shortRSA, weak),
		"no_certificate":    sign(t, rsaKey, rs256, claimsOf(nil)),
	} {
		_, err := v.Verify(t.Context(), token)
		qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid), qt.Commentf("%s", name))
	}
}

// writeFile writes a file and returns its name.
func writeFile(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, data, 0o600)))
	return name
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// set returns a JWK Set.
func set(keys ...jose.JSONWebKey) []byte {
	return must(json.Marshal(jose.JSONWebKeySet{Keys: keys}))
}

// TestKeyFiles checks the formats of files with keys.
func TestKeyFiles(t *testing.T) {
	der := must(x509.MarshalPKIXPublicKey(rsaKey.Public()))
	libtrust := fingerprint(der)
	qt.Check(t, qt.Matches(libtrust, "([A-Z2-7]{4}:){11}[A-Z2-7]{4}"))
	for name, data := range map[string][]byte{
		"public_key":  pemBlock("PUBLIC KEY", der),
		"PKCS_1":      pemBlock("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)),
		"certificate": pemBlock("CERTIFICATE", newCertificate(t, "x", rsaKey, nil, nil).Raw),
		"several":     append(pemBlock("PUBLIC KEY", must(x509.MarshalPKIXPublicKey(p256.Public()))), pemBlock("PUBLIC KEY", der)...),
		"JWK_Set":     set(jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "one", Use: "sig"}, jose.JSONWebKey{Key: otherRSA.Public(), Use: "enc"}),
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, Config{Service: registryName, Keys: []string{writeFile(t, data)}})
			kids := map[string]bool{"": true, "one": true, libtrust: true, "other": name != "JWK_Set"}
			for kid, ok := range kids {
				header := map[string]any{"alg": "RS256"}
				if kid != "" {
					header["kid"] = kid
				}
				_, err := v.Verify(t.Context(), sign(t, rsaKey, header, claimsOf(nil)))
				if ok {
					qt.Check(t, qt.IsNil(err), qt.Commentf("%s", kid))
				} else {
					qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
				}
				_, err = v.Verify(t.Context(), sign(t, otherRSA, header, claimsOf(nil)))
				qt.Check(t, qt.ErrorIs(err, auth.ErrTokenInvalid))
			}
		})
	}
}

// TestMistakesAreFoundAtStart checks that no configuration that could never accept
// a token gets as far as the first one.
func TestMistakesAreFoundAtStart(t *testing.T) {
	keys := publicKeys()
	for name, test := range map[string]struct {
		config Config
		want   string
	}{
		"nothing":          {Config{}, ".*requires a Service.*"},
		"no_keys":          {Config{Service: "s"}, ".*requires Keys.*"},
		"two_services":     {Config{Service: "s", AnyService: true, PublicKeys: keys}, ".*Service and AnyService"},
		"short_RSA":        {Config{Service: "s", PublicKeys: []crypto.PublicKey{shortRSA.Public()}}, ".*unsupported key of type .*2048 bits.*"},
		"P-224":            {Config{Service: "s", PublicKeys: []crypto.PublicKey{p224.Public()}}, ".*unsupported key.*"},
		"private_key":      {Config{Service: "s", PublicKeys: []crypto.PublicKey{rsaKey}}, ".*unsupported key of type \\*rsa.PrivateKey.*"},
		"nil_key":          {Config{Service: "s", PublicKeys: []crypto.PublicKey{nil}}, ".*unsupported key.*"},
		"nil_RSA":          {Config{Service: "s", PublicKeys: []crypto.PublicKey{(*rsa.PublicKey)(nil)}}, ".*unsupported key.*"},
		"missing_file":     {Config{Service: "s", Keys: []string{"/nowhere"}}, "tokens: open /nowhere: .*"},
		"empty_file":       {Config{Service: "s", Keys: []string{writeFile(t, nil)}}, ".*neither a JWK Set.*"},
		"private_PEM":      {Config{Service: "s", Keys: []string{writeFile(t, pemBlock("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)))}}, ".*RSA PRIVATE KEY.*"},
		"symmetric_JWK":    {Config{Service: "s", Keys: []string{writeFile(t, set(jose.JSONWebKey{Key: []byte("secret")}))}}, ".*no keys that can sign.*"},
		"plain_HTTP":       {Config{Service: "s", Keys: []string{"http://tokens.example/keys"}}, ".*must be https.*"},
		"another_scheme":   {Config{Service: "s", Keys: []string{"ftp://tokens.example/keys"}}, ".*must be https.*"},
		"URL_without_host": {Config{Service: "s", Keys: []string{"https:///keys"}}, ".*must be https.*"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(test.config)
			qt.Check(t, qt.ErrorMatches(err, test.want))
		})
	}
}

// status returns the status of a registry's response to a request with a token.
func status(t testing.TB, v *Verifier, token string) int {
	t.Helper()
	h := auth.Bearer("https://tokens.test", registryName, v.Verify)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	req := must(http.NewRequest("GET", "http://registry.test/v2/", nil))
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := registrytest.Transport(h).RoundTrip(req)
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	return resp.StatusCode
}
