// SPDX-License-Identifier: Apache-2.0

// New, and how a request reaches its handler.

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// New returns a registry: a handler for every endpoint of the OCI
// distribution-spec, below /v2/. Without options it keeps its content in memory,
// accepts pushes and deletes from anyone, and logs nothing. It starts no
// goroutine and need not be closed. The handler has a method Store() [Store],
// which returns the store that it serves.
//
// New panics if an option is nil, or was made of a nil store, logger or function.
func New(opts ...Option) http.Handler {
	c := config{referrers: true}
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Sprintf("registry: option %d of New is nil", i))
		}
		opt(&c)
	}
	if c.store == nil {
		c.store = new(MemStore)
	}
	b := newBudget(c.limits, c.store)
	s := &server{config: c, main: newEndpoints(&c, c.store, b)}
	s.isDisabled = s.disabled
	if len(c.hooks) > 0 {
		s.observed = Observe(s.callHooks)(http.HandlerFunc(s.serve))
	}
	for name, store := range c.namespaces {
		if s.byNamespace == nil {
			s.byNamespace = make(map[string]endpoints)
		}
		s.byNamespace[name] = newEndpoints(&c, store, b)
	}
	return s
}

// server is the handler that New returns.
type server struct {
	config
	observed    http.Handler  // that calls the hooks, nil if there are none
	isDisabled  func(Op) bool // made once: a method value is an allocation
	main        endpoints
	byNamespace map[string]endpoints
}

// endpoints are the handlers of one store, a type for each family. Each has
// access to no more of the store than it needs.
type endpoints struct {
	blobs     blobHandlers
	uploads   uploadHandlers
	manifests manifestHandlers
	tags      tagHandlers
	referrers referrerHandlers
}

func newEndpoints(c *config, s Store, b *budget) endpoints {
	return endpoints{
		blobs:     blobHandlers{s},
		uploads:   uploadHandlers{s, c.prefix, c.limits.BlobBytes, c.clientIDs},
		manifests: manifestHandlers{s, b, c.prefix, b.maxManifest(c.limits), c.sparse, c.referrers},
		tags:      tagHandlers{s, b, c.prefix, c.limits.PageNames},
		referrers: referrerHandlers{s, b, c.prefix, c.limits.referrersBytes()},
	}
}

func (s *server) callHooks(e Event) {
	for _, hook := range s.hooks {
		hook(e)
	}
}

// Store returns the store that the registry serves.
func (s *server) Store() Store { return s.store }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.observed == nil {
		s.serve(w, r)
		return
	}
	s.observed.ServeHTTP(w, r)
}

// serve responds to r.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersion
	addWarnings(h, s.warnings)
	req, err := parseRequest(r, s.isDisabled)
	if err == nil {
		reportRequest(r.Context(), req)
		err = s.dispatch(w, r, req)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
			err = errGone // for the log: the registry has not failed
		}
		WriteError(w, r, err)
	}
}

func (s *server) dispatch(w http.ResponseWriter, r *http.Request, req Request) error {
	e := &s.main
	if other, ok := s.byNamespace[req.Namespace]; ok && isReadMethod(r.Method) && req.Op != OpUploadStatus {
		w.Header().Set("OCI-Namespace", req.Namespace)
		e = &other
	}
	switch req.Op {
	case OpPing:
		return ping(w)
	case OpBlobGet, OpBlobHead:
		return e.blobs.get(w, r, req)
	case OpBlobDelete:
		return e.blobs.delete(w, r, req)
	case OpBlobPush:
		return e.uploads.push(w, r, req)
	case OpBlobMount:
		return e.uploads.mount(w, r, req)
	case OpUploadStart:
		return e.uploads.start(w, r, req)
	case OpUploadPatch:
		return e.uploads.patch(w, r, req)
	case OpUploadPut:
		return e.uploads.put(w, r, req)
	case OpUploadStatus:
		return e.uploads.status(w, r, req)
	case OpUploadCancel:
		return e.uploads.cancel(w, r, req)
	case OpManifestGet, OpManifestHead:
		return e.manifests.get(w, r, req)
	case OpManifestPut:
		return e.manifests.put(w, r, req)
	case OpManifestDelete:
		return e.manifests.delete(w, r, req)
	case OpTags:
		return e.tags.list(w, r, req)
	case OpCatalog:
		return e.tags.catalog(w, r, req)
	case OpReferrers:
		if !s.config.referrers {
			return errNotFound
		}
		return e.referrers.list(w, r, req)
	}
	return errNotFound
}

// isReadMethod reports whether method is one of the safe methods that endpoints
// have: RFC 9110 section 9.2.1.
func isReadMethod(method string) bool {
	return method == http.MethodGet || method == http.MethodHead
}

// ping handles GET /v2/: end-1, section "Determining Support".
func ping(w http.ResponseWriter) error {
	writeJSON(w, []byte("{}"))
	return nil
}
