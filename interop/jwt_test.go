// SPDX-License-Identifier: Apache-2.0

// Pulls with the tokens of other token servers, in the shapes that those have.

package interop

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/go-quicktest/qt"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/tokens"
)

// tokenServer is a token server that signs with RS256, as all of those in the field
// do. It knows one user, alice, who may pull from team/app.
type tokenServer struct {
	key     *rsa.PrivateKey
	header  map[string]any               // of tokens, in addition to alg and typ
	claims  map[string]any               // of tokens, in addition to sub, exp and access
	respond func(token string) (doc any) // the response's document
	keys    any                          // the JWK Set at /keys, if any

	issued, fetched int
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/keys" && s.keys != nil:
		s.fetched++
		json.NewEncoder(w).Encode(s.keys)
		return
	case r.Method != http.MethodGet:
		http.NotFound(w, r) // as GitLab; clients fall back to GET
		return
	}
	user, password, _ := r.BasicAuth()
	if user != "alice" || password != "wonderland" {
		w.Header().Set("Www-Authenticate", `Basic realm="tokens"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	access := []any{}
	for _, scope := range r.URL.Query()["scope"] {
		if scope == "repository:team/app:pull" {
			access = append(access, map[string]any{"type": "repository", "name": "team/app", "actions": []string{"pull"}, "class": ""})
		}
	}
	now := time.Now().Unix()
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	for name, value := range s.header {
		header[name] = value
	}
	claims := map[string]any{"sub": user, "iat": now, "nbf": now, "exp": now + 300, "access": access}
	for name, value := range s.claims {
		claims[name] = value
	}
	signed := encodeJSON(header) + "." + encodeJSON(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, s.key, crypto.SHA256, sum[:])
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.issued++
	json.NewEncoder(w).Encode(s.respond(signed + "." + base64.RawURLEncoding.EncodeToString(signature)))
}

func encodeJSON(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// libtrustID returns the ID that libtrust has for a key.
func libtrustID(t *testing.T, key *rsa.PrivateKey) string {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	qt.Assert(t, qt.IsNil(err))
	sum := sha256.Sum256(der)
	text := base32.StdEncoding.EncodeToString(sum[:30])
	var groups []string
	for ; text != ""; text = text[4:] {
		groups = append(groups, text[:4])
	}
	return strings.Join(groups, ":")
}

// jwk returns a public key of a JWK Set.
func jwk(key *rsa.PrivateKey, kid, use, alg string) map[string]any {
	return map[string]any{
		"kty": "RSA", "kid": kid, "use": use, "alg": alg, "e": "AQAB",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
	}
}

// newCertificate returns a certificate for key, signed by a CA.
func newCertificate(t *testing.T, name string, key *rsa.PrivateKey, ca *x509.Certificate, caKey *rsa.PrivateKey) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca == nil, BasicConstraintsValid: true,
	}
	if ca == nil {
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	qt.Assert(t, qt.IsNil(err))
	cert, err := x509.ParseCertificate(der)
	qt.Assert(t, qt.IsNil(err))
	return cert
}

// tokenDoc returns the response of GitLab.
func tokenDoc(token string) any { return map[string]any{"token": token} }

// bothDoc returns the response of Keycloak and docker_auth.
func bothDoc(token string) any {
	return map[string]any{"token": token, "access_token": token, "expires_in": 300, "issued_at": time.Now().UTC()}
}

// TestTokenServers checks that containerd and skopeo pull with the tokens of other
// servers, and only what those grant.
func TestTokenServers(t *testing.T) {
	newKey := func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		qt.Assert(t, qt.IsNil(err))
		return key
	}
	key, other, caKey := newKey(), newKey(), newKey()
	ca := newCertificate(t, "ca", caKey, nil, nil)
	cert := newCertificate(t, "docker_auth", key, ca, caKey)
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	certFile := filepath.Join(t.TempDir(), "cert.pem")
	qt.Assert(t, qt.IsNil(os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600)))

	for _, test := range []struct {
		name    string
		service string
		server  tokenServer
		// config returns the configuration of the registry.
		config func(url string) tokens.Config
	}{
		{
			name:    "GitLab",
			service: "container_registry",
			server: tokenServer{
				header:  map[string]any{"kid": "gitlab-key"},
				claims:  map[string]any{"iss": "gitlab-issuer", "aud": "container_registry", "jti": "1", "auth_type": "gitlab_or_ldap"},
				respond: tokenDoc,
				keys:    map[string]any{"keys": []any{jwk(other, "ci-key", "sig", "RS256"), jwk(key, "gitlab-key", "sig", "RS256")}},
			},
			config: func(url string) tokens.Config {
				return tokens.Config{Issuer: "gitlab-issuer", Keys: []string{url + "/keys"}}
			},
		},
		{
			name:    "Keycloak",
			service: "docker-registry",
			server: tokenServer{
				// The docker-v2 protocol names the key by its libtrust ID, and
				// the realm's JWK Set by another one.
				header:  map[string]any{"kid": libtrustID(t, key)},
				claims:  map[string]any{"iss": "https://keycloak.test/realms/r", "aud": []string{"docker-registry"}, "jti": "1"},
				respond: bothDoc,
				keys:    map[string]any{"keys": []any{jwk(other, "Xe1enc", "enc", "RSA-OAEP"), jwk(key, "Xe1sig", "sig", "RS256")}},
			},
			config: func(url string) tokens.Config {
				return tokens.Config{Issuer: "https://keycloak.test/realms/r", Keys: []string{url + "/keys"}}
			},
		},
		{
			name:    "docker_auth_x5c",
			service: "registry.test",
			server: tokenServer{
				header:  map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(cert.Raw)}},
				claims:  map[string]any{"iss": "Acme auth server", "aud": "registry.test", "jti": "1"},
				respond: bothDoc,
			},
			config: func(string) tokens.Config { return tokens.Config{Issuer: "Acme auth server", Roots: roots} },
		},
		{
			name:    "docker_auth_kid",
			service: "registry.test",
			server: tokenServer{
				header:  map[string]any{"kid": libtrustID(t, key)},
				claims:  map[string]any{"iss": "Acme auth server", "aud": "registry.test", "jti": "1"},
				respond: bothDoc,
			},
			config: func(string) tokens.Config { return tokens.Config{Issuer: "Acme auth server", Keys: []string{certFile}} },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := new(registry.MemStore)
			image, err := registrytest.PushRandomImage(t.Context(), store, "team/app", "v1", 1, 1, 50_000)
			qt.Assert(t, qt.IsNil(err))
			_, err = registrytest.PushRandomImage(t.Context(), store, "team/secret", "v1", 2, 1, 100)
			qt.Assert(t, qt.IsNil(err))
			server := &test.server
			server.key = key
			tokenHost := httptest.NewServer(server)
			t.Cleanup(tokenHost.Close)
			config := test.config(tokenHost.URL)
			config.Service = test.service
			verifier, err := tokens.New(config)
			qt.Assert(t, qt.IsNil(err))
			s := httptest.NewServer(auth.Bearer(tokenHost.URL+"/auth", test.service, verifier.Verify)(registry.New(registry.WithStore(store))))
			t.Cleanup(s.Close)
			host := s.Listener.Addr().String()

			t.Run("containerd", func(t *testing.T) {
				resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
					docker.WithPlainHTTP(docker.MatchAllHosts),
					docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) { return "alice", "wonderland", nil }))),
				)})
				name, d, err := resolver.Resolve(t.Context(), host+"/team/app:v1")
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(d.Digest, image.Digest))
				fetcher, err := resolver.Fetcher(t.Context(), name)
				qt.Assert(t, qt.IsNil(err))
				var manifest ocispec.Manifest
				qt.Assert(t, qt.IsNil(json.Unmarshal(image.Content, &manifest)))
				for _, d := range append(manifest.Layers, manifest.Config, d) {
					body, err := fetcher.Fetch(t.Context(), d)
					qt.Assert(t, qt.IsNil(err))
					data, err := io.ReadAll(body)
					body.Close()
					qt.Assert(t, qt.IsNil(err))
					qt.Assert(t, qt.Equals(d.Digest.Algorithm().FromBytes(data), d.Digest))
				}
				_, _, err = resolver.Resolve(t.Context(), host+"/team/secret:v1")
				qt.Assert(t, qt.ErrorIs(err, docker.ErrInvalidAuthorization))
			})
			t.Run("skopeo", func(t *testing.T) {
				skopeo := newSkopeo(t)
				dir := t.TempDir()
				skopeo.run(t, "copy", "--src-tls-verify=false", "--src-creds=alice:wonderland", "docker://"+host+"/team/app:v1", "dir:"+dir)
				data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(string(data), string(image.Content)))
				skopeo.fail(t, "copy", "--src-tls-verify=false", "--src-creds=alice:wonderland", "docker://"+host+"/team/secret:v1", "dir:"+t.TempDir())
			})
			qt.Check(t, qt.Not(qt.Equals(server.issued, 0)))
			if server.keys != nil && server.fetched != 1 {
				t.Errorf("the keys were fetched %d times", server.fetched)
			}
		})
	}
}
