// SPDX-License-Identifier: Apache-2.0

package tokens

import (
	"bytes"
	"context"
	"crypto/rsa"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/registrytest"
)

// keyServer serves a JWK Set, in process.
type keyServer struct {
	count atomic.Int32

	mu     sync.Mutex
	body   []byte
	status int // 0 means 200
}

func (s *keyServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.count.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != 0 {
		w.WriteHeader(s.status)
	}
	w.Write(s.body)
}

func (s *keyServer) set(status int, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body = status, body
}

func (s *keyServer) verifier(t testing.TB) *Verifier {
	return newVerifier(t, Config{
		Service: registryName,
		Keys:    []string{"https://tokens.test/keys"},
		Client:  &http.Client{Transport: registrytest.Transport(s)},
	})
}

func tokenWithKey(t testing.TB, key *rsa.PrivateKey, kid string) string {
	return sign(t, key, map[string]any{"alg": "RS256", "kid": kid}, claimsOf(map[string]any{"exp": time.Now().Add(1000 * time.Hour).Unix()}))
}

func jwk(key *rsa.PrivateKey, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: "RS256", Use: "sig"}
}

// TestRotationOfKeys follows a token server that replaces its key.
func TestRotationOfKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s keyServer
		s.set(0, set(jwk(rsaKey, "one")))
		v := s.verifier(t)
		check := func(token string, want int, wantCount int32) {
			t.Helper()
			qt.Check(t, qt.Equals(status(t, v, token), want))
			qt.Check(t, qt.Equals(s.count.Load(), wantCount))
		}
		one, two := tokenWithKey(t, rsaKey, "one"), tokenWithKey(t, otherRSA, "two")
		check(one, 200, 1)
		check(one, 200, 1)
		check(tokenWithKey(t, otherRSA, "one"), 401, 1) // a forgery, not a new key

		// A flood of unknown keys fetches the set at most every 10 seconds.
		for range 100 {
			check(two, 401, 1)
		}
		time.Sleep(10 * time.Second)
		for range 100 {
			check(two, 401, 2)
		}
		s.set(0, set(jwk(rsaKey, "one"), jwk(otherRSA, "two")))
		time.Sleep(10 * time.Second)
		check(two, 200, 3)

		// A key that is withdrawn is accepted for an hour.
		s.set(0, set(jwk(otherRSA, "two")))
		time.Sleep(59 * time.Minute)
		check(one, 200, 3)
		time.Sleep(time.Minute)
		qt.Check(t, qt.Equals(status(t, v, two), 200)) // starts to fetch
		synctest.Wait()
		check(one, 401, 4)
	})
}

// TestUnreachableTokenServer checks that an unreachable token server is never a
// reason to reject credentials, and that its known keys are accepted for a day.
func TestUnreachableTokenServer(t *testing.T) {
	for name, broken := range map[string]struct {
		status int
		body   []byte
	}{
		"500":       {500, nil},
		"404":       {404, nil},
		"not_a_set": {200, []byte("<html>")},
		"no_keys":   {200, []byte(`{"keys":[]}`)},
		"oversized": {200, append(set(jwk(rsaKey, "one")), bytes.Repeat([]byte(" "), maxSet)...)},
		"many_keys": {200, []byte(`{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s keyServer
				s.set(broken.status, broken.body)
				v := s.verifier(t)
				token := tokenWithKey(t, rsaKey, "one")
				for range 3 {
					qt.Check(t, qt.Equals(status(t, v, token), 503))
				}
				qt.Check(t, qt.Equals(s.count.Load(), 1))
				qt.Check(t, qt.Equals(status(t, v, "malformed"), 401))

				s.set(0, set(jwk(rsaKey, "one")))
				time.Sleep(10 * time.Second)
				qt.Check(t, qt.Equals(status(t, v, token), 200))
				s.set(broken.status, broken.body)
				time.Sleep(23 * time.Hour)
				qt.Check(t, qt.Equals(status(t, v, token), 200))
				synctest.Wait()
				qt.Check(t, qt.Equals(status(t, v, tokenWithKey(t, otherRSA, "new")), 503))
				qt.Check(t, qt.Equals(status(t, v, tokenWithKey(t, otherRSA, "one")), 401))
				time.Sleep(time.Hour)
				qt.Check(t, qt.Equals(status(t, v, token), 503))
			})
		})
	}
}

// TestConcurrentTokensFetchOnce checks that requests that arrive together share a
// fetch, and that one of them that is cancelled does not fail the others.
func TestConcurrentTokensFetchOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var count atomic.Int32
		v := newVerifier(t, Config{
			Service: registryName,
			Keys:    []string{"https://tokens.test/keys"},
			Client: &http.Client{Transport: registrytest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				count.Add(1)
				time.Sleep(5 * time.Second)
				w.Write(set(jwk(rsaKey, "one")))
			}))},
		})
		token := tokenWithKey(t, rsaKey, "one")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			_, err := v.Verify(ctx, token)
			qt.Check(t, qt.ErrorIs(err, context.DeadlineExceeded))
		})
		for range 20 {
			all.Go(func() {
				_, err := v.Verify(t.Context(), token)
				qt.Check(t, qt.IsNil(err))
			})
		}
		all.Wait()
		qt.Check(t, qt.Equals(count.Load(), 1))
	})
}

// TestStalledTokenServer checks that a fetch ends.
func TestStalledTokenServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerifier(t, Config{
			Service: registryName,
			Keys:    []string{"https://tokens.test/keys"},
			Client: &http.Client{Transport: registrytest.Transport(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			}))},
		})
		start := time.Now()
		qt.Check(t, qt.Equals(status(t, v, tokenWithKey(t, rsaKey, "one")), 503))
		qt.Check(t, qt.Equals(time.Since(start), fetchTimeout))
	})
}

// TestRedirectToPlainHTTP checks that keys are never fetched without TLS from
// elsewhere.
func TestRedirectToPlainHTTP(t *testing.T) {
	s := httptest.NewServer(http.RedirectHandler("http://tokens.example/keys", http.StatusFound))
	defer s.Close()
	v := newVerifier(t, Config{Service: registryName, Keys: []string{s.URL}})
	_, err := v.Verify(t.Context(), tokenWithKey(t, rsaKey, "one"))
	qt.Check(t, qt.ErrorMatches(err, ".*must be https.*"))
	http.DefaultClient.CloseIdleConnections()
}
