// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// Transport returns an [http.RoundTripper] that calls h in process, without a
// socket. Requests may be for any host, with the scheme http or https; h sees the
// host in Request.Host.
//
//	client := &http.Client{Transport: registrytest.Transport(registry.New())}
//	resp, err := client.Get("https://registry.example/v2/")
//
// The transport behaves like a connection to an [http.Server]. Bodies are streamed
// in both directions. A request's body is read only when h reads it, as with
// "Expect: 100-continue", and the response may be sent before that. If h panics, the
// client gets an error, or an unexpected EOF in the body. If the request's context
// ends, both sides are aborted.
//
// Since no goroutine waits for a network, a client's retries, back-off and timeouts
// run in the fake time of [testing/synctest], so that a test need not wait for them.
func Transport(h http.Handler) http.RoundTripper {
	return transport{h}
}

type transport struct {
	handler http.Handler
}

// errReset is the client's error if the handler panics before the response is
// sent. Over a network, the connection would be reset.
var errReset = errors.New("registrytest: connection reset by the handler")

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Host == "" {
		closeBody(req)
		return nil, errors.New("registrytest: no host in the request's URL")
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	e := &exchange{req: req, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	e.body.reader, e.body.writer = io.Pipe()
	// The end of the client's context unblocks both sides.
	stop := func() bool { return false }
	if req.Context().Done() != nil {
		stop = context.AfterFunc(req.Context(), func() {
			closeBody(req)
			e.body.writer.CloseWithError(context.Cause(req.Context()))
		})
	}
	go func() {
		defer stop()
		e.serve(t.handler)
	}()

	select {
	case <-e.done:
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.response, nil
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// exchange is a request and its response. It is the handler's ResponseWriter.
type exchange struct {
	req    *http.Request // the client's
	ctx    context.Context
	cancel context.CancelCauseFunc

	header   http.Header
	status   int          // 0 until WriteHeader is called
	buffer   bytes.Buffer // the body written before the response was sent
	declared int64        // Content-Length; -1: none
	written  int64

	done     chan struct{} // closed when response or err is set
	response *http.Response
	err      error

	body struct {
		reader *io.PipeReader
		writer *io.PipeWriter
	}
}

// bufferSize is the size of the largest body that is buffered until the handler
// returns, so that its length can be sent in the header, as net/http does.
const bufferSize = 2 << 10

func (e *exchange) serve(h http.Handler) {
	defer func() {
		defer e.cancel(context.Canceled)
		defer closeBody(e.req)
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				log.Printf("registrytest: panic serving %s %s: %v\n%s", e.req.Method, e.req.URL, p, debug.Stack())
			}
			if e.response == nil {
				e.err = errReset
				close(e.done)
			}
			e.body.writer.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		e.finish()
	}()
	e.header = make(http.Header)
	h.ServeHTTP(e, e.serverRequest())
}

// serverRequest returns the request as a server receives it from a connection.
func (e *exchange) serverRequest() *http.Request {
	r := e.req.Clone(e.ctx)
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	if r.URL.Scheme == "https" {
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: r.URL.Hostname()}
	}
	r.RequestURI = r.URL.RequestURI()
	r.URL.Scheme, r.URL.Host, r.URL.User = "", "", nil
	r.URL.Fragment, r.URL.RawFragment = "", ""
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	r.RemoteAddr = "192.0.2.1:1234" // TEST-NET, like net/http/httptest
	r.Close, r.GetBody, r.Response = false, nil, nil
	r.Header.Del("Host")
	if user := e.req.URL.User; user != nil && r.Header.Get("Authorization") == "" {
		password, _ := user.Password()
		r.SetBasicAuth(user.Username(), password)
	}
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		r.Body, r.ContentLength = http.NoBody, 0
	case r.ContentLength == 0: // unknown, in a client's request with a body
		r.ContentLength = -1
		r.TransferEncoding = []string{"chunked"}
		fallthrough
	default:
		r.Body = &requestBody{body: e.req.Body, left: r.ContentLength}
	}
	return r
}

// requestBody is a request's body as a server reads it: it ends after the declared
// length, and an earlier end is an error.
type requestBody struct {
	body io.ReadCloser
	left int64 // negative: unknown length

	mu     sync.Mutex
	closed bool // guarded by mu
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return 0, http.ErrBodyReadAfterClose
	case b.left < 0:
		return hideError(b.body.Read(p))
	case b.left == 0:
		return 0, io.EOF
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return hideError(n, err)
}

// hideError replaces an error of the client's body with the one that a server
// gets.
func hideError(n int, err error) (int, error) {
	if err != nil && err != io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *requestBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (e *exchange) Header() http.Header { return e.header }

func (e *exchange) WriteHeader(status int) {
	switch {
	case status < 100 || status > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		return // informational responses are not passed on
	case e.status != 0:
		return // as in net/http, which also logs it
	}
	e.status = status
	e.declared = -1
	if length := e.header.Get("Content-Length"); length != "" {
		n, err := strconv.ParseInt(length, 10, 64)
		if err != nil || n < 0 {
			e.header.Del("Content-Length")
		} else {
			e.declared = n
		}
	}
}

// mayHaveBody reports whether the response may have a body: RFC 9110 section 6.4.1.
func (e *exchange) mayHaveBody() bool {
	return e.req.Method != http.MethodHead && e.status != http.StatusNoContent && e.status != http.StatusNotModified
}

func (e *exchange) Write(p []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	switch {
	case e.req.Method != http.MethodHead && !e.mayHaveBody():
		return 0, http.ErrBodyNotAllowed
	case e.declared >= 0 && e.written+int64(len(p)) > e.declared:
		return 0, http.ErrContentLength
	}
	e.written += int64(len(p))
	if e.response == nil {
		e.buffer.Write(p)
		if e.buffer.Len() > bufferSize {
			e.Flush()
		}
		return len(p), context.Cause(e.ctx)
	}
	return e.send(p)
}

// send streams p to the client. It blocks until the client has read p.
func (e *exchange) send(p []byte) (int, error) {
	if !e.mayHaveBody() || len(p) == 0 { // even an empty Write to a pipe waits for a reader
		return len(p), nil
	}
	return e.body.writer.Write(p)
}

// Flush sends the header, and the body written so far.
func (e *exchange) Flush() {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	if e.response == nil {
		e.respond(e.header.Clone(), responseBody{e.body.reader, e.cancel}) // a copy: later changes are not sent
		e.send(e.buffer.Bytes())
		e.buffer = bytes.Buffer{}
	}
}

// respond makes RoundTrip return the response.
func (e *exchange) respond(header http.Header, body io.ReadCloser) {
	if _, ok := header["Content-Type"]; !ok && e.buffer.Len() > 0 && header.Get("Content-Encoding") == "" {
		header.Set("Content-Type", http.DetectContentType(e.buffer.Bytes()))
	}
	if header.Get("Date") == "" {
		header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	e.response = &http.Response{
		Status:        strconv.Itoa(e.status) + " " + http.StatusText(e.status),
		StatusCode:    e.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		ContentLength: e.declared,
		Body:          body,
		Request:       e.req,
	}
	if !e.mayHaveBody() {
		e.response.Body = http.NoBody
		if e.req.Method != http.MethodHead {
			e.response.ContentLength = 0
		}
	}
	close(e.done)
}

// finish completes the response when the handler has returned.
func (e *exchange) finish() {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	switch {
	case e.response == nil && e.declared < 0: // the body is complete
		e.declared = e.written
		if e.mayHaveBody() || e.written > 0 {
			e.header.Set("Content-Length", strconv.FormatInt(e.declared, 10))
		}
		e.respond(e.header, io.NopCloser(&e.buffer))
	case e.response == nil && (e.declared == e.written || !e.mayHaveBody()):
		e.respond(e.header, io.NopCloser(&e.buffer))
	default:
		e.Flush()
		if e.mayHaveBody() && e.declared > e.written {
			e.body.writer.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		// The handler may have returned because the client's context ended.
		e.body.writer.CloseWithError(context.Cause(e.req.Context()))
	}
}

// responseBody is a response's body. If it is closed early, the handler sees that
// the client has disconnected.
type responseBody struct {
	*io.PipeReader
	cancel context.CancelCauseFunc
}

func (b responseBody) Close() error {
	b.cancel(context.Canceled)
	return b.PipeReader.Close()
}
