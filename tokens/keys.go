// SPDX-License-Identifier: Apache-2.0

// Public keys, and the files that have them.

package tokens

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are all that tokens may be signed with. None of them is symmetric.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// key is a public key of a token server.
type key struct {
	public crypto.PublicKey
	// algorithms are those that the key may be used with: the key determines
	// them, and a token's header must agree.
	algorithms []jose.SignatureAlgorithm
	// ids are the values of kid by which a token names the key. If anonymous, it
	// may have others, since nothing but the server's choice tells them.
	ids       []string
	anonymous bool
}

// newKey returns an anonymous key. It returns an error for a key of a kind, or of a
// size, that is not supported.
func newKey(public crypto.PublicKey) (key, error) {
	k := key{public: public, anonymous: true}
	switch public := public.(type) {
	case ed25519.PublicKey:
		if len(public) == ed25519.PublicKeySize {
			k.algorithms = []jose.SignatureAlgorithm{jose.EdDSA}
		}
	case *ecdsa.PublicKey:
		if public == nil {
			break
		}
		switch public.Curve {
		case elliptic.P256():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES256}
		case elliptic.P384():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES384}
		case elliptic.P521():
			k.algorithms = []jose.SignatureAlgorithm{jose.ES512}
		}
	case *rsa.PublicKey:
		if public != nil && public.N != nil && public.N.BitLen() >= 2048 {
			k.algorithms = algorithms[:6]
		}
	}
	if k.algorithms == nil {
		return key{}, fmt.Errorf("unsupported key of type %T: want RSA of at least 2048 bits, ECDSA on P-256, P-384 or P-521, or Ed25519", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return key{}, err
	}
	thumbprint, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		return key{}, err
	}
	k.ids = []string{fingerprint(der), base64.RawURLEncoding.EncodeToString(thumbprint)}
	return k, nil
}

// fingerprint returns the ID that libtrust has for a key: docker_auth, GitLab, and
// Keycloak for its clients of the Docker protocol, name their keys by it.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	var groups []string
	for group := range slices.Chunk([]byte(base32.StdEncoding.EncodeToString(sum[:30])), 4) {
		groups = append(groups, string(group))
	}
	return strings.Join(groups, ":")
}

// matches reports whether a token that names its key as kid may be signed with k.
func (k key) matches(kid string) bool {
	return kid == "" || k.anonymous || slices.Contains(k.ids, kid)
}

// verify returns the payload if k has signed it with the named algorithm.
func (k key) verify(jws *jose.JSONWebSignature, algorithm string) ([]byte, bool) {
	if !slices.Contains(k.algorithms, jose.SignatureAlgorithm(algorithm)) {
		return nil, false
	}
	payload, err := jws.Verify(k.public)
	return payload, err == nil
}

// maxKeys is the maximum number of keys in a JWK Set: a token without a kid is
// tried with each of them.
const maxKeys = 100

// parseSet returns the keys of a JWK Set that can sign tokens. It skips others, such
// as those for encryption.
func parseSet(data []byte) ([]key, error) {
	var set struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("not a JWK Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	var keys []key
	for _, raw := range set.Keys {
		var jwk jose.JSONWebKey
		if json.Unmarshal(raw, &jwk) != nil || jwk.Use != "" && jwk.Use != "sig" {
			continue
		}
		k, err := newKey(jwk.Key)
		if err != nil {
			continue
		}
		if jwk.KeyID != "" {
			k.ids, k.anonymous = append(k.ids, jwk.KeyID), false
		}
		if a := jose.SignatureAlgorithm(jwk.Algorithm); a != "" {
			if !slices.Contains(k.algorithms, a) {
				continue
			}
			k.algorithms = []jose.SignatureAlgorithm{a}
		}
		keys = append(keys, k)
	}
	if keys == nil {
		return nil, errors.New("no keys that can sign tokens")
	}
	return keys, nil
}

// readKeys returns the keys in a file: a JWK Set, or public keys or certificates in
// PEM.
func readKeys(name string) ([]key, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	parse := parsePEM
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		parse = parseSet
	}
	keys, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("tokens: %s: %w", name, err)
	}
	return keys, nil
}

func parsePEM(data []byte) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		public, err := parseBlock(block)
		if err != nil {
			return nil, err
		}
		k, err := newKey(public)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if keys == nil {
		return nil, errors.New("neither a JWK Set nor public keys or certificates in PEM")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (crypto.PublicKey, error) {
	switch block.Type {
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return nil, fmt.Errorf("a PEM block of type %s, which is neither a public key nor a certificate", block.Type)
}
