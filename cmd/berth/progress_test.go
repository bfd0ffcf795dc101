// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-oci/registry"
)

// newHandler returns the handler of berth serve.
func newHandler(t testing.TB, c *serveCmd, log *serverLog) (http.Handler, error) {
	t.Helper()
	s, err := c.newServer(log)
	if err != nil {
		return nil, err
	}
	t.Cleanup(s.Close)
	return s.handler(context.Background()), nil
}

// serveHandler starts a server with the handler of berth serve and the given
// flags.
func serveHandler(t *testing.T, c serveCmd) *httptest.Server {
	t.Helper()
	if c.store == nil {
		c.store = new(registry.MemStore)
	}
	h, err := newHandler(t, &c, (&serveCmd{}).openLog(io.Discard))
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
	resp, err := push(40, 1<<10, timeout/10)
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
