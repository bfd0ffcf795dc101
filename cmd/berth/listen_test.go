// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

func listenLimited(t *testing.T, n int) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	limited := limitConnections([]net.Listener{l}, n)[0]
	t.Cleanup(func() { limited.Close() })
	return limited
}

// TestLimitConnections checks that a connection beyond the limit waits until
// another one is closed, and that closing the listener ends the wait.
func TestLimitConnections(t *testing.T) {
	l := listenLimited(t, 2)
	var accepted []net.Conn
	accept := func() error {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		c, err := l.Accept()
		if err == nil {
			t.Cleanup(func() { c.Close() })
			accepted = append(accepted, c)
		}
		return err
	}
	for range 2 {
		if err := accept(); err != nil {
			t.Fatal(err)
		}
	}
	var closed atomic.Bool
	go func() {
		time.Sleep(50 * time.Millisecond)
		closed.Store(true)
		accepted[0].Close()
	}()
	if err := accept(); err != nil || !closed.Load() {
		t.Fatalf("third connection: %v, another one closed: %v", err, closed.Load())
	}
	accepted[0].Close() // again, which must not make room for two
	time.AfterFunc(50*time.Millisecond, func() { l.Close() })
	if err := accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// fileListener counts the bytes of files that its connections send by themselves.
type fileListener struct {
	net.Listener
	sent atomic.Int64
}

func (l *fileListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &fileConn{c, l}, err
}

type fileConn struct {
	net.Conn
	l *fileListener
}

func (c *fileConn) ReadFrom(r io.Reader) (int64, error) {
	from, ok := c.Conn.(io.ReaderFrom)
	if !ok {
		return 0, errors.New("the connection has no ReadFrom")
	}
	source := r
	if limited, ok := r.(*io.LimitedReader); ok {
		source = limited.R // as in package net
	}
	n, err := from.ReadFrom(r)
	if _, ok := source.(syscall.Conn); ok {
		c.l.sent.Add(n)
	}
	return n, err
}

// TestFilesReachTheConnection checks that no handler of berth serve, and no
// connection of its listener, hides from the other that it can send a file by
// itself: by sendfile(2), where the system has it.
func TestFilesReachTheConnection(t *testing.T) {
	dir := t.TempDir()
	store, err := ocidir.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const size = 3 << 20
	content := strings.Repeat("0123456789abcdef", size/16)
	d := digest.FromString(content)
	if err := registry.PushBlob(t.Context(), store, "a", d, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		flags     serveCmd
		byteRange string
		want      string
	}{
		{"whole", serveCmd{}, "", content},
		{"range", serveCmd{}, "bytes=7-2097159", content[7:2097160]},
		{"no_progress", serveCmd{Progress: -1}, "", content},
		{"no_progress_range", serveCmd{Progress: -1}, "bytes=7-", content[7:]},
		{"users", serveCmd{Htpasswd: users}, "", content},
		{"loopback", serveCmd{loopback: true, Memory: 1 << 30, Warning: []string{"x"}}, "bytes=-2097152", content[size-2097152:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.flags.store = store
			if c.flags.Progress == 0 {
				c.flags.Progress = time.Minute
			}
			h, err := newHandler(t, &c.flags, (&serveCmd{}).openLog(io.Discard))
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan bool, 1)
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				h.ServeHTTP(w, r)
				served <- true
			}))
			s.Listener.Close()
			l := &fileListener{Listener: listenLimited(t, 10)}
			s.Listener = l
			s.Start()
			defer s.Close()

			req, _ := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+d.String(), nil)
			req.SetBasicAuth("alice", "wonderland")
			if c.byteRange != "" {
				req.Header.Set("Range", c.byteRange)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(body) != c.want {
				t.Fatalf("%s: %d bytes, want %d: %v", resp.Status, len(body), len(c.want), err)
			}
			<-served
			// net/http sends up to 512 bytes together with the header.
			if sent := l.sent.Load(); sent < int64(len(c.want)-512) {
				t.Errorf("%d of %d bytes were sent as a file", sent, len(c.want))
			}
		})
	}
}
