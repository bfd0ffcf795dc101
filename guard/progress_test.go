// SPDX-License-Identifier: Apache-2.0

package guard_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/guard"
)

// TestStalledClientsAreDisconnected stalls in the middle of a body, and in the
// middle of a response.
func TestStalledClientsAreDisconnected(t *testing.T) {
	m := new(registry.MemStore)
	big := strings.Repeat("0123456789abcdef", 2<<20) // more than the sockets' buffers hold
	d := digest.FromString(big)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), m, "a", d, strings.NewReader(big))))
	s := httptest.NewServer(guard.Progress(100 * time.Millisecond)(registry.New(registry.WithStore(m))))
	defer s.Close()
	dial := func(request string) net.Conn {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		_, err = io.WriteString(conn, request)
		qt.Assert(t, qt.IsNil(err))
		return conn
	}

	resp, err := http.Post(s.URL+"/v2/a/blobs/uploads/", "", nil)
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	conn := dial("PATCH " + resp.Header.Get("Location") + " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello")
	defer conn.Close()
	stalled, err := http.ReadResponse(bufio.NewReader(conn), nil)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(stalled.StatusCode, 400))
	resp, err = http.Get(s.URL + resp.Header.Get("Location"))
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.Header.Get("Range"), "0-4")) // the client can resume

	conn = dial(fmt.Sprintf("GET /v2/a/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n", d))
	defer conn.Close()
	time.Sleep(time.Second)
	n, _ := io.Copy(io.Discard, conn) // ends, since the connection is broken
	qt.Check(t, qt.IsTrue(n < int64(len(big))), qt.Commentf("%d bytes", n))
}

// TestProgressZeroIsNoLimit checks that a timeout of 0 adds nothing.
func TestProgressZeroIsNoLimit(t *testing.T) {
	h := http.NewServeMux()
	qt.Check(t, qt.Equals(guard.Progress(0)(h), http.Handler(h)))
}

// TestStalledReader checks that a handler ends if the client does not read a
// response that exceeds the buffers of its socket.
func TestStalledReader(t *testing.T) {
	ended := make(chan error, 1)
	h := guard.Progress(200 * time.Millisecond)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if r.URL.Path == "/file" {
			_, err = io.Copy(w, io.LimitReader(zeros{}, 1<<30)) // calls ReadFrom
		} else {
			_, err = w.Write(make([]byte, 1<<28))
		}
		ended <- err
	}))
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
