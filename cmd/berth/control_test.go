// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// TestControlSocket checks that only this user can connect to the socket of a directory,
// whatever its name is: Linux has sockets without a file, and without permissions, whose
// names begin with @.
func TestControlSocket(t *testing.T) {
	skipOnWindows(t)
	for _, store := range []string{"dir:store", "dir:@store", "dir:./@store"} {
		t.Chdir(t.TempDir())
		if err := os.MkdirAll(filepath.Join(store[len("dir:"):], ".berth"), 0o777); err != nil {
			t.Fatal(err)
		}
		c := &serveCmd{Store: store, store: new(registry.MemStore)}
		s, err := c.newServer(c.openLog(io.Discard))
		if err != nil {
			t.Fatal(err)
		}
		stop := s.serveControl()
		info, err := os.Stat(filepath.Join(store[len("dir:"):], ".berth", "control.sock"))
		if err != nil || info.Mode() != fs.ModeSocket|0o600 {
			t.Errorf("%s: %v, %v", store, info, err)
		}
		stop()
		s.Close()
	}
}

// TestDebugHosts checks that a debug address on loopback serves no web pages.
func TestDebugHosts(t *testing.T) {
	c := &serveCmd{store: new(registry.MemStore), DebugAddr: "127.0.0.1:0"}
	s, err := c.newServer(c.openLog(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := s.debugHandler(t.Context(), true)
	for host, want := range map[string]int{"127.0.0.1:6060": 200, "localhost:6060": 200, "attacker.example:6060": 421} {
		for _, path := range []string{"/metrics", "/healthz", "/debug/pprof/"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s%s: %d, want %d", host, path, w.Code, want)
			}
		}
	}
}

// TestStoppedServer has servers that stop during a collection, before and after their
// response has begun.
func TestStoppedServer(t *testing.T) {
	skipOnWindows(t)
	for _, response := range []string{"", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"} {
		t.Chdir(t.TempDir())
		if err := os.MkdirAll("store/.berth", 0o777); err != nil {
			t.Fatal(err)
		}
		l, err := listenUnix("store/.berth/control.sock", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, response)
				conn.Close()
			}
		}()
		err = askServer(t.Context(), "dir:store", gcRequest{}, io.Discard)
		const want = "the server of dir:store stopped before the collection ended"
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "nil") {
			t.Errorf("%q: %v, want %s", response, err, want)
		}
	}
}
