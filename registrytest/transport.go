// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"
)

// Transport returns an [http.RoundTripper] that serves requests with h in process,
// without a socket. Requests may be for any host, with the scheme http or https; h
// sees the host in Request.Host.
//
//	client := &http.Client{Transport: registrytest.Transport(registry.New())}
//	resp, err := client.Get("https://registry.example/v2/")
//
// It is an [http.Transport] and an [http.Server] that are connected in memory, by
// HTTP/1.1: the client and h see what they would see over a network, errors and
// retries included. Each request has a connection of its own. If the client's
// context ends, so does that of the request that h serves. Response bodies must be
// closed.
//
// Since no goroutine waits for a network, a client's retries, back-off and timeouts
// run in the fake time of [testing/synctest], so that a test need not wait for them.
func Transport(h http.Handler) http.RoundTripper {
	requireHandler(h, "Transport")
	t := new(transport)
	t.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = r.Context().Value(tlsKey{}).(*tls.ConnectionState)
		h.ServeHTTP(w, r)
	})
	t.server.ConnContext = connContext
	t.server.ConnState = connState
	t.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // HTTP/1.1 only
	return t
}

type transport struct{ server http.Server }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	release := func() {}
	if body := req.Body; body != nil && ctx.Done() != nil {
		// http.Transport waits for a Read of the body that blocks.
		stop := context.AfterFunc(ctx, func() { body.Close() })
		release = func() {
			if ctx.Err() == nil {
				stop()
			}
		}
	}
	var state *tls.ConnectionState
	dial := func(context.Context, string, string) (net.Conn, error) {
		client, server := newConn(clientAddr, serverAddr)
		client.closed = release
		err := t.server.Serve(&listener{conn: &serverConn{conn: server, ctx: ctx, tls: state}})
		if err != io.EOF {
			return nil, err
		}
		return client, nil
	}
	// A client of its own, because connections outlive no request: a test need
	// not close them, and goroutines in synctest's bubbles share none.
	client := &http.Transport{
		DialContext: dial,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			state = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: host}
			return dial(ctx, network, addr)
		},
		ExpectContinueTimeout: time.Second, // as http.DefaultTransport
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		release()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	resp.TLS = state
	return resp, nil
}

// The addresses are of TEST-NET-1, for examples, as in net/http/httptest.
var (
	clientAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1234}
	serverAddr = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 80}
)

// listener accepts one connection. Then it returns io.EOF, so that Serve returns
// and no goroutine remains but the connection's.
type listener struct{ conn net.Conn }

func (l *listener) Accept() (net.Conn, error) {
	c := l.conn
	l.conn = nil
	if c == nil {
		return nil, io.EOF
	}
	return c, nil
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return serverAddr }

// serverConn is the server's end of a connection.
type serverConn struct {
	*conn
	ctx context.Context // the client's
	tls *tls.ConnectionState
}

type tlsKey struct{}

// connContext returns the context of the requests of a connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	s := c.(*serverConn)
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, tlsKey{}, s.tls))
	stop := context.AfterFunc(s.ctx, func() { cancel(context.Cause(s.ctx)) })
	s.closed = func() {
		stop()
		cancel(context.Canceled)
	}
	return ctx
}

// connState closes a connection when its request has been served.
func connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateIdle:
		c.Close()
	case http.StateHijacked:
		c.(*serverConn).hijacked = true
	}
}
