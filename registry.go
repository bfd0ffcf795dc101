// SPDX-License-Identifier: Apache-2.0

// New, its options, and the way of a request to its handler.

package registry

import (
	"context"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// New returns a registry: a handler for every endpoint of the OCI
// distribution-spec, below /v2/. Without options it has its content in memory,
// takes pushes and deletes from anyone, and logs nothing. It starts no
// goroutine and needs no closing.
func New(opts ...Option) http.Handler {
	c := config{referrers: true}
	for _, opt := range opts {
		opt(&c)
	}
	if c.store == nil {
		c.store = &MemStore{Limits: c.limits}
	}
	b := newBudget(c.limits)
	s := &server{config: c, main: newEndpoints(&c, c.store, b)}
	for name, store := range c.namespaces {
		if s.byNamespace == nil {
			s.byNamespace = make(map[string]endpoints)
		}
		s.byNamespace[name] = newEndpoints(&c, store, b)
	}
	return s
}

// Option is an option of New.
type Option func(*config)

type config struct {
	store      Store
	namespaces map[string]Store
	limits     Limits
	sparse     bool
	clientIDs  bool
	readOnly   bool
	noDelete   bool
	referrers  bool
	warnings   []warning
	log        func(r *http.Request, req Request, a *answer, err error, d time.Duration)
}

// WithStore has the registry keep its content in s. Of the Limits, those that
// bound a store are then for s to keep.
func WithStore(s Store) Option {
	return func(c *config) { c.store = s }
}

// WithNamespaces has a GET or HEAD request with an ns parameter that is a key
// of stores answered from that store, with OCI-Namespace (section "Registry
// Proxying"): one registry that stands in for several. Any other ns is
// ignored.
func WithNamespaces(stores map[string]Store) Option {
	return func(c *config) { c.namespaces = stores }
}

// WithLimits bounds what the registry takes.
func WithLimits(l Limits) Option {
	return func(c *config) { c.limits = l }
}

// Limits bounds what a registry takes. What is over a limit is refused, whole,
// by an answer that names the limit. A zero field means its default.
type Limits struct {
	// ManifestBytes is the largest manifest, in bytes: 4 MiB by default, the
	// least that the spec asks for (section "Pushing Manifests"). A larger
	// one is answered with 413.
	ManifestBytes int64

	// BlobBytes is the largest blob, in bytes; unbounded by default. A larger
	// one is answered with 413.
	BlobBytes int64

	// PageNames is the most names in one answer of the tag list and the
	// catalog; unbounded by default. Some clients take a page that has fewer
	// names than they asked for as the last, in spite of its Link: cuelabs'
	// ociclient, which asks for 1,000.
	PageNames int

	// ReferrersBytes is the largest answer of the referrers list, in bytes:
	// 4 MiB by default. It is exceeded by an answer that has one descriptor.
	ReferrersBytes int

	// TotalBytes is what the store may hold, in bytes of memory, uploads in
	// progress and a share for each name included; unbounded by default. What
	// would exceed it is answered with 413. Manifests and lists that are on
	// their way take up to an eighth more; a request for which that is used up
	// is answered with 429.
	TotalBytes int64

	// MemoryBytes is how much of TotalBytes may be in memory; all by default.
	// Blobs of a MiB and more that come when half of it is taken are kept in
	// temporary files, which have no name and are gone with the process. What
	// must be in memory and would exceed it is answered with 413. It is for
	// systems on which a file that is open can be removed.
	MemoryBytes int64

	// Uploads is the number of uploads in progress; unbounded by default. A
	// further one is answered with 429.
	Uploads int

	// UploadIdle is how long an upload is kept while no request uses it: one
	// hour by default.
	UploadIdle time.Duration
}

func (l Limits) manifestBytes() int64 {
	if l.ManifestBytes > 0 {
		return l.ManifestBytes
	}
	return 4 << 20
}

func (l Limits) referrersBytes() int {
	if l.ReferrersBytes > 0 {
		return l.ReferrersBytes
	}
	return 4 << 20
}

func (l Limits) uploadIdle() time.Duration {
	if l.UploadIdle > 0 {
		return l.UploadIdle
	}
	return time.Hour
}

// AllowSparse lets manifests name blobs and manifests that the repository does
// not have. Without it such a manifest is answered with 404
// MANIFEST_BLOB_UNKNOWN (section "Push"). A subject, a non-distributable layer
// and a descriptor in an index that is of no manifest type may be absent in
// any case.
func AllowSparse() Option {
	return func(c *config) { c.sparse = true }
}

// ClientUploadIDs lets a PATCH or PUT name an upload session that no POST has
// opened, and opens it. Tests that were written for other registries do so.
func ClientUploadIDs() Option {
	return func(c *config) { c.clientIDs = true }
}

// ReadOnly refuses pushes and deletes, with 405.
func ReadOnly() Option {
	return func(c *config) { c.readOnly = true }
}

// NoDelete refuses to delete blobs, manifests and tags, with 405. Uploads may
// still be cancelled.
func NoDelete() Option {
	return func(c *config) { c.noDelete = true }
}

// WithReferrersSupport turns the referrers API (section "Listing Referrers")
// on or off: it is on by default. Off, the registry is as one of OCI 1.0, and
// clients fall back to the referrers tag schema.
func WithReferrersSupport(enabled bool) Option {
	return func(c *config) { c.referrers = enabled }
}

// WithWarning adds a Warning header with the given text (section "Warnings")
// to answers, with the given probability from 0 to 1.
func WithWarning(prob float64, msg string) Option {
	return func(c *config) { c.warnings = append(c.warnings, newWarning(prob, msg)) }
}

// Logger has each request logged to l as a line.
func Logger(l *log.Logger) Option {
	return func(c *config) {
		c.log = func(r *http.Request, _ Request, a *answer, err error, _ time.Duration) {
			if err != nil {
				l.Printf("%s %s %d %v", r.Method, r.URL, a.status, err)
				return
			}
			l.Printf("%s %s %d", r.Method, r.URL, a.status)
		}
	}
}

// WithSlog has each request logged to l: at level Info, at Warn where it is
// refused, at Error where the registry is at fault.
func WithSlog(l *slog.Logger) Option {
	return func(c *config) {
		c.log = func(r *http.Request, req Request, a *answer, err error, d time.Duration) {
			level := slog.LevelInfo
			attrs := []slog.Attr{
				slog.String("op", string(req.Op)),
				slog.String("method", r.Method),
				slog.String("url", r.URL.String()),
				slog.Int("status", a.status),
				slog.Int64("bytes", a.bytes),
				slog.Duration("duration", d),
				slog.String("remote", r.RemoteAddr),
			}
			if err != nil {
				level = slog.LevelWarn
				attrs = append(attrs, slog.String("error", err.Error()))
			}
			if a.status >= 500 {
				level = slog.LevelError
			}
			l.LogAttrs(r.Context(), level, "request", attrs...)
		}
	}
}

// server is the handler that New returns.
type server struct {
	config
	main        endpoints
	byNamespace map[string]endpoints
}

// endpoints are the handlers of one store, a type for each family: each holds
// no more of the store than it needs.
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
		uploads:   uploadHandlers{s, c.limits.BlobBytes, c.clientIDs},
		manifests: manifestHandlers{s, b, c.limits.manifestBytes(), c.sparse, c.referrers},
		tags:      tagHandlers{s, b, c.limits.PageNames},
		referrers: referrerHandlers{s, b, c.limits.referrersBytes()},
	}
}

var apiVersion = []string{"registry/2.0"}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.log == nil {
		s.serve(w, r)
		return
	}
	a := &answer{ResponseWriter: w, status: http.StatusOK}
	start := time.Now()
	req, err := s.serve(a, r)
	s.log(r, req, a, err, time.Since(start))
}

// serve answers r. It returns what was asked for, and the error that was
// answered, if any.
func (s *server) serve(w http.ResponseWriter, r *http.Request) (Request, error) {
	h := w.Header()
	h["Docker-Distribution-Api-Version"] = apiVersion
	warned := 0
	for _, warning := range s.warnings {
		if warning.probability > rand.Float64() && warned+len(warning.value) <= maxWarnings {
			h.Add("Warning", warning.value)
			warned += len(warning.value)
		}
	}
	req, err := s.parse(r)
	if err == nil {
		err = s.dispatch(w, r, req)
	}
	if err != nil {
		WriteError(w, r, err)
	}
	return req, err
}

func (s *server) dispatch(w http.ResponseWriter, r *http.Request, req Request) error {
	e := &s.main
	if other, ok := s.byNamespace[req.Namespace]; ok && safe(r.Method) && req.Op != OpUploadStatus {
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

// parse is ParseRequest, and refuses what the options turn off: with 405, as the
// section "Content Management" has it of deletes.
func (s *server) parse(r *http.Request) (Request, error) {
	req, err := ParseRequest(r)
	if err == nil && !s.off(req.Op) {
		return req, nil
	}
	if err == nil {
		other := *r
		other.Method = "" // which no endpoint has
		_, err = ParseRequest(&other)
	}
	if e, ok := err.(*Error); ok && e.Status == http.StatusMethodNotAllowed {
		allow := strings.Split(e.Header.Get("Allow"), ", ")
		session := slices.Contains(allow, "PATCH")
		err = methodNotAllowed(slices.DeleteFunc(allow, func(method string) bool {
			return s.readOnly && !safe(method) || s.noDelete && method == http.MethodDelete && !session
		})...)
	}
	return req, err
}

// off reports whether the options turn op off.
func (s *server) off(op Op) bool {
	switch op {
	case OpBlobDelete, OpManifestDelete:
		return s.noDelete || s.readOnly
	case OpManifestPut, OpBlobPush, OpBlobMount, OpUploadStart, OpUploadPatch, OpUploadPut, OpUploadCancel:
		return s.readOnly
	}
	return false
}

// safe reports whether requests of a method only ask: RFC 9110 section 9.2.1.
func safe(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// ping answers GET /v2/: end-1, section "Determining Support".
func ping(w http.ResponseWriter) error {
	writeJSON(w, []byte("{}"))
	return nil
}

// setFields sets fields of an answer, of names in the canonical form, at the cost
// of one allocation.
func setFields(w http.ResponseWriter, pairs ...string) {
	h := w.Header()
	for i := 0; i+1 < len(pairs); i += 2 {
		h[pairs[i]] = pairs[i+1 : i+2 : i+2]
	}
}

// writeJSON answers 200 with a JSON document.
func writeJSON(w http.ResponseWriter, doc []byte) {
	jsonHeader(w)
	w.Header().Set("Content-Length", strconv.Itoa(len(doc)))
	w.Write(doc)
}

// jsonHeader says that the answer is JSON, of the type that is set, if one is.
func jsonHeader(w http.ResponseWriter) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("X-Content-Type-Options", "nosniff")
}

// warning is a Warning header (section "Warnings").
type warning struct {
	probability float64
	value       string
}

// maxWarnings is the most that the spec allows for the Warning headers of an
// answer, in bytes. What is longer is cut; a warning that no longer fits is
// left out.
const maxWarnings = 4096

func newWarning(probability float64, msg string) warning {
	// A quoted-string (RFC 9110 section 5.6.4) takes no control characters.
	msg = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, msg)
	const frame = len(`299 - ""`)
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for frame+len(escape.Replace(msg)) > maxWarnings {
		_, last := utf8.DecodeLastRuneInString(msg)
		msg = msg[:len(msg)-last]
	}
	return warning{probability, `299 - "` + escape.Replace(msg) + `"`}
}

// pullScope is the context key of WithPullScope.
type pullScope struct{}

// WithPullScope returns a context for a request whose sender may pull only from
// the repositories that may names. It is for middleware that authenticates: a
// mount (section "Mounting a blob from another repository") reaches into
// repositories that the request's URL need not name, and in them only may can
// tell.
func WithPullScope(ctx context.Context, may func(repo string) bool) context.Context {
	return context.WithValue(ctx, pullScope{}, may)
}

func mayPull(ctx context.Context, repo string) bool {
	may, ok := ctx.Value(pullScope{}).(func(string) bool)
	return !ok || may(repo)
}

// immutableTags is the context key of WithImmutableTags.
type immutableTags struct{}

// WithImmutableTags returns a context for a push whose sender may create tags
// but move none: a push that would move one is answered with 403 DENIED, and
// changes nothing.
func WithImmutableTags(ctx context.Context) context.Context {
	return context.WithValue(ctx, immutableTags{}, true)
}

// answer watches what is answered, for the log.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (a *answer) WriteHeader(status int) {
	if status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// ReadFrom keeps the connection's own way to send content.
func (a *answer) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(a.ResponseWriter, r)
	a.bytes += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
