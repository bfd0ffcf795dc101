// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry"
)

// serveHandler starts a server of what berth serve serves with the given flags.
func serveHandler(t *testing.T, c serveCmd) *httptest.Server {
	t.Helper()
	h, err := c.handler(context.Background(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// TestProgress has clients that are slow: one that makes progress is served
// for many times the timeout, one that hardly does is dropped.
func TestProgress(t *testing.T) {
	const timeout = 300 * time.Millisecond
	s := serveHandler(t, serveCmd{Progress: timeout})
	push := func(pieces, size int, pause time.Duration) (*http.Response, error) {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /v2/a/manifests/tag HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", pieces*size)
		go func() {
			for range pieces {
				if _, err := conn.Write(bytes.Repeat([]byte("x"), size)); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}()
		return http.ReadResponse(bufio.NewReader(conn), nil)
	}
	resp, err := push(40, readProgress, timeout/10)
	if err != nil || resp.StatusCode != 201 {
		t.Errorf("a slow client: %v %v", resp, err)
	}
	resp, err = push(1000, 1, timeout/50)
	if err == nil && resp.StatusCode < 400 {
		t.Errorf("a client of a byte now and then: %v", resp.Status)
	}

	// A connection is as good as before.
	for _, body := range []string{"one", "", "two"} {
		time.Sleep(2 * timeout)
		req, _ := http.NewRequest("PUT", s.URL+"/v2/a/manifests/tag", strings.NewReader(body))
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 201 {
			t.Error(resp.Status)
		}
	}
}

// TestStalledReader has a client that asks for more than its socket holds, and
// does not take it: the handler ends all the same.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	h := watchProgress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if r.URL.Path == "/file" {
			_, err = io.Copy(w, io.LimitReader(zeros{}, 1<<30)) // by ReadFrom
		} else {
			_, err = w.Write(make([]byte, 1<<28))
		}
		ended <- err
	}), 200*time.Millisecond)
	s := httptest.NewServer(h)
	defer s.Close()
	for _, path := range []string{"/", "/file"} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		if err := <-ended; err == nil {
			t.Errorf("%s was written whole", path)
		}
		conn.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// syncBuffer is for a log of other goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// take returns what was written, and forgets it.
func (b *syncBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

func TestPanics(t *testing.T) {
	var log syncBuffer
	h := catchPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "late":
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
		case "abort":
			panic(http.ErrAbortHandler)
		}
		panic("secret")
	}), slog.New(slog.NewJSONHandler(&log, nil)))
	s := httptest.NewServer(h)
	defer s.Close()

	resp, err := s.Client().Get(s.URL + "/v2/a/tags/list")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 500 || strings.Contains(string(body), "secret") || !strings.Contains(string(body), `"errors":`) {
		t.Errorf("%s %s", resp.Status, body)
	}
	logged := log.take()
	if n := strings.Count(logged, `"msg":"panic","op":"tags"`); n != 1 || !strings.Contains(logged, `"panic":"secret"`) {
		t.Errorf("logged %d times: %s", n, logged)
	}

	resp, err = s.Client().Get(s.URL + "/v2/?late")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that had begun was ended in order: %s", body)
	}
	log.take()
	if _, err := s.Client().Get(s.URL + "/v2/?abort"); err == nil {
		t.Error("an aborted handler answered")
	}
	if logged := log.take(); logged != "" {
		t.Errorf("logged %s", logged)
	}
}

func TestHealth(t *testing.T) {
	stopping, stop := context.WithCancel(context.Background())
	h := health(registry.New(), stopping)
	ask := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code
	}
	if a, b, c := ask("/healthz"), ask("/readyz"), ask("/v2/"); a != 200 || b != 200 || c != 200 {
		t.Error(a, b, c)
	}
	stop()
	if a, b, c := ask("/healthz"), ask("/readyz"), ask("/v2/"); a != 200 || b != 503 || c != 200 {
		t.Error(a, b, c)
	}
}

func TestHtpasswd(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("wonder:land"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# users\n\nalice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := serveHandler(t, serveCmd{Htpasswd: file})
	open := serveHandler(t, serveCmd{Htpasswd: file, AnonymousPull: true})
	for _, c := range []struct {
		server         *httptest.Server
		method, path   string
		user, password string
		want           int
	}{
		{closed, "GET", "/healthz", "", "", 200},
		{closed, "GET", "/v2/", "", "", 401},
		{closed, "GET", "/v2/", "alice", "wonder:land", 200},
		{closed, "GET", "/v2/", "alice", "wonder:land", 200}, // it is known by now
		{closed, "GET", "/v2/", "alice", "wonder", 401},
		{closed, "GET", "/v2/", "bob", "wonder:land", 401},
		{closed, "GET", "/v2/a/tags/list", "", "", 401},
		{closed, "POST", "/v2/a/blobs/uploads/", "alice", "wonder:land", 202},
		{open, "GET", "/v2/a/tags/list", "", "", 404},
		{open, "POST", "/v2/a/blobs/uploads/", "", "", 401},
		{open, "GET", "/v2/_catalog", "", "", 401},
	} {
		req, _ := http.NewRequest(c.method, c.server.URL+c.path, nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		resp, err := c.server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s %s as %q: %s, want %d", c.method, c.path, c.user, resp.Status, c.want)
		}
	}

	for _, text := range []string{"alice", "alice:secret", ":" + string(hash), "alice:{SHA}x"} {
		if _, err := readHtpasswd(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
