// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// Rule applies a fault to the requests that it selects. A request matches if it
// satisfies all conditions that are set.
type Rule struct {
	// Op is the operation, Repo the repository's name, and Reference the
	// requested tag or digest. If a field is empty, any value matches.
	Op        registry.Op
	Repo      string
	Reference string

	// Match, unless nil, is called for requests that satisfy the conditions
	// above, and reports whether they match.
	Match func(r *http.Request, req registry.Request) bool

	// Nth selects one of the matching requests, counted from 1; 0 selects all
	// of them. If PerPath is set, the requests for each method and path are
	// counted separately: with an Nth of 1, the fault applies to the first
	// request for each path.
	Nth     int
	PerPath bool

	// Fault is the middleware that serves the selected requests: one of this
	// package's faults, such as Respond or Truncate, or your own.
	Fault func(http.Handler) http.Handler
}

// Faults is middleware that makes a registry unreliable, for tests of how a
// client copes: with errors and redirects, slow or incomplete responses, lost
// connections, stale caches.
//
//	faults := registrytest.NewFaults(
//		// The first request for each tag list is rate limited.
//		registrytest.Rule{Op: registry.OpTags, Nth: 1, PerPath: true, Fault: registrytest.RetryAfter(time.Minute)},
//		// One pull of a blob in ten fails after 500 bytes.
//		registrytest.Rule{Op: registry.OpBlobGet, Match: registrytest.Sometimes(0.1, 1), Fault: registrytest.Disconnect(500)},
//	)
//	server := httptest.NewServer(faults.Handler(registry.New()))
//
// If a request matches several rules, their faults are nested, that of the first
// rule outermost. At the end of a test, Unfired returns the rules that had no
// effect. A Faults is safe for concurrent use.
type Faults struct {
	rules []Rule

	mu      sync.Mutex
	matched map[matchKey]int // guarded by mu: how often each rule has matched, Nth aside
	fired   []int            // guarded by mu: how many requests have reached each rule's fault
}

// matchKey is the key of a counter: a rule, and the method and path if it counts
// them separately.
type matchKey struct {
	rule int
	path string
}

// NewFaults returns Faults with the given rules. It panics if a rule has no Fault.
func NewFaults(rules ...Rule) *Faults {
	for i, rule := range rules {
		if rule.Fault == nil {
			panic(fmt.Sprintf("registrytest: rule %d has no Fault", i))
		}
	}
	return &Faults{rules: rules, matched: make(map[matchKey]int), fired: make([]int, len(rules))}
}

// Handler returns a handler that serves requests with h, and with the faults of
// the rules that select them.
func (f *Faults) Handler(h http.Handler) http.Handler {
	requireHandler(h, "Faults.Handler")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := registry.ParseRequest(r)
		h := h
		for i := len(f.rules) - 1; i >= 0; i-- {
			if f.selects(i, r, req) {
				h = f.fault(i, h)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// requireHandler panics if h, an argument of the named function, is nil.
func requireHandler(h http.Handler, function string) {
	if h == nil {
		panic("registrytest: " + function + " requires a handler")
	}
}

// fault returns the fault of rule i, which has fired when a request reaches it: the
// faults of the rules before it may not call it.
func (f *Faults) fault(i int, h http.Handler) http.Handler {
	fault := f.rules[i].Fault(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.fired[i]++
		f.mu.Unlock()
		fault.ServeHTTP(w, r)
	})
}

// selects reports whether rule i selects a request, and counts the request if it
// matches.
func (f *Faults) selects(i int, r *http.Request, req registry.Request) bool {
	rule := f.rules[i]
	if rule.Op != "" && rule.Op != req.Op ||
		rule.Repo != "" && rule.Repo != req.Repo ||
		rule.Reference != "" && rule.Reference != req.Tag && rule.Reference != string(req.Digest) ||
		rule.Match != nil && !rule.Match(r, req) {
		return false
	}
	key := matchKey{rule: i}
	if rule.PerPath {
		key.path = r.Method + " " + r.URL.Path
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.matched[key]++
	return rule.Nth == 0 || rule.Nth == f.matched[key]
}

// Unfired returns the rules whose faults no request has reached: they have selected
// none, or only requests that the fault of an earlier rule did not pass on. A test of how a client
// copes with a fault should check that the fault occurred.
func (f *Faults) Unfired() (rules []Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.rules {
		if f.fired[i] == 0 {
			rules = append(rules, rule)
		}
	}
	return rules
}

// Sometimes returns a Rule.Match that selects requests at random, with the given
// probability from 0 to 1. The same seed selects the same requests of a sequence.
func Sometimes(probability float64, seed uint64) func(*http.Request, registry.Request) bool {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) // guarded by mu
	return func(*http.Request, registry.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.Float64() < probability
	}
}

// Reject responds with err, written by [registry.WriteError], instead of calling
// the handler. registry.ErrTooManyRequests, for example, yields a 429 in the
// spec's shape; a *registry.Error of your own, any status, code and headers.
func Reject(err error) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registry.WriteError(w, r, err) })
	}
}

// Respond responds with a status and a plain text body instead of calling the
// handler, like a proxy in front of a registry.
func Respond(status int, body string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, body, status) })
	}
}

// RetryAfter responds with 429 TOOMANYREQUESTS and a Retry-After of d, rounded to
// seconds (section "Error Codes").
func RetryAfter(d time.Duration) func(http.Handler) http.Handler {
	e := *registry.ErrTooManyRequests
	e.Header = http.Header{"Retry-After": {strconv.Itoa(int(d.Round(time.Second) / time.Second))}} // 0 too, unlike e.RetryAfter
	return Reject(&e)
}

// Redirect responds with a 307 redirect to the same path and query at base, such
// as "https://other.example".
func Redirect(base string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			target := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
			w.Header().Set("Location", base+target.String())
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
	}
}

// StaleTag serves a pull by tag as if the tag still pointed at d, like an outdated
// cache. It does not affect pulls by digest.
func StaleTag(d digest.Digest) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			req, err := registry.ParseRequest(r)
			if err == nil && req.Tag != "" && (req.Op == registry.OpManifestGet || req.Op == registry.OpManifestHead) {
				stale := r.Clone(r.Context())
				stale.URL.Path = path.Join("/v2", req.Repo, "manifests", string(d))
				r = stale
			}
			h.ServeHTTP(w, r)
		})
	}
}

// ExpiredToken replaces the client's credentials with an unknown bearer token.
// auth.Bearer, for example, rejects it like one that has expired.
func ExpiredToken() func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				r = r.Clone(r.Context())
				r.Header.Set("Authorization", "Bearer expired")
			}
			h.ServeHTTP(w, r)
		})
	}
}

// Delay waits for d before it calls the handler. It does not call the handler if
// the client disconnects meanwhile.
func Delay(d time.Duration) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sleep(r, d) {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// sleep waits for d, and reports whether the client is still connected.
func sleep(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// DropRequest closes the connection instead of calling the handler: the registry
// never sees the request.
func DropRequest() func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
}

// DropResponse calls the handler, then closes the connection without a response:
// the registry has performed the operation, but the client can't know.
func DropResponse() func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&editor{
				ResponseWriter: w,
				header:         func(int) bool { return false },
				write:          func([]byte) ([]byte, error) { return nil, nil },
			}, r)
			panic(http.ErrAbortHandler)
		})
	}
}

// Disconnect closes the connection after n bytes of the response's body, so that
// the client gets an unexpected EOF. A body of at most n bytes is sent unchanged.
func Disconnect(n int64) func(http.Handler) http.Handler {
	return limitBody(n, func(w http.ResponseWriter) {}, func(w http.ResponseWriter) {
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// Truncate ends the response's body after n bytes as if it were complete. The
// response has no Content-Length, so that only the digest, or the size in the
// descriptor, reveals the loss. A body of at most n bytes is sent unchanged.
func Truncate(n int64) func(http.Handler) http.Handler {
	return limitBody(n, func(w http.ResponseWriter) { w.Header().Del("Content-Length") }, func(http.ResponseWriter) {})
}

// limitBody sends at most n bytes of the body. It calls begin before the header
// is sent, and end when it has sent n bytes of a longer body.
func limitBody(n int64, begin, end func(http.ResponseWriter)) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left := n
			h.ServeHTTP(&editor{
				ResponseWriter: w,
				header: func(int) bool {
					begin(w)
					return true
				},
				write: func(p []byte) ([]byte, error) {
					if int64(len(p)) <= left {
						left -= int64(len(p))
						return p, nil
					}
					w.Write(p[:left])
					left = 0
					end(w)
					return nil, nil
				},
			}, r)
		})
	}
}

// Throttle sends the response's body at the given rate. The minimum is 1.
func Throttle(bytesPerSecond int) func(http.Handler) http.Handler {
	bytesPerSecond = max(bytesPerSecond, 1)
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Ten chunks a second make for a steady stream.
			chunk := max(bytesPerSecond/10, 1)
			pause := time.Second * time.Duration(chunk) / time.Duration(bytesPerSecond)
			h.ServeHTTP(&editor{ResponseWriter: w, write: func(p []byte) ([]byte, error) {
				for len(p) > 0 {
					n := min(chunk, len(p))
					if !sleep(r, pause) {
						return nil, r.Context().Err()
					}
					if _, err := w.Write(p[:n]); err != nil {
						return nil, err
					}
					http.NewResponseController(w).Flush()
					p = p[n:]
				}
				return nil, nil
			}}, r)
		})
	}
}

// Corrupt flips the first bit of the response's body.
func Corrupt() func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			done := false
			h.ServeHTTP(&editor{ResponseWriter: w, write: func(p []byte) ([]byte, error) {
				if !done && len(p) > 0 {
					done = true
					p = append([]byte{p[0] ^ 0x80}, p[1:]...)
				}
				return p, nil
			}}, r)
		})
	}
}

// WrongDigest sets the response's Docker-Content-Digest to d.
func WrongDigest(d digest.Digest) func(http.Handler) http.Handler {
	return setHeader("Docker-Content-Digest", string(d))
}

// editor is a ResponseWriter that changes a response as it is written.
type editor struct {
	http.ResponseWriter
	header func(status int) bool          // unless nil, called before the header is sent; false discards it
	write  func(p []byte) ([]byte, error) // unless nil, returns the bytes to send instead of p
	status int
}

func (e *editor) WriteHeader(status int) {
	if e.status != 0 {
		return
	}
	if status >= 200 {
		e.status = status
	}
	if e.header == nil || e.header(status) {
		e.ResponseWriter.WriteHeader(status)
	}
}

func (e *editor) Write(p []byte) (int, error) {
	e.WriteHeader(http.StatusOK)
	rest := p
	if e.write != nil {
		var err error
		if rest, err = e.write(p); err != nil {
			return 0, err
		}
	}
	if len(rest) > 0 {
		if _, err := e.ResponseWriter.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
