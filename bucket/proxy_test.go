// SPDX-License-Identifier: Apache-2.0

// A proxy in front of MinIO that counts requests and injects faults.

package bucket_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// proxy is a proxy between a store and MinIO.
type proxy struct {
	*httptest.Server
	to     *httputil.ReverseProxy
	direct string // the bucket's URL without the proxy

	mu      sync.Mutex // guards the fields below
	counts  map[string]int
	faultOf func(r *http.Request) fault // nil: no faults
}

// fault is a way for a request to fail.
type fault int

const (
	none         fault = iota
	lostResponse       // MinIO handles the request, but the client gets no response
	cutResponse        // the client gets half of the body
	overloaded         // 503
)

// withProxy returns a store whose bucket is behind a proxy.
func withProxy(t *testing.T, opts *bucket.Options) (*bucket.Store, *proxy) {
	t.Helper()
	server := miniotest.Start(t)
	return behindProxy(t, server, server.URL(t), opts)
}

// behindProxy returns a store in the bucket of a URL, behind a proxy.
func behindProxy(t *testing.T, server *miniotest.Server, direct string, opts *bucket.Options) (*bucket.Store, *proxy) {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{
		direct: direct,
		counts: make(map[string]int),
		to:     miniotest.NewProxy(u.Query().Get("endpoint")[len("http://"):]),
	}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Server.Close)
	return open(t, server.URLAt(u.Host, strings.TrimPrefix(p.URL, "http://")), opts), p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := r.Method
	if r.Method == http.MethodGet && r.URL.Query().Has("list-type") {
		kind = "LIST"
	}
	p.mu.Lock()
	p.counts[kind]++
	faultOf := p.faultOf
	p.mu.Unlock()
	f := none
	if faultOf != nil {
		f = faultOf(r)
	}
	switch f {
	case lostResponse:
		p.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case cutResponse:
		resp := httptest.NewRecorder()
		p.to.ServeHTTP(resp, r)
		for k, v := range resp.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.Code)
		io.CopyN(w, resp.Body, int64(resp.Body.Len()/2))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case overloaded:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		p.to.ServeHTTP(w, r)
	}
}

// setFaults makes requests fail as f returns; none do if f is nil.
func (p *proxy) setFaults(f func(r *http.Request) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faultOf = f
}

// takeCounts returns the numbers of requests since its last call, by method.
func (p *proxy) takeCounts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = make(map[string]int)
	return counts
}
