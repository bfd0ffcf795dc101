// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// TestRedirectsWithoutCredentials checks that a password is not sent to the server of
// another port that a registry redirects to.
func TestRedirectsWithoutCredentials(t *testing.T) {
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/blob", http.StatusTemporaryRedirect)
		}
	}))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path != "/v2/" {
			http.Redirect(w, r, other.URL+"/", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	s, err := openRemote(t.Context(), server.URL, remoteFlags{User: "ann:secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blob, err := s.OpenBlob(t.Context(), "app", digest.FromString("x"))
	if err != nil {
		t.Fatal(err)
	}
	blob.Close()
	if len(got) != 2 || got[0] != "" || got[1] != "" {
		t.Errorf("the other server has received %q", got)
	}
}

// TestRedirectLoop checks that redirects end that lead nowhere.
func TestRedirectLoop(t *testing.T) {
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; n < 100 {
			http.Redirect(w, r, "/v2/", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	if _, err := openRemote(t.Context(), server.URL, remoteFlags{}); err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") {
		t.Error(err)
	}
}

// TestRetryAfter checks how long a request waits for a busy registry.
func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"2": 2 * time.Second, "30": 30 * time.Second, "3600": time.Minute} {
		got, err := retryPolicy.Retry(0, &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {header}}}, nil)
		if got != want || err != nil {
			t.Errorf("Retry-After: %s: %v, %v", header, got, err)
		}
	}
}

// TestSilentRegistry checks that a registry that does not respond is given up.
func TestSilentRegistry(t *testing.T) {
	defer func(timeout time.Duration) { responseTimeout = timeout }(responseTimeout)
	responseTimeout = 10 * time.Millisecond
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer s.Close()
	_, err := openRemote(t.Context(), s.URL, remoteFlags{})
	if err == nil || !strings.Contains(err.Error(), "timeout awaiting response headers") {
		t.Error(err)
	}
}
