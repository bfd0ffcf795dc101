// SPDX-License-Identifier: Apache-2.0

// A proxy in front of MinIO that counts requests and connections, and injects
// faults.

package objects_test

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// fault is a way for a request to fail.
type fault int

const (
	none         fault = iota
	lostRequest        // MinIO does not get the request, nor the client a response
	lostResponse       // MinIO handles the request, but the client gets no response
	slowDown           // 503
	stalled            // no response until the client goes away
)

// proxy is a proxy between a bucket and MinIO.
type proxy struct {
	*httptest.Server
	to *httputil.ReverseProxy

	mu          sync.Mutex // guards the fields below
	requests    []string   // the operations, in order
	connections int
	faultOf     func(op string, n int) fault // of the nth request of an operation, from 1 on
}

// behindProxy returns an empty bucket behind a proxy, and the bucket's URL without
// it.
func behindProxy(t testing.TB) (b objects.Bucket, p *proxy, direct string) {
	t.Helper()
	server := miniotest.Start(t)
	direct = server.URL(t)
	u, err := url.Parse(direct)
	qt.Assert(t, qt.IsNil(err))
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	p = &proxy{to: miniotest.NewProxy(u.Query().Get("endpoint")[len("http://"):])}
	p.to.Transport = transport
	p.Server = httptest.NewUnstartedServer(p)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.connections++
		}
	}
	p.Start()
	t.Cleanup(func() {
		p.Server.Close()
		transport.CloseIdleConnections()
	})
	return open(t, server.URLAt(u.Host, strings.TrimPrefix(p.URL, "http://"))), p, direct
}

// operation names the operation of a request.
func operation(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case q.Has("uploads"):
		return r.Method + " uploads"
	case q.Has("partNumber"):
		return "PUT part"
	case q.Has("uploadId"):
		return r.Method + " upload"
	case q.Has("list-type"):
		return "LIST"
	}
	return r.Method
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := operation(r)
	f := none
	p.mu.Lock()
	p.requests = append(p.requests, op)
	if p.faultOf != nil {
		n := 0
		for _, earlier := range p.requests {
			if earlier == op {
				n++
			}
		}
		f = p.faultOf(op, n)
	}
	p.mu.Unlock()
	switch f {
	case lostRequest:
		io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	case lostResponse:
		p.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case slowDown:
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
	case stalled:
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	default:
		p.to.ServeHTTP(w, r)
	}
}

// setFaults forgets earlier requests, and makes later ones fail as f returns.
func (p *proxy) setFaults(f func(op string, n int) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = nil
	p.faultOf = f
}

// count returns the number of requests of an operation since setFaults.
func (p *proxy) count(op string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range p.requests {
		if r == op {
			n++
		}
	}
	return n
}
