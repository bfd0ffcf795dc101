// SPDX-License-Identifier: Apache-2.0

// The registries that are mirrored, with their token server and their storage on other
// hosts. They note all that a mirror must not do.

package mirrors

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/recorder"
	"github.com/berth-oci/registry/registrytest"
)

// What must not come to the other side.
const (
	clientSecret   = "client-secret"
	upstreamSecret = "upstream-secret"
)

var upstreamNames = []string{"docker.io", "ghcr.test"}

// world is all that the mirror can reach.
type world struct {
	origins []*origin

	mu     sync.Mutex
	faults []string // of the mirror
}

// blame notes a fault of the mirror.
func (w *world) blame(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// RoundTrip sends a request of the mirror to whom it is for.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.blame("%s %s goes upstream", r.Method, r.URL)
	}
	if strings.Contains(r.URL.String(), clientSecret) || strings.Contains(fmt.Sprint(r.Header), clientSecret) {
		w.blame("%s %s has what the client has sent: %v", r.Method, r.URL, r.Header)
	}
	for _, o := range w.origins {
		h := o.handlerOf(r.URL.Host)
		if h == nil {
			continue
		}
		if r.URL.Scheme != "https" {
			w.blame("%s %s is without TLS", r.Method, r.URL)
		}
		if o.refuses(r.URL.Host) {
			return nil, errors.New("connection refused")
		}
		return registrytest.Transport(h).RoundTrip(r)
	}
	w.blame("%s %s is to no known host", r.Method, r.URL)
	return nil, errors.New("no such host")
}

// origin is a registry that is mirrored.
type origin struct {
	world        *world
	name, host   string
	auth         string   // Basic, Bearer or ""
	cdn          []string // the hosts through which blobs are redirected
	noReferrers  bool     // the API does not exist
	noHeadDigest bool     // HEAD responses have no Docker-Content-Digest
	store        *registry.MemStore
	registry     http.Handler

	mu         sync.Mutex
	fault      *fault
	cut        chan struct{} // closed to break responses that are being sent
	turns      int           // of a fault that alternates
	calls      []string
	tokens     map[string]time.Time // until when they are valid
	notFound   map[string]time.Time // by path, the last 404
	quietFrom  time.Time            // the last 429
	quietUntil time.Time
}

func newOrigin(w *world, name string) *origin {
	o := &origin{
		world:    w,
		name:     name,
		host:     "registry." + name + ".test",
		store:    upstreamContent.Clone(),
		fault:    faults[0],
		cut:      make(chan struct{}),
		tokens:   make(map[string]time.Time),
		notFound: make(map[string]time.Time),
	}
	o.registry = registry.New(registry.WithStore(o.store))
	return o
}

// handlerOf returns the handler of a host, or nil.
func (o *origin) handlerOf(host string) http.Handler {
	switch {
	case host == o.host:
		return http.HandlerFunc(o.serve)
	case host == "auth."+o.name+".test":
		return http.HandlerFunc(o.serveToken)
	case slices.Contains(o.cdn, host):
		return http.HandlerFunc(o.serveStorage)
	}
	return nil
}

// refuses reports whether a host refuses connections.
func (o *origin) refuses(host string) bool {
	f, _ := o.current()
	return f.refuse && (!f.storage || slices.Contains(o.cdn, host))
}

// set switches a fault on, and all others off.
func (o *origin) set(f *fault) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault, o.turns = f, 0
}

// current returns the fault, with a channel that is closed to cut a response.
func (o *origin) current() (*fault, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.fault, o.cut
}

// cutAll breaks all responses that are being sent slowly.
func (o *origin) cutAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.cut)
	o.cut = make(chan struct{})
}

// turn reports whether this request is the first, third, … since the fault began.
func (o *origin) turn() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turns++
	return o.turns%2 == 1
}

// callCount returns the number of requests so far, without those for tokens, and without
// those that got a challenge.
func (o *origin) callCount() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.calls)
}

// serve serves a request to the registry.
func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Set-Cookie", "session="+upstreamSecret)
	if !o.authorized(w, r) {
		return
	}
	now := time.Now()
	o.mu.Lock()
	if r.URL.Path != "/v2/" { // of a fault
		o.calls = append(o.calls, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	}
	if now.After(o.quietFrom) && now.Before(o.quietUntil) {
		o.world.blame("%s %s comes %v before the end of Retry-After", r.Method, r.URL, o.quietUntil.Sub(now))
	}
	f := o.fault
	o.mu.Unlock()
	if r.Header.Get("Accept-Encoding") != "identity" {
		o.world.blame("%s %s has the Accept-Encoding %q", r.Method, r.URL, r.Header.Get("Accept-Encoding"))
	}
	var h http.Handler = http.HandlerFunc(o.serveContent)
	if f.wrap != nil && !f.storage {
		h = f.wrap(o, h)
	}
	recorded := &recorder.Recorder{ResponseWriter: w}
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		switch recorded.Status {
		case http.StatusNotFound, http.StatusGone:
			o.notFound[r.URL.Path] = time.Now()
		case http.StatusTooManyRequests:
			wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if err != nil {
				wait = 60
			}
			o.quietFrom, o.quietUntil = time.Now(), time.Now().Add(time.Duration(wait)*time.Second)
		}
	}()
	h.ServeHTTP(recorded, r)
}

// serveContent serves a request without a fault.
func (o *origin) serveContent(w http.ResponseWriter, r *http.Request) {
	switch {
	case o.noReferrers && strings.Contains(r.URL.Path, "/referrers/"):
		http.NotFound(w, r)
	case len(o.cdn) > 0 && strings.Contains(r.URL.Path, "/blobs/"):
		stat := registrytest.Transport(o.registry)
		head, _ := http.NewRequest(http.MethodHead, r.URL.String(), nil)
		head.URL.Scheme, head.URL.Host = "https", o.host
		resp, err := stat.RoundTrip(head)
		if err != nil || resp.StatusCode != http.StatusOK {
			http.NotFound(w, r)
			return
		}
		o.redirect(w, r, 0)
	case o.noHeadDigest && r.Method == http.MethodHead:
		o.registry.ServeHTTP(withoutDigest{w}, r)
	default:
		o.registry.ServeHTTP(w, r)
	}
}

// withoutDigest drops the header Docker-Content-Digest.
type withoutDigest struct{ http.ResponseWriter }

func (w withoutDigest) WriteHeader(status int) {
	w.Header().Del("Docker-Content-Digest")
	w.ResponseWriter.WriteHeader(status)
}

// redirect redirects to a host of the storage, with a signed URL that expires.
func (o *origin) redirect(w http.ResponseWriter, r *http.Request, hop int) {
	w.Header().Set("Location", fmt.Sprintf("https://%s%s?hop=%d&until=%d&signature=%s", o.cdn[hop], r.URL.Path, hop, time.Now().Add(10*time.Second).Unix(), upstreamSecret))
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// serveStorage serves a request to the storage.
func (o *origin) serveStorage(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		o.world.blame("%s %s has the credentials of %s", r.Method, r.URL, o.host)
	}
	if r.Header.Get("Accept-Encoding") != "identity" {
		o.world.blame("%s %s has the Accept-Encoding %q", r.Method, r.URL, r.Header.Get("Accept-Encoding"))
	}
	f, _ := o.current()
	until, _ := strconv.ParseInt(r.URL.Query().Get("until"), 10, 64)
	hop, _ := strconv.Atoi(r.URL.Query().Get("hop"))
	switch {
	case r.URL.Query().Get("signature") != upstreamSecret, time.Now().Unix() > until:
		w.WriteHeader(http.StatusForbidden)
		return
	case hop+1 < len(o.cdn):
		o.redirect(w, r, hop+1)
		return
	case f.expired && o.turn():
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if referer := r.Header.Get("Referer"); strings.Contains(referer, upstreamSecret) {
		o.world.blame("%s %s has the signed URL of another request: %s", r.Method, r.URL, referer)
	}
	r.URL.RawQuery = ""
	if f.wrap != nil && (f.body || f.storage) {
		f.wrap(o, o.registry).ServeHTTP(w, r)
		return
	}
	o.registry.ServeHTTP(w, r)
}

// authorized reports whether a request has the credentials that the registry requires, and
// writes a challenge if it does not.
func (o *origin) authorized(w http.ResponseWriter, r *http.Request) bool {
	authorization := r.Header.Get("Authorization")
	switch o.auth {
	case "Basic":
		if authorization == "Basic "+base64.StdEncoding.EncodeToString([]byte("user:"+upstreamSecret)) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="`+upstreamSecret+`"`)
	case "Bearer":
		o.mu.Lock()
		until := o.tokens[strings.TrimPrefix(authorization, "Bearer ")]
		o.mu.Unlock()
		if time.Now().Before(until) {
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://auth.%s.test/token",service="registry"`, o.name))
	default:
		return true
	}
	w.WriteHeader(http.StatusUnauthorized)
	return false
}

// serveToken serves a request for a token, which expires after two minutes.
func (o *origin) serveToken(w http.ResponseWriter, r *http.Request) {
	if f, _ := o.current(); f.token != 0 {
		w.WriteHeader(f.token)
		return
	}
	if _, password, ok := r.BasicAuth(); !ok || password != upstreamSecret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	token := fmt.Sprintf("%s-%d", upstreamSecret, len(o.tokens))
	o.tokens[token] = time.Now().Add(2 * time.Minute)
	fmt.Fprintf(w, `{"token":%q,"expires_in":120}`, token)
}
