// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berth-oci/registry"
)

// syncBuffer is a buffer that is safe for concurrent use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// take returns and removes the content.
func (b *syncBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.b.Reset()
	return b.b.String()
}

// waitForLine returns and removes the content. A line is written after the client
// has got the response: if there must be one, it waits for it.
func waitForLine(b *syncBuffer, must bool) string {
	for range 500 {
		if text := b.take(); text != "" || !must {
			return text
		}
		time.Sleep(10 * time.Millisecond)
	}
	return ""
}

// TestPanics checks that panics are hidden from clients, and logged once each.
func TestPanics(t *testing.T) {
	var log syncBuffer
	h := registry.Observe(func(registry.Event) {})(catchPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RawQuery {
		case "late":
			io.WriteString(w, "some")
			http.NewResponseController(w).Flush()
		case "abort":
			panic(http.ErrAbortHandler)
		}
		panic("secret")
	}), slog.New(slog.NewJSONHandler(&log, nil))))
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
		t.Errorf("an incomplete response ended without an error: %s", body)
	}
	log.take()
	if _, err := s.Client().Get(s.URL + "/v2/?abort"); err == nil {
		t.Error("an aborted handler responded")
	}
	if logged := log.take(); logged != "" {
		t.Errorf("logged %s", logged)
	}
}
