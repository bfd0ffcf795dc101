// SPDX-License-Identifier: Apache-2.0

// Responses that the kernel sends from a file.

package guard_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/guard"
)

// newFile returns the name of a file of size bytes, without blocks on the disk.
func newFile(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, nil, 0o666)))
	qt.Assert(t, qt.IsNil(os.Truncate(name, size)))
	return name
}

// countingConn counts the files that net/http lets the connection read.
type countingConn struct {
	*net.TCPConn
	files, bytes *atomic.Int64
}

func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	source := r
	if limited, ok := r.(*io.LimitedReader); ok {
		source = limited.R // as in package net
	}
	n, err := c.TCPConn.ReadFrom(r)
	if _, ok := source.(syscall.Conn); ok {
		c.files.Add(1)
		c.bytes.Add(n)
	}
	return n, err
}

type countingListener struct {
	net.Listener
	files, bytes atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), &l.files, &l.bytes}, nil
}

// TestFilesReachTheConnection checks that Progress lets the connection send a file
// by itself, in few pieces.
func TestFilesReachTheConnection(t *testing.T) {
	const size = 8 << 20
	name := newFile(t, size)
	served := make(chan bool, 1)
	s := httptest.NewUnstartedServer(guard.Progress(time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, name)
		served <- true
	})))
	l := &countingListener{Listener: s.Listener}
	s.Listener = l
	s.Start()
	defer s.Close()
	for _, c := range []struct {
		byteRange string
		want      int64
	}{
		{"", size},
		{"bytes=10-", size - 10},
		{"bytes=0-99", 100},
		{"bytes=0-65535", 64 << 10},
		{"bytes=0-65536", 64<<10 + 1},
		{"bytes=-1114112", 64<<10 + 1<<20},
	} {
		l.files.Store(0)
		l.bytes.Store(0)
		req, _ := http.NewRequest("GET", s.URL, nil)
		if c.byteRange != "" {
			req.Header.Set("Range", c.byteRange)
		}
		resp, err := s.Client().Do(req)
		qt.Assert(t, qt.IsNil(err))
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		qt.Check(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(n, c.want))
		<-served
		// net/http sends up to 512 bytes together with the header.
		qt.Check(t, qt.IsTrue(l.bytes.Load() >= c.want-512), qt.Commentf("%s: %d bytes", c.byteRange, l.bytes.Load()))
		if runtime.GOOS == "linux" {
			qt.Check(t, qt.IsTrue(l.files.Load() <= c.want>>20+3), qt.Commentf("%s: %d pieces", c.byteRange, l.files.Load()))
		}
	}
}

// TestSlowClientOfAFile reads a file so slowly that 1 MiB takes longer than the
// timeout, but always more than 64 KiB within it.
func TestSlowClientOfAFile(t *testing.T) {
	t.Parallel()
	const size = 2 << 20
	name := newFile(t, size)
	s := httptest.NewUnstartedServer(guard.Progress(time.Second)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, name)
	})))
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		c.(*net.TCPConn).SetWriteBuffer(64 << 10) // progress is seen only when the buffer empties
		return ctx
	}
	s.Start()
	defer s.Close()
	body := get(t, s, 64<<10)
	buf := make([]byte, 64<<10)
	var got int64
	for {
		n, err := io.ReadFull(body, buf)
		got += int64(n)
		if err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	qt.Check(t, qt.Equals(got, size))
}

// TestStalledClientOfAFile stops reading in the middle of a file.
func TestStalledClientOfAFile(t *testing.T) {
	t.Parallel()
	name := newFile(t, 1<<30)
	ended := make(chan error, 1)
	s := httptest.NewServer(guard.Progress(200 * time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name)
		if err == nil {
			defer f.Close()
			w.Header().Set("Content-Length", "1073741824")
			_, err = io.Copy(w, f)
		}
		ended <- err
	})))
	defer s.Close()
	body := get(t, s, 1<<20)
	_, err := io.CopyN(io.Discard, body, 10<<20)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorIs(<-ended, os.ErrDeadlineExceeded))
}

// get requests the file of s over a connection with a small buffer.
func get(t *testing.T, s *httptest.Server, buffer int) io.Reader {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			c.(*net.TCPConn).SetReadBuffer(buffer)
		}
		return c, err
	}}
	resp, err := (&http.Client{Transport: transport}).Get(s.URL)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		resp.Body.Close()
		transport.CloseIdleConnections()
	})
	return resp.Body
}
