// SPDX-License-Identifier: Apache-2.0

// A proxy before MinIO that counts requests, and spoils some.

package bucket_test

import (
	"io"
	"log"
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

// proxy is between a store and MinIO.
type proxy struct {
	*httptest.Server
	to     *httputil.ReverseProxy
	direct string // the bucket's URL without the proxy

	mu     sync.Mutex // guards what follows
	counts map[string]int
	spoil  func(r *http.Request) fault // nil: none
}

// fault is what happens to a request.
type fault int

const (
	none       fault = iota
	lostAnswer       // MinIO has it, and the client does not learn of it
	cutAnswer        // half of the body comes
	overloaded       // 503
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
		// The Host stays the client's, which it has signed.
		to: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: u.Query().Get("endpoint")[len("http://"):]})
				r.Out.Host = r.In.Host
			},
			ErrorLog: log.New(io.Discard, "", 0),
		},
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
	spoil := p.spoil
	p.mu.Unlock()
	f := none
	if spoil != nil {
		f = spoil(r)
	}
	switch f {
	case lostAnswer:
		p.to.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case cutAnswer:
		answer := httptest.NewRecorder()
		p.to.ServeHTTP(answer, r)
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		io.CopyN(w, answer.Body, int64(answer.Body.Len()/2))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case overloaded:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		p.to.ServeHTTP(w, r)
	}
}

// spoiled has faults happen as f says.
func (p *proxy) spoiled(f func(r *http.Request) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = f
}

// take returns how many requests there were since it was called last.
func (p *proxy) take() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := p.counts
	p.counts = make(map[string]int)
	return counts
}
