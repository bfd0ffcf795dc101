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
	"strings"
	"testing"
	"time"
)

// serveHandler starts a server with the handler of berth serve and the given
// flags.
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

// TestProgress checks that a slow client is served for many times the timeout if
// it makes progress, and dropped if it hardly does.
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
		t.Errorf("slow client: %v %v", resp, err)
	}
	resp, err = push(1000, 1, timeout/50)
	if err == nil && resp.StatusCode < 400 {
		t.Errorf("client that hardly makes progress: %v", resp.Status)
	}

	// Connections can be reused after the timeout.
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

// TestStalledReader checks that a handler ends if the client does not read a
// response that exceeds the buffers of its socket.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	h := watchProgress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if r.URL.Path == "/file" {
			_, err = io.Copy(w, io.LimitReader(zeros{}, 1<<30)) // calls ReadFrom
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
			t.Errorf("%s was written in full", path)
		}
		conn.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
