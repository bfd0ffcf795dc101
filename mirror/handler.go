// SPDX-License-Identifier: Apache-2.0

// The middleware that reads the names of upstreams in requests.

package mirror

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/berth-oci/registry"
)

// request is what a store needs to know of the request that it serves.
type request struct {
	w      http.ResponseWriter
	header http.Header // of the response
	head   bool        // the method is HEAD
	write  bool        // it is neither GET nor HEAD
	put    bool        // it is PUT
	warned bool
}

type requestKey struct{}

// Handler returns a handler that translates requests for next, which serves the mirror m.
// The parameter ns becomes the first part of the repository's name, and other names of
// repositories get their canonical form, which policies of next see. With it, requests
// that push or delete never go upstream, and responses with content that could not be
// revalidated have the header Warning: RFC 7234 section 5.5.
//
// Only requests that come through it go upstream. To others, such as a collection of
// garbage, the mirror is a store of what it has.
//
// It must be outside of middleware that decides by the names of repositories.
func (m *Mirror) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		translated, ns, err := m.translate(r)
		if err != nil {
			registry.WriteError(w, r, err)
			return
		}
		if ns != "" {
			w.Header().Set("OCI-Namespace", ns)
		}
		facts := &request{w: w, header: w.Header(), head: r.Method == http.MethodHead, put: r.Method == http.MethodPut}
		facts.write = !facts.head && r.Method != http.MethodGet
		next.ServeHTTP(w, translated.WithContext(context.WithValue(r.Context(), requestKey{}, facts)))
	})
}

// requestOf returns the request that ctx belongs to, or nil.
func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// goesUp reports whether a request that ctx belongs to may call an upstream.
func goesUp(ctx context.Context) bool {
	r := requestOf(ctx)
	return r != nil && !r.write
}

// warn adds the header Warning to the response of a request, since the failure f kept it
// from being current.
func warn(ctx context.Context, f *failure) {
	if r := requestOf(ctx); r != nil && !r.warned {
		r.warned = true
		r.header.Add("Warning", fmt.Sprintf("299 berth %q", f.Error()))
	}
}

// translate returns r with canonical names of repositories, and its parameter ns.
// Errors: ErrNameUnknown if ns is not an upstream.
func (m *Mirror) translate(r *http.Request) (translated *http.Request, ns string, err error) {
	all := m.current.Load()
	ns, query := cutNamespace(r.URL.RawQuery)
	if ns != "" {
		// The store has no repositories that begin with the first name. So a request for
		// another registry is seen by next, which may log it or require a login.
		first, escaped := CachePrefix, r.URL.EscapedPath()
		up := all.byName[canonicalHost(ns)]
		if up != nil {
			first = up.Name + "/"
		}
		path, ok := strings.CutPrefix(escaped, "/v2/")
		switch hasRepo := ok && path != "" && path != "_catalog"; {
		case hasRepo:
			escaped = "/v2/" + first + path
		case up == nil:
			return nil, "", errNotMirrored
		}
		if up == nil {
			ns = ""
		}
		r = withPath(r, escaped, query)
	}
	return all.withCanonicalNames(r), ns, nil
}

var errNotMirrored = fmt.Errorf("%w: it is not mirrored here", registry.ErrNameUnknown)

// cutNamespace returns the parameter ns of a query, and the rest of the query: section
// "Registry Proxying".
func cutNamespace(query string) (ns, rest string) {
	if ns, ok := strings.CutPrefix(query, "ns="); ok && !strings.ContainsAny(ns, "&%+;") {
		return ns, ""
	}
	if !strings.Contains(query, "ns=") && !strings.Contains(query, "%") {
		return "", query
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", query // which the registry rejects
	}
	if ns = values.Get("ns"); ns != "" {
		values.Del("ns")
		query = values.Encode()
	}
	return ns, query
}

// withCanonicalNames returns r with the canonical names of upstreams' repositories.
func (all *upstreams) withCanonicalNames(r *http.Request) *http.Request {
	// The name of a parameter can have escapes, too.
	if all.pathIsCanonical(r.URL.Path) && !strings.Contains(r.URL.RawQuery, "from=") && !strings.Contains(r.URL.RawQuery, "%") {
		return r
	}
	req, err := registry.ParseRequest(r)
	if err != nil || req.Repo == "" {
		return r // which the registry rejects
	}
	path, query := r.URL.EscapedPath(), r.URL.RawQuery
	if name := all.canonical(req.Repo); name != req.Repo {
		// Without its escapes: they may be in the name.
		path = (&url.URL{Path: "/v2/" + name + strings.TrimPrefix(r.URL.Path, "/v2/"+req.Repo)}).EscapedPath()
	}
	if from := all.canonical(req.From); from != req.From {
		values := r.URL.Query()
		values.Set("from", from)
		query = values.Encode()
	}
	if path == r.URL.EscapedPath() && query == r.URL.RawQuery {
		return r
	}
	return withPath(r, path, query)
}

// pathIsCanonical reports whether a path names no upstream, or one by its canonical names.
// If it is not sure, it reports false.
func (all *upstreams) pathIsCanonical(path string) bool {
	host, rest, _ := strings.Cut(strings.TrimPrefix(path, "/v2/"), "/")
	up := all.byName[canonicalHost(host)]
	if up == nil {
		return true
	}
	if host != up.Name || !up.hasShortNames() {
		return host == up.Name
	}
	_, rest, _ = strings.Cut(rest, "/")
	second, _, _ := strings.Cut(rest, "/")
	return second != "" && !slices.Contains([]string{"manifests", "blobs", "tags", "referrers"}, second)
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
