// SPDX-License-Identifier: Apache-2.0

// The faults of upstreams, and what a call comes to while there is one.

package mirrors

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/registrytest"
)

// class is a set of results of calls.
type class uint

const (
	served class = 1 << iota
	unreachable
	timedOut
	denied
	missing
	limited
	broken
)

// classes are the classes of which a set can consist.
var classes = []class{served, unreachable, timedOut, denied, missing, limited, broken}

// access is what the mirror asks an upstream for.
type access struct {
	kind   string // manifests, blobs or lists
	head   bool
	stored bool // for another repository, so that the mirror sends only a HEAD
	size   int  // of a blob
	digest bool // names the manifest
}

// fault is a way in which an upstream fails.
type fault struct {
	name    string
	refuse  bool                                     // connections
	wrap    func(*origin, http.Handler) http.Handler // nil without a change
	body    bool                                     // wrap changes bodies, those of the storage too
	expired bool                                     // the first signed URL, and the third, …
	storage bool                                     // refuse and wrap concern the storage alone
	token   int                                      // the status of the token server
	slow    bool                                     // the mirror can time out
	turns   bool                                     // each second request fails
	class   func(access) class
}

// timeout is that of the mirror.
const timeout = 10 * time.Second

// always is the class of a fault that makes no difference between calls.
func always(c class) func(access) class { return func(access) class { return c } }

// plain makes a fault of middleware that does not know its origin.
func plain(wrap func(http.Handler) http.Handler) func(*origin, http.Handler) http.Handler {
	return func(_ *origin, h http.Handler) http.Handler { return wrap(h) }
}

// ofStorage is the class of a fault of the storage alone.
func ofStorage(c class) func(access) class {
	return func(a access) class {
		if a.kind == "blobs" {
			return c
		}
		return served
	}
}

// respond responds with a status, and a header "Name: value"; 0 is never to respond.
func respond(status int, header string) func(*origin, http.Handler) http.Handler {
	return plain(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			if status == 0 {
				<-r.Context().Done()
				return
			}
			w.WriteHeader(status)
			fmt.Fprint(w, upstreamSecret)
		})
	})
}

// bodies is the class of a fault that lets only the first n bytes of each response come:
// of a blob, three more requests bring as many.
func bodies(n int, c class) func(access) class {
	return func(a access) class {
		switch {
		case a.head, a.kind == "blobs" && a.size <= 4*n, a.kind != "blobs" && n >= 10_000:
			return served
		}
		return c
	}
}

var faults = []*fault{
	{name: "none", class: always(served)},
	{name: "refused", refuse: true, class: always(unreachable)},
	{name: "silent", slow: true, class: always(timedOut), wrap: respond(0, "")},
	{name: "401", wrap: respond(401, ""), class: always(denied)},
	{name: "403", wrap: respond(403, ""), class: always(denied)},
	{name: "404", wrap: respond(404, ""), class: always(missing)},
	{name: "410", wrap: respond(410, ""), class: always(missing)},
	{name: "429, 5 s", wrap: respond(429, "Retry-After: 5"), class: always(limited)},
	{name: "429, 100 s", wrap: respond(429, "Retry-After: 100"), class: always(limited)},
	{name: "429", wrap: respond(429, ""), class: always(limited)},
	{name: "500", wrap: respond(500, ""), class: always(broken)},
	{name: "503", wrap: respond(503, "Retry-After: 100"), class: always(broken)},
	{name: "500 at first", turns: true, class: always(served), wrap: func(o *origin, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if o.turn() {
				w.WriteHeader(500)
				return
			}
			h.ServeHTTP(w, r)
		})
	}},
	{name: "400", wrap: respond(400, ""), class: always(broken)},
	{name: "HTML", class: always(broken), wrap: respond(200, "Content-Type: text/html; charset=utf-8")},
	{name: "to http", class: always(unreachable | broken), wrap: plain(registrytest.Redirect("http://registry.docker.io.test"))},
	{name: "to itself", class: always(unreachable | broken), wrap: respond(307, "Location: /v2/")},
	{name: "no response", class: always(unreachable), wrap: plain(registrytest.DropResponse())},
	{name: "no storage", storage: true, refuse: true, class: ofStorage(unreachable)},
	{name: "silent storage", storage: true, slow: true, class: ofStorage(timedOut), wrap: respond(0, "")},
	{name: "storage: 500", storage: true, class: ofStorage(broken), wrap: respond(500, "")},
	{name: "storage: 403", storage: true, class: ofStorage(denied), wrap: respond(403, "")},
	{name: "storage: HTML", storage: true, class: ofStorage(broken), wrap: respond(200, "Content-Type: text/html")},
	{name: "expired URL", expired: true, turns: true, class: always(served)},
	{name: "another digest", body: true, wrap: plain(registrytest.WrongDigest(digest.FromString("another"))), class: func(a access) class {
		if a.kind == "manifests" && !a.digest {
			return broken
		}
		return served // content that a digest names is hashed
	}},
	{name: "corrupt", body: true, wrap: plain(registrytest.Corrupt()), class: func(a access) class {
		if a.head || a.kind == "blobs" && a.size == 0 {
			return served
		}
		return broken
	}},
	{name: "short", body: true, wrap: plain(registrytest.Truncate(10)), class: func(a access) class {
		// The response to a HEAD does not say how long a blob is, so the mirror fetches it,
		// unless it has the content.
		if a.kind == "manifests" && a.head || a.kind == "blobs" && (a.stored || a.size <= 10) {
			return served
		}
		return broken
	}},
	{name: "cut at once", body: true, wrap: plain(registrytest.Disconnect(0)), class: bodies(0, unreachable)},
	{name: "cut after 100 KiB", body: true, wrap: plain(registrytest.Disconnect(100 << 10)), class: bodies(100<<10, unreachable)},
	{name: "cut after 1 MiB", body: true, wrap: plain(registrytest.Disconnect(1 << 20)), class: bodies(1<<20, unreachable)},
	{name: "stalled after 100 KiB", body: true, wrap: stall(100 << 10), class: bodies(100<<10, timedOut)},
	{name: "stalled after 1 MiB", body: true, wrap: stall(1 << 20), class: bodies(1<<20, timedOut)},
	{name: "slow", body: true, wrap: slow, class: always(served)},
	{name: "late", wrap: plain(registrytest.Delay(3 * time.Second)), class: always(served)},
	{name: "no tokens", token: 500, class: always(served | broken)},
	{name: "no login", token: 401, class: always(served | denied)},
}

// faultNamed returns a fault.
func faultNamed(name string) *fault {
	for _, f := range faults {
		if f.name == name {
			return f
		}
	}
	panic("no fault " + name)
}

// limitedWriter calls end when n bytes have been written, before the next one.
type limitedWriter struct {
	http.ResponseWriter
	left int
	end  func()
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(w.left, len(p))])
	if w.left -= n; n < len(p) && err == nil {
		w.end()
		err = http.ErrAbortHandler
	}
	return n, err
}

// stall sends n bytes of each response, and then nothing.
func stall(n int) func(*origin, http.Handler) http.Handler {
	return plain(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(&limitedWriter{w, n, func() {
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}}, r)
		})
	})
}

// slow sends 128 KiB each second, until the origin cuts its responses.
func slow(o *origin, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, cut := o.current()
		h.ServeHTTP(&slowWriter{ResponseWriter: w, r: r, cut: cut}, r)
	})
}

type slowWriter struct {
	http.ResponseWriter
	r   *http.Request
	cut <-chan struct{}
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		select {
		case <-time.After(250 * time.Millisecond):
		case <-w.cut:
			http.NewResponseController(w.ResponseWriter).Flush()
			panic(http.ErrAbortHandler)
		case <-w.r.Context().Done():
			return n, w.r.Context().Err()
		}
		k, err := w.ResponseWriter.Write(p[:min(len(p), 32<<10)])
		n += k
		if err != nil {
			return n, err
		}
		http.NewResponseController(w.ResponseWriter).Flush()
		p = p[k:]
	}
	return n, nil
}
