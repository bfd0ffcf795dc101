// SPDX-License-Identifier: Apache-2.0

// The middleware that reads the names of upstreams in requests.

package mirror

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/berth-oci/registry"
)

// request is what a store needs to know of the request that it serves.
type request struct {
	header http.Header // of the response
	write  bool        // or otherwise about what is stored here
}

type requestKey struct{}

// Handler returns a handler that translates requests for next, which serves the mirror m.
// The parameter ns becomes the first part of the repository's name, and other names of
// repositories get their canonical form, which policies of next see. With it, requests
// that push or delete never go upstream, and responses with content that could not be
// revalidated have the header Warning: RFC 7234 section 5.5.
//
// It must be outside of middleware that decides by the names of repositories.
func (m *Mirror) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		translated, err := m.translate(r)
		if err != nil {
			registry.WriteError(w, r, err)
			return
		}
		if translated != r && namespace(r) != "" {
			w.Header().Set("OCI-Namespace", namespace(r))
		}
		facts := &request{header: w.Header(), write: r.Method != http.MethodGet && r.Method != http.MethodHead}
		next.ServeHTTP(w, translated.WithContext(context.WithValue(r.Context(), requestKey{}, facts)))
	})
}

// WithoutUpstream returns a context for uses of a Mirror that concern what is stored alone,
// such as retention.Collect: nothing that they ask for comes from an upstream.
func WithoutUpstream(ctx context.Context) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{header: make(http.Header), write: true})
}

// goesUp reports whether a request that ctx belongs to may call an upstream.
func goesUp(ctx context.Context) bool {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r == nil || !r.write
}

// warn adds the header Warning to the response of a request, since the failure f kept it
// from being current.
func warn(ctx context.Context, f *failure) {
	if r, _ := ctx.Value(requestKey{}).(*request); r != nil {
		r.header.Set("Warning", fmt.Sprintf("299 berth %q", f.Error()))
	}
}

// translate returns r with canonical names of repositories.
// Errors: ErrNameUnknown if ns is not an upstream.
func (m *Mirror) translate(r *http.Request) (*http.Request, error) {
	all := m.current.Load()
	prefix := ""
	query := r.URL.RawQuery
	if ns := namespace(r); ns != "" {
		up := all.byName[canonicalHost(ns)]
		if up == nil {
			return nil, fmt.Errorf("%w: the registry of ns is not mirrored here", registry.ErrNameUnknown)
		}
		prefix = up.Name + "/"
		values := r.URL.Query()
		values.Del("ns")
		query = values.Encode()
	}
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/v2/")
	if path == "" || path == r.URL.EscapedPath() || path == "_catalog" {
		prefix = ""
	}
	translated := r
	if prefix != "" || query != r.URL.RawQuery {
		translated = withPath(r, "/v2/"+prefix+path, query)
	}
	return m.withCanonicalNames(translated, all)
}

// namespace returns the parameter ns: section "Registry Proxying".
func namespace(r *http.Request) string {
	if !strings.Contains(r.URL.RawQuery, "ns=") {
		return ""
	}
	return r.URL.Query().Get("ns")
}

// withCanonicalNames returns r with the canonical names of upstreams' repositories.
func (m *Mirror) withCanonicalNames(r *http.Request, all *upstreams) (*http.Request, error) {
	if !m.namesUpstream(r.URL.Path, all) && !strings.Contains(r.URL.RawQuery, "from=") {
		return r, nil
	}
	req, err := registry.ParseRequest(r)
	if err != nil || req.Repo == "" {
		return r, nil // which the registry rejects
	}
	path, query := r.URL.EscapedPath(), r.URL.RawQuery
	if name := all.canonical(req.Repo); name != req.Repo {
		path = "/v2/" + name + strings.TrimPrefix(path, "/v2/"+req.Repo)
	}
	if values := r.URL.Query(); values.Has("from") {
		if from := values.Get("from"); all.canonical(from) != from {
			values.Set("from", all.canonical(from))
			query = values.Encode()
		}
	}
	if path == r.URL.EscapedPath() && query == r.URL.RawQuery {
		return r, nil
	}
	return withPath(r, path, query), nil
}

// namesUpstream reports whether an upstream's name begins the name of the repository.
func (m *Mirror) namesUpstream(path string, all *upstreams) bool {
	host, _, ok := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/")
	return ok && all.byName[canonicalHost(host)] != nil
}

// canonical returns the canonical name of a repository.
func (all *upstreams) canonical(repo string) string {
	host, name, ok := strings.Cut(repo, "/")
	if up := all.byName[canonicalHost(host)]; ok && up != nil {
		return up.Name + "/" + up.canonicalName(name)
	}
	return repo
}

// withPath returns r with another path, which may be escaped, and another query.
func withPath(r *http.Request, path, query string) *http.Request {
	changed := *r
	u := *r.URL
	u.RawQuery = query
	u.RawPath = path
	if decoded, err := url.PathUnescape(path); err == nil {
		u.Path = decoded
	}
	if u.Path == u.RawPath {
		u.RawPath = ""
	}
	changed.URL = &u
	return &changed
}
