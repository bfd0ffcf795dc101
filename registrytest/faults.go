// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
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

// Rule says which requests meet what fault. Of the conditions, all that are
// given must hold.
type Rule struct {
	// Op is the operation, Repo the repository's name, and Reference the tag
	// or the digest that is asked for; each is any where it is empty.
	Op        registry.Op
	Repo      string
	Reference string

	// Match is asked last, where it is given.
	Match func(r *http.Request, req registry.Request) bool

	// Nth is which of the requests that match it is: 1 for the first alone.
	// 0 is each. EachPath has the requests for each path counted apart: with
	// an Nth of 1, whatever is asked for meets the fault the first time.
	Nth      int
	EachPath bool

	// Fault is what happens: middleware, such as Answer or Cut give it.
	Fault func(http.Handler) http.Handler
}

// Faults is a registry's share of bad days: rules that say which request meets
// what fault. A request meets each that matches, the first outermost.
type Faults struct {
	rules []Rule

	mu      sync.Mutex
	matched map[match]int // guarded by mu: how often each rule matched, but for Nth
	fired   []bool        // guarded by mu: of each rule, whether it did
}

// match is a rule, and the path where it counts each apart.
type match struct {
	rule int
	path string
}

// NewFaults returns the faults that rules say.
func NewFaults(rules ...Rule) *Faults {
	return &Faults{rules: rules, matched: make(map[match]int), fired: make([]bool, len(rules))}
}

// Handler is middleware: h is what has the faults.
func (f *Faults) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := registry.ParseRequest(r)
		h := h
		for i := len(f.rules) - 1; i >= 0; i-- {
			if f.fires(i, r, req) {
				h = f.rules[i].Fault(h)
			}
		}
		h.ServeHTTP(w, r)
	})
}

func (f *Faults) fires(i int, r *http.Request, req registry.Request) bool {
	rule := f.rules[i]
	if rule.Op != "" && rule.Op != req.Op ||
		rule.Repo != "" && rule.Repo != req.Repo ||
		rule.Reference != "" && rule.Reference != req.Tag && rule.Reference != string(req.Digest) ||
		rule.Match != nil && !rule.Match(r, req) {
		return false
	}
	m := match{rule: i}
	if rule.EachPath {
		m.path = r.Method + " " + r.URL.Path
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.matched[m]++
	fires := rule.Nth == 0 || rule.Nth == f.matched[m]
	f.fired[i] = f.fired[i] || fires
	return fires
}

// Unfired returns the rules that no request has met: a test that expects a
// client to cope with a fault had better see it happen.
func (f *Faults) Unfired() (rules []Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, rule := range f.rules {
		if !f.fired[i] {
			rules = append(rules, rule)
		}
	}
	return rules
}

// Sometimes is a Match for the given share of requests, from 0 to 1, drawn at
// random: the same requests in the same order meet the same fate for the same
// seed.
func Sometimes(share float64, seed uint64) func(*http.Request, registry.Request) bool {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0)) // guarded by mu
	return func(*http.Request, registry.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		return random.Float64() < share
	}
}

// Refuse answers by [registry.WriteError] with err, and asks nothing further.
// With registry.ErrTooManyRequests, say, it is a 429 in the spec's shape; with
// a *registry.Error of the test's own, any status and header.
func Refuse(err error) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registry.WriteError(w, r, err) })
	}
}

// Answer answers with a status and a plain body, as a proxy in front of a
// registry does.
func Answer(status int, body string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, body, status) })
	}
}

// RetryAfter answers 429 TOOMANYREQUESTS with a Retry-After of d, which is
// rounded to seconds (section "Error Codes").
func RetryAfter(d time.Duration) func(http.Handler) http.Handler {
	e := *registry.ErrTooManyRequests
	e.Header = http.Header{"Retry-After": {strconv.Itoa(int(d.Round(time.Second) / time.Second))}}
	return Refuse(&e)
}

// Redirect answers 307 to the same path and query at base, such as
// "https://other.example".
func Redirect(base string) func(http.Handler) http.Handler {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			to := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
			w.Header().Set("Location", base+to.String())
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
	}
}

// StaleTag answers a request for a tag as if it still pointed at d, as a cache
// does that is behind. What is asked for by digest is not stale.
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

// ExpiredToken has the registry see a token that it does not know in the place
// of the client's: what is behind auth.Bearer answers as to one that expired.
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

// Delay waits for d, or until the client goes away, and goes on.
func Delay(d time.Duration) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sleep(r, d) {
				h.ServeHTTP(w, r)
			}
		})
	}
}

// sleep waits for d, and reports whether the client is still there.
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

// Drop breaks the connection off: before the request reaches the registry, or
// after the registry did what was asked, so that only its answer is lost.
func Drop(after bool) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if after {
				h.ServeHTTP(&editor{ResponseWriter: w, write: func(p []byte) ([]byte, error) { return nil, nil }, header: func(int) bool { return false }}, r)
			}
			panic(http.ErrAbortHandler)
		})
	}
}

// Cut ends the body of an answer after n bytes: by breaking the connection
// off, or, where clean, as if that were all.
func Cut(n int64, clean bool) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			left := n
			e := &editor{ResponseWriter: w}
			e.header = func(int) bool {
				if clean {
					w.Header().Del("Content-Length")
				}
				return true
			}
			e.write = func(p []byte) ([]byte, error) {
				cut := int64(len(p)) > left
				p = p[:min(int64(len(p)), left)]
				left -= int64(len(p))
				if !cut {
					return p, nil
				}
				w.Write(p)
				if !clean {
					http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
				return nil, nil
			}
			h.ServeHTTP(e, r)
		})
	}
}

// Drip sends the body of an answer at the given rate, which is at least 1.
func Drip(bytesPerSecond int) func(http.Handler) http.Handler {
	bytesPerSecond = max(bytesPerSecond, 1)
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Ten pieces a second, so that a reader sees it drip.
			piece := max(bytesPerSecond/10, 1)
			pause := time.Second * time.Duration(piece) / time.Duration(bytesPerSecond)
			h.ServeHTTP(&editor{ResponseWriter: w, write: func(p []byte) ([]byte, error) {
				for len(p) > 0 {
					n := min(piece, len(p))
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

// Corrupt flips the first bit of the body of an answer.
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

// WrongDigest has an answer say another Docker-Content-Digest than it has.
func WrongDigest(d digest.Digest) func(http.Handler) http.Handler {
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&editor{ResponseWriter: w, header: func(int) bool {
				w.Header().Set("Docker-Content-Digest", string(d))
				return true
			}}, r)
		})
	}
}

// editor is a ResponseWriter that changes what passes.
type editor struct {
	http.ResponseWriter
	header func(status int) bool          // false: it is not sent; nil: nothing to do
	write  func(p []byte) ([]byte, error) // what is left to send; nil: nothing to do
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
