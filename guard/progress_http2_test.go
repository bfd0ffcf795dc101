// SPDX-License-Identifier: Apache-2.0

// Progress of the streams of HTTP/2.

package guard_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/guard"
)

// newHTTP2Server starts a server of h behind Progress. Its client speaks HTTP/2.
func newHTTP2Server(t *testing.T, timeout time.Duration, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(guard.Progress(timeout)(h))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestStalledStreams checks that a request ends if its client neither reads the response
// nor sends the body, and that others on the same connection go on.
func TestStalledStreams(t *testing.T) {
	t.Parallel()
	name := newFile(t, 1<<30)
	ended := make(chan error, 1)
	s := newHTTP2Server(t, 200*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch r.URL.Path {
		case "/write":
			_, err = w.Write(make([]byte, 1<<28))
		case "/file":
			var f *os.File
			if f, err = os.Open(name); err == nil {
				defer f.Close()
				_, err = io.Copy(w, f)
			}
		case "/body":
			_, err = io.Copy(io.Discard, r.Body)
		case "/ok":
			return
		}
		ended <- err
	})
	for _, path := range []string{"/write", "/file", "/body"} {
		pr, pw := io.Pipe()
		req, err := http.NewRequest("POST", s.URL+path, pr)
		qt.Assert(t, qt.IsNil(err))
		go func() {
			if resp, err := s.Client().Do(req); err == nil {
				defer resp.Body.Close() // without reading it
				<-t.Context().Done()
			}
		}()
		qt.Check(t, qt.IsNotNil(<-ended), qt.Commentf(path))
		pw.Close()

		resp, err := s.Client().Get(s.URL + "/ok")
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.ProtoMajor, 2))
	}
}

// TestSlowHandlerOfAStream checks that only the time in which the server waits for the
// client counts: not that in which a handler neither reads nor writes.
func TestSlowHandlerOfAStream(t *testing.T) {
	t.Parallel()
	const timeout = 100 * time.Millisecond
	name := newFile(t, 1<<20)
	ended := make(chan error, 1)
	s := newHTTP2Server(t, timeout, func(w http.ResponseWriter, r *http.Request) {
		ended <- func() error {
			buf := make([]byte, 10)
			for {
				_, err := io.ReadFull(r.Body, buf)
				time.Sleep(2 * timeout)
				if err == io.EOF {
					break
				} else if err != nil {
					return err
				}
				if _, err := w.Write(buf); err != nil {
					return err
				}
				time.Sleep(2 * timeout)
			}
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			if _, err := io.Copy(w, f); err != nil {
				return err
			}
			time.Sleep(2 * timeout)
			_, err = io.WriteString(w, "end")
			return err
		}()
	})
	pr, pw := io.Pipe()
	go func() {
		for range 2 {
			pw.Write(make([]byte, 10))
		}
		pw.Close()
	}()
	resp, err := s.Client().Post(s.URL, "", pr)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(<-ended))
	qt.Check(t, qt.Equals(len(body), 10+10+1<<20+3))
	qt.Check(t, qt.Equals(resp.ProtoMajor, 2))
}
