// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// Path is where an Inspector serves the page, and all that the page loads.
const Path = "/inspect/"

// Options are the options of New.
type Options struct {
	// Registry serves the deletions that the page requests. It must not require
	// credentials, since Policy has been asked. If it is nil, the page can't delete.
	Registry http.Handler

	// Policy decides what a user may see and delete, with the name that auth.User
	// returns. It is called for Pull, Delete and Catalog. If it is nil, everyone may do
	// everything.
	Policy auth.Policy

	// Zstd decompresses layers whose compression is zstd; nil if they can't be listed.
	Zstd func(io.Reader) (io.ReadCloser, error)

	// Mirrors returns the counts of a mirror for each upstream; nil without a mirror.
	Mirrors func() map[string]MirrorStats
}

// MirrorStats counts the work of a mirror for one upstream.
type MirrorStats struct {
	Hits   uint64 `json:"hits"`
	Stale  uint64 `json:"stale"`
	Misses uint64 `json:"misses"`
	Bytes  uint64 `json:"bytes"`
}

// Inspector records requests, and serves a page that shows them and the content of a
// store. It is safe for concurrent use.
type Inspector struct {
	Options
	store    registry.Store
	timeline timeline
	pages    http.Handler
	layers   chan struct{} // holds a value for each layer that is being read
	streams  chan struct{} // holds a value for each stream of events
	maxLayer int64         // but for tests

	closed context.Context
	close  context.CancelFunc
}

// New returns an Inspector for the registry that serves s.
func New(s registry.Store, o Options) *Inspector {
	if s == nil {
		panic("inspect: New requires a store")
	}
	i := &Inspector{Options: o, store: s, layers: make(chan struct{}, maxLayers), streams: make(chan struct{}, maxStreams), maxLayer: maxLayer}
	i.closed, i.close = context.WithCancel(context.Background())
	i.timeline.init()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path+"{$}", serveText("text/html", page))
	mux.HandleFunc("GET "+Path+"style.css", serveText("text/css", style))
	mux.HandleFunc("GET "+Path+"script.js", serveText("text/javascript", script))
	mux.HandleFunc("GET "+Path+"events", i.serveEvents)
	for path, get := range map[string]func(*http.Request) (any, error){
		"requests":     i.getRequests,
		"findings":     i.getFindings,
		"stats":        i.getStats,
		"repositories": i.getRepositories,
		"repository":   i.getRepository,
		"untagged":     i.getUntagged,
		"usage":        i.getUsage,
		"manifest":     i.getManifest,
		"layer":        i.getLayer,
		"file":         i.getFile,
		"shared":       i.getShared,
	} {
		mux.HandleFunc("GET "+Path+"api/"+path, func(w http.ResponseWriter, r *http.Request) {
			result, err := get(r)
			respond(w, result, err)
		})
	}
	mux.HandleFunc("DELETE "+Path+"api/manifest", i.deleteManifest)
	i.pages = mux
	return i
}

// Close ends the streams of open pages, for which the Shutdown of an http.Server would wait.
func (i *Inspector) Close() { i.close() }

// Handler returns a handler that serves the page, and everything else with h, of which it
// records the requests. A browser that requests / is redirected to the page.
func (i *Inspector) Handler(h http.Handler) http.Handler {
	recorded := registry.Observe(i.Record)(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i.Serves(r) {
			i.ServeHTTP(w, r)
			return
		}
		recorded.ServeHTTP(w, r)
	})
}

// Serves reports whether a request is for the page, rather than for the registry: all below
// Path, and / for a browser.
func (i *Inspector) Serves(r *http.Request) bool {
	return strings.HasPrefix(r.URL.Path+"/", Path) || r.URL.Path == "/" && r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// ServeHTTP serves the page. It rejects the requests of pages from elsewhere, but does not
// check the host of a request: see package guard.
func (i *Inspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if site := r.Header.Get("Sec-Fetch-Site"); site != "none" && site != "same-origin" {
		// A page that another site has opened must not be in its hands. It costs browsers a new
		// process, and half of the time until the first paint: those who enter the address, even
		// in a window that a site has opened, do not wait for it.
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
	}
	h.Set("Cache-Control", "no-store")
	switch {
	case !sameOrigin(r):
		respond(w, nil, &registry.Error{Status: http.StatusForbidden, Message: "the request comes from a web page of another origin"})
	case path.Clean(r.URL.Path) != strings.TrimSuffix(r.URL.Path, "/") && r.URL.Path != "/":
		// A ServeMux would redirect, by a status that depends on the version of Go.
		respond(w, nil, &registry.Error{Status: http.StatusNotFound, Message: "page not found"})
	case !strings.HasPrefix(r.URL.Path, Path):
		http.Redirect(w, r, Path, http.StatusSeeOther)
	default:
		i.pages.ServeHTTP(w, r)
	}
}

// sameOrigin reports whether r comes from the page itself, from a link to it, or from no
// browser.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host != r.Host {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	// Another site may have a link to the page, but no frame with it.
	isPage := r.URL.Path == "/" || r.URL.Path == Path
	return isPage && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

//go:embed ui
var files embed.FS

// The parts of the page, which are put together when it is first opened. The scripts share one
// function, so that nothing is global.
var (
	page   = sync.OnceValue(func() string { return readFiles("index.html") })
	style  = sync.OnceValue(func() string { return readFiles("style.css") })
	script = sync.OnceValue(func() string {
		return "(() => {\n\"use strict\";\n" + readFiles("dom.js", "format.js", "data.js", "timeline.js", "request.js", "repositories.js", "manifest.js", "layer.js", "pictures.js", "main.js") + "})();\n"
	})
)

func readFiles(names ...string) string {
	var all strings.Builder
	for _, name := range names {
		data, err := files.ReadFile("ui/" + name)
		if err != nil {
			panic(err) // it is in the binary
		}
		all.Write(data)
	}
	return all.String()
}

func serveText(mediaType string, text func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType+"; charset=utf-8")
		io.WriteString(w, text())
	}
}

// respond sends a result, or an error, as JSON.
func respond(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusInternalServerError
		if e := (*registry.Error)(nil); errors.As(err, &e) && e.Status >= 400 && e.Status <= 599 {
			status = e.Status
		}
		w.WriteHeader(status)
		result = map[string]string{"error": publicText(err)}
	}
	json.NewEncoder(w).Encode(result)
}

// badRequest returns an error for a parameter of the page's own requests.
func badRequest(message string) error {
	return &registry.Error{Status: http.StatusBadRequest, Message: message}
}

// allow returns nil if the user of the request may take an action.
func (i *Inspector) allow(ctx context.Context, action auth.Action, req registry.Request) error {
	if i.Policy == nil {
		return nil
	}
	return i.Policy(ctx, auth.User(ctx), action, req)
}

// mayPull reports whether the user of the request may pull from a repository.
func (i *Inspector) mayPull(ctx context.Context, repo string) bool {
	return i.allow(ctx, auth.Pull, registry.Request{Op: registry.OpManifestGet, Repo: repo}) == nil
}

// maySee reports whether the user of the request may see a record: of a repository, if they
// may pull from it; of anything else, if they may list all repositories.
func (i *Inspector) maySee(ctx context.Context, r *record) bool {
	if r.Repo == "" {
		return i.allowCatalog(ctx) == nil
	}
	return i.mayPull(ctx, r.Repo) && (r.From == "" || i.mayPull(ctx, r.From))
}

// allowCatalog returns nil if the user of the request may list all repositories.
func (i *Inspector) allowCatalog(ctx context.Context) error {
	return i.allow(ctx, auth.Catalog, registry.Request{Op: registry.OpCatalog})
}
