// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// newKey returns a private key, and the name of a file with it.
func newKey(t *testing.T) (*rsa.PrivateKey, []byte, string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	qt.Assert(t, qt.IsNil(err))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	qt.Assert(t, qt.IsNil(err))
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	name := filepath.Join(t.TempDir(), "key.pem")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, text, 0o600)))
	return key, text, name
}

// openGoogle opens the bucket of a URL, whose requests go to a server.
func openGoogle(t *testing.T, bucketURL string, server *httptest.Server) *googleBucket {
	u, err := url.Parse(bucketURL)
	qt.Assert(t, qt.IsNil(err))
	b, err := OpenGCS(context.Background(), u)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { b.Close() })
	g := b.(*googleBucket)
	g.client = server.Client()
	return g
}

// TestGoogleCredentials opens buckets with the file of a service account.
func TestGoogleCredentials(t *testing.T) {
	var authorization string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"access_token":"t","token_type":"Bearer","expires_in":3600}`)
			return
		}
		authorization = r.Header.Get("Authorization")
		io.WriteString(w, `{"generation":"1","size":"2"}`)
	}))
	defer server.Close()
	_, key, keyFile := newKey(t)
	account := filepath.Join(t.TempDir(), "account.json")
	text, err := json.Marshal(map[string]string{
		"type":         "service_account",
		"client_email": "berth@example.com",
		"private_key":  string(key),
		"token_uri":    server.URL + "/token",
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(account, text, 0o600)))
	t.Setenv(emulatorVariable, "")

	for _, test := range []struct {
		name          string
		query         string
		emulator      string
		authorization string
		endpoint      string
		email         string // of the signer
		ownKey        bool   // the signer has a key
	}{
		{"file", "", "", "Bearer t", "https://storage.googleapis.com", "berth@example.com", true},
		{"anonymous", "anonymous=true", "", "", "https://storage.googleapis.com", "", false},
		{"not anonymous", "anonymous=false", "", "Bearer t", "https://storage.googleapis.com", "berth@example.com", true},
		{"anonymous by its ID", "access_id=-", "", "", "https://storage.googleapis.com", "", false},
		{"another account's ID", "access_id=other@example.com", "", "Bearer t", "https://storage.googleapis.com", "other@example.com", false},
		{"another account's key", "access_id=other@example.com&private_key_path=" + keyFile, "", "Bearer t", "https://storage.googleapis.com", "other@example.com", true},
		{"anonymous with a key", "anonymous=true&access_id=other@example.com&private_key_path=" + keyFile, "", "", "https://storage.googleapis.com", "other@example.com", true},
		{"the key is not used", "private_key_path=", "", "Bearer t", "https://storage.googleapis.com", "berth@example.com", false},
		{"universe", "universe_domain=example.net", "", "Bearer t", "https://storage.example.net", "berth@example.com", true},
		{"emulator", "", "127.0.0.1:1", "", "http://127.0.0.1:1", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", account)
			t.Setenv(emulatorVariable, test.emulator)
			b := openGoogle(t, "gs://b?"+test.query, server)
			qt.Check(t, qt.Equals(b.endpoint, test.endpoint))
			b.endpoint = server.URL
			authorization = "not sent"
			o, err := b.Stat(context.Background(), "k")
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(o.Version, "1"))
			qt.Check(t, qt.Equals(authorization, test.authorization))
			if test.email == "" {
				_, err := b.SignedURL(context.Background(), "k", time.Minute)
				qt.Check(t, qt.ErrorIs(err, ErrUnsupported))
				return
			}
			qt.Check(t, qt.Equals(b.signer.email, test.email))
			qt.Check(t, qt.Equals(b.signer.key != nil, test.ownKey))
		})
	}

	t.Run("invalid", func(t *testing.T) {
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", account)
		for _, bucketURL := range []string{
			"gs://", "gs://b?prefix=p", "gs://b?key=k", "gs://b?unknown=1", "gs://b?anonymous=maybe",
			"gs://b?private_key_path=/missing", "gs://b?private_key_path=" + account,
		} {
			u, err := url.Parse(bucketURL)
			qt.Assert(t, qt.IsNil(err))
			_, err = OpenGCS(context.Background(), u)
			qt.Check(t, qt.IsNotNil(err), qt.Commentf(bucketURL))
		}
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/missing")
		_, err := OpenGCS(context.Background(), &url.URL{Scheme: "gs", Host: "b"})
		qt.Check(t, qt.ErrorMatches(err, "objects: no credentials for Google Cloud Storage: .*/missing.*"))
	})
}

// TestGoogleNoToken uses credentials that the token server does not accept.
func TestGoogleNoToken(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer server.Close()
	_, key, _ := newKey(t)
	account := filepath.Join(t.TempDir(), "account.json")
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "x", "private_key": string(key), "token_uri": server.URL,
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(account, text, 0o600)))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", account)
	t.Setenv(emulatorVariable, "")
	b := openGoogle(t, "gs://b", server)
	_, err = b.Stat(context.Background(), "k")
	qt.Check(t, qt.Matches(Explain(b, err), "no token for Google Cloud Storage: .*400.*"))
}

// TestGoogleSignedURL verifies signatures, of a key and of Google.
func TestGoogleSignedURL(t *testing.T) {
	key, _, _ := newKey(t)
	var request string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request = r.Method + " " + r.URL.Path
		var in struct{ Payload []byte }
		json.NewDecoder(r.Body).Decode(&in)
		sum := sha256.Sum256(in.Payload)
		signature, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		json.NewEncoder(w).Encode(map[string]any{"keyId": "1", "signedBlob": signature})
	}))
	defer server.Close()
	now := time.Date(2026, 2, 3, 4, 5, 6, 7, time.FixedZone("", 3600))
	const query = "X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=berth%40example.com%2F20260203%2Fauto%2Fstorage%2Fgoog4_request" +
		"&X-Goog-Date=20260203T030506Z&X-Goog-Expires=900&X-Goog-SignedHeaders=host"
	for _, test := range []struct{ key, path string }{
		{"blobs/sha256/ab/data/1", "/b/blobs/sha256/ab/data/1"},
		{"a b+c%d&e?ü~_.-", "/b/a%20b%2Bc%25d%26e%3F%C3%BC~_.-"},
	} {
		canonical := sha256.Sum256(fmt.Appendf(nil, "GET\n%s\n%s\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD", test.path, query))
		signed := sha256.Sum256([]byte("GOOG4-RSA-SHA256\n20260203T030506Z\n20260203/auto/storage/goog4_request\n" + hex.EncodeToString(canonical[:])))
		for name, own := range map[string]*rsa.PrivateKey{"key": key, "Google": nil} {
			t.Run(name, func(t *testing.T) {
				b := newGoogle(&http.Client{Transport: toServer{server}}, "b", "https://storage.googleapis.com")
				b.signer = &googleSigner{email: "berth@example.com", key: own}
				u, err := b.signURL(context.Background(), test.key, now, 15*time.Minute)
				qt.Assert(t, qt.IsNil(err))
				rest, signature, _ := strings.Cut(u, "&X-Goog-Signature=")
				qt.Check(t, qt.Equals(rest, "https://storage.googleapis.com"+test.path+"?"+query))
				binary, err := hex.DecodeString(signature)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsNil(rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, signed[:], binary)))
			})
		}
	}
	qt.Check(t, qt.Equals(request, "POST /v1/projects/-/serviceAccounts/berth@example.com:signBlob"))
}

// toServer sends all requests to a server.
type toServer struct{ *httptest.Server }

func (s toServer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = s.Listener.Addr().String()
	return s.Client().Transport.RoundTrip(r)
}
