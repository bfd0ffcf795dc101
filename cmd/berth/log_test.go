// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry"
)

// htpasswdFile returns the name of a file with the user alice, whose password is
// wonderland.
func htpasswdFile(t testing.TB, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), cost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// brokenStore is a store whose tags can't be read.
type brokenStore struct{ registry.MemStore }

func (*brokenStore) GetTag(context.Context, string, string) (registry.Manifest, error) {
	return registry.Manifest{}, errors.New("the disk is on fire")
}

// TestEachResponseIsLogged checks that each response is logged once, with the user
// and the reason, wherever it comes from: from the registry, from authentication,
// from a guard, or from a panic.
func TestEachResponseIsLogged(t *testing.T) {
	var log syncBuffer
	c := serveCmd{Htpasswd: htpasswdFile(t, bcrypt.MinCost), loopback: true, store: new(brokenStore), LogFormat: "json"}
	h, err := newHandler(t, &c, c.openLog(&log))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	d := digest.FromString("content").String()
	for _, test := range []struct {
		name         string
		method, path string
		user         string // "" for none
		password     string
		host         string
		want         map[string]any // nil means absent
	}{
		{"challenge", "GET", "/v2/", "", "", "", map[string]any{"level": "INFO", "op": "ping", "status": 401., "user": nil, "error": "authentication required"}},
		{"wrong_password", "GET", "/v2/a/tags/list", "alice", "wrong", "", map[string]any{"level": "WARN", "op": "tags", "status": 401., "user": "alice", "user_agent": "test/1"}},
		{"push", "POST", "/v2/a/blobs/uploads/?digest=" + d, "alice", "wonderland", "", map[string]any{"level": "INFO", "op": "blob-push", "status": 201., "user": "alice", "digest": d, "error": nil}},
		{"pull", "GET", "/v2/a/blobs/" + d, "alice", "wonderland", "", map[string]any{"level": "INFO", "op": "blob-get", "status": 200., "user": "alice", "digest": d, "bytes": 7., "method": "GET", "url": "/v2/a/blobs/" + d}},
		{"HEAD_of_missing_content", "HEAD", "/v2/b/blobs/" + d, "alice", "wonderland", "", map[string]any{"level": "INFO", "status": 404., "error": "repository name not known to registry"}},
		{"GET_of_missing_content", "GET", "/v2/b/blobs/" + d, "alice", "wonderland", "", map[string]any{"level": "WARN", "status": 404., "error": "repository name not known to registry"}},
		{"another_host", "GET", "/v2/", "", "", "attacker.example", map[string]any{"level": "WARN", "status": 421., "error": `the host "attacker.example" is not served on a loopback address: to serve it, start berth serve with --host=attacker.example`}},
		{"failing_store", "GET", "/v2/a/manifests/tag", "alice", "wonderland", "", map[string]any{"level": "ERROR", "status": 500., "user": "alice", "error": "the disk is on fire"}},
		{"health", "GET", "/healthz", "", "", "attacker.example", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var body io.Reader
			if test.method == "POST" {
				body = strings.NewReader("content")
			}
			req, err := http.NewRequest(test.method, s.URL+test.path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = test.host
			req.Header.Set("User-Agent", "test/1")
			if test.user != "" {
				req.SetBasicAuth(test.user, test.password)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			checkLog(t, &log, test.want)
		})
	}
}

// checkLog checks that log has one line, with the members of want, or none if want
// is nil. It removes it.
func checkLog(t *testing.T, log *syncBuffer, want map[string]any) {
	t.Helper()
	text := waitForLine(log, want != nil)
	if want == nil {
		if text != "" {
			t.Errorf("logged %s", text)
		}
		return
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(text), &got); err != nil || got["msg"] != "request" {
		t.Fatalf("logged %q: %v", text, err)
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %v, want %v: %s", key, got[key], value, text)
		}
	}
}

// TestLogIsPrintable checks that no request can send control characters to the
// terminal that shows the log.
func TestLogIsPrintable(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			var log syncBuffer
			c := serveCmd{LogFormat: format, store: new(registry.MemStore)}
			l := c.openLog(&log)
			h, err := newHandler(t, &c, l)
			if err != nil {
				t.Fatal(err)
			}
			const evil = "\x1b[2J\x07\r\n\x7f\u009b2J\u202e"
			r := httptest.NewRequest("GET", "/v2/", nil)
			r.URL.RawQuery = "x=" + evil
			r.Header.Set("User-Agent", evil)
			r.SetBasicAuth(evil, evil)
			h.ServeHTTP(httptest.NewRecorder(), r)
			l.flush()
			text := strings.TrimSuffix(log.take(), "\n")
			if text == "" || strings.ContainsAny(text, evil[:1]+"\x07\r\n\x7f\u009b\u202e") {
				t.Errorf("logged %q", text)
			}

			r = httptest.NewRequest("GET", "/v2/?x="+strings.Repeat("x", 100_000), nil)
			r.Header.Set("User-Agent", strings.Repeat("y", 100_000))
			h.ServeHTTP(httptest.NewRecorder(), r)
			l.flush()
			if n := len(log.take()); n > 3*maxLogged {
				t.Errorf("logged %d bytes", n)
			}
		})
	}
}

// TestAbortedResponseIsLogged checks that a response that ends early is logged.
func TestAbortedResponseIsLogged(t *testing.T) {
	var log syncBuffer
	h := registry.Observe((&serveCmd{LogFormat: "json"}).openLog(&log).logRequest)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(bytes.Repeat([]byte("x"), 100))
		panic(http.ErrAbortHandler)
	}))
	func() {
		defer func() {
			if recover() != http.ErrAbortHandler {
				t.Error("the panic did not reach net/http")
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	}()
	checkLog(t, &log, map[string]any{"level": "WARN", "status": 200., "bytes": 100., "error": "the response was aborted"})
}
