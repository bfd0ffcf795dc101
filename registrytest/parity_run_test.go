// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/registrytest"
)

// parityRow is an exchange that must look the same over loopback and in process, to
// the client and to the handler.
type parityRow struct {
	name string

	// request edits the request, a GET of /a%20b?c=d.
	request func(req *http.Request)

	// handler serves it; by default, it writes "ok". What it notes is compared.
	handler func(note func(...any), w http.ResponseWriter, r *http.Request)

	// client replaces the client's part: to send the request, and to note the
	// response.
	client func(note func(...any), rt http.RoundTripper, req *http.Request)

	// http2 says how HTTP/2 differs; "": it agrees.
	http2 string

	tls bool // https

	timeout time.Duration // of the client; by default 30 s

	// late is set if the client may get an error before the handler is called.
	late bool
}

// enough is enough time for a busy machine to connect, by TLS too, and to begin to serve a
// request.
const enough = time.Second

// observer collects what one side sees.
type observer struct {
	mu    sync.Mutex
	lines []string
}

func (o *observer) note(args ...any) {
	for i, arg := range args {
		if err, ok := arg.(error); ok {
			args[i] = describe(err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, strings.TrimSpace(fmt.Sprintln(args...)))
}

func (o *observer) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines, "\n")
}

var addresses = regexp.MustCompile(`(127\.0\.0\.1|192\.0\.2\.\d):\d+`)

// describe returns the kind of an error, as far as callers can tell it by errors.Is
// and errors.As, or else its text.
func describe(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return "<nil>"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline exceeded"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset" // over loopback, it depends on the moment which of them
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected EOF"
	case errors.Is(err, io.EOF):
		return "EOF"
	case strings.Contains(err.Error(), "invalid header field"):
		return "invalid header" // of several, a random one is reported
	}
	return addresses.ReplaceAllString(err.Error(), "ADDR")
}

// sendAndNote is the default client: it sends the request, and notes all of the
// response.
func sendAndNote(note func(...any), rt http.RoundTripper, req *http.Request) {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		note("no response:", err)
		return
	}
	defer resp.Body.Close()
	noteResponse(note, resp)
}

func noteResponse(note func(...any), resp *http.Response) {
	body, err := io.ReadAll(resp.Body)
	note(resp.Status, resp.ContentLength, resp.Uncompressed)
	note("protocol:", resp.Proto, resp.TransferEncoding, resp.Close, resp.TLS != nil)
	noteHeader(note, "header", resp.Header)
	text := string(body)
	if len(text) > 200 {
		text = fmt.Sprintf("%s… (%d bytes)", text[:200], len(text))
	}
	note("body:", text, err)
	noteHeader(note, "trailer", resp.Trailer)
}

// noteHeader notes a header, without the values that differ in each run.
func noteHeader(note func(...any), kind string, h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if name == "Date" && len(h[name]) == 1 {
			_, err := http.ParseTime(h.Get(name))
			note(kind, name, err == nil)
			continue
		}
		note(kind, name, fmt.Sprintf("%q", h[name]))
	}
}

// newLoopbackClient returns a client of a server on loopback with
// http.DefaultTransport's settings, and a connection for each request.
func newLoopbackClient(s *httptest.Server, http2 bool) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.MaxIdleConnsPerHost = 0
	t.ForceAttemptHTTP2 = http2
	if !http2 {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone() // s.Close changes its own
	return t
}

// exchange runs a row, and returns what the client and the handler saw.
func (row *parityRow) exchange(t *testing.T, kind string) string {
	t.Helper()
	x := &parityExchange{row: row}
	s := httptest.NewUnstartedServer(x)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if s.EnableHTTP2 = kind == "HTTP/2"; s.EnableHTTP2 || row.tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	defer s.Close()
	loopback := newLoopbackClient(s, s.EnableHTTP2)
	defer loopback.CloseIdleConnections()
	defer s.CloseClientConnections()
	if kind == "in process" {
		x.run(t, registrytest.Transport(x), s.URL)
	} else {
		x.run(t, loopback, s.URL)
	}
	host := s.Listener.Addr().(*net.TCPAddr).String()
	return addresses.ReplaceAllString(strings.ReplaceAll(x.String(), host, "HOST"), "ADDR")
}

// parityExchange is one run of a row. It is the handler.
type parityExchange struct {
	row             *parityRow
	client, handler observer

	mu             sync.Mutex
	started, ended int // guarded by mu: calls of the handler
}

func (x *parityExchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	x.started++
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.ended++
	}()
	if x.row.handler == nil {
		io.WriteString(w, "ok")
		return
	}
	x.row.handler(x.handler.note, w, r)
}

// run sends the request, and waits until the handler has ended.
func (x *parityExchange) run(t *testing.T, rt http.RoundTripper, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(x.row.timeout, 30*time.Second))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/a%20b?c=d", nil)
	qt.Assert(t, qt.IsNil(err))
	if x.row.request != nil {
		x.row.request(req)
	}
	if x.row.client != nil {
		x.row.client(x.client.note, rt, req)
	} else {
		sendAndNote(x.client.note, rt, req)
	}
	for deadline := time.Now().Add(10 * time.Second); !x.done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("the handler does not end")
			return
		}
	}
}

func (x *parityExchange) done() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.started == x.ended && (x.started > 0 || !x.row.late)
}

func (x *parityExchange) String() string {
	return fmt.Sprintf("client:\n%s\nhandler:\n%s", &x.client, &x.handler)
}

var protocolLines = regexp.MustCompile(`(?m)^protocol:.*\n`)

// withoutProtocol removes what HTTP/2 never has in common with HTTP/1.1.
func withoutProtocol(s string) string {
	s = protocolLines.ReplaceAllString(s, "")
	return strings.NewReplacer("HTTP/2.0", "HTTP/1.1", "Go-http-client/2.0", "Go-http-client/1.1", "https://HOST", "http://HOST").Replace(s)
}

// commonOutcome runs got and want until they have had an outcome in common, and
// returns it. After the given number of tries it returns different outcomes.
//
// Nearly all exchanges have a single outcome. But if a connection ends while a client
// still sends, http.Transport reports one error of several, at random, and on a busy
// machine a context may end before a request has arrived.
func commonOutcome(got, want func() string, tries int) (a, b string, ok bool) {
	wanted := make(map[string]bool)
	for range tries {
		b = want()
		wanted[b] = true
		if a = got(); wanted[a] {
			return a, a, true
		}
	}
	return a, b, false
}

func parityRows() []parityRow {
	return slices.Concat(requestRows(), responseRows(), connectionRows(), faultRows())
}

// discardLog discards what net/http's server logs, such as panics.
func discardLog(t testing.TB) {
	output := log.Writer()
	log.SetOutput(io.Discard)
	t.Cleanup(func() { log.SetOutput(output) })
}

// TestParity runs each row over loopback with HTTP/1.1 and HTTP/2, and in process.
// In process must be like HTTP/1.1. If HTTP/2 differs, the row says how.
func TestParity(t *testing.T) {
	discardLog(t)
	rows := parityRows()
	names := make(map[string]bool)
	for _, row := range rows {
		if names[row.name] {
			t.Errorf("two rows %q", row.name)
		}
		names[row.name] = true
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h1 := func() string { return row.exchange(t, "HTTP/1.1") }
			inProcess := func() string { return row.exchange(t, "in process") }
			got, want, _ := commonOutcome(inProcess, h1, 10)
			qt.Check(t, qt.Equals(got, want))
			if row.tls {
				return
			}
			tries := 10
			if row.http2 != "" {
				tries = 1
			}
			h2, h1Text, same := commonOutcome(
				func() string { return withoutProtocol(row.exchange(t, "HTTP/2")) },
				func() string { return withoutProtocol(h1()) }, tries)
			if same != (row.http2 == "") {
				t.Errorf("HTTP/2 agrees with HTTP/1.1: %v, and the row says %q\n%s\n\nHTTP/1.1:\n%s", same, row.http2, h2, h1Text)
			}
		})
	}
	t.Logf("%d rows", len(rows))
	qt.Check(t, qt.IsTrue(len(rows) >= 60))
}
