// SPDX-License-Identifier: Apache-2.0

// Package journal records the requests of clients to a registry, and checks whether they
// follow the distribution-spec.
package journal

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/recorder"
	"github.com/berth-oci/registry/internal/redact"
)

// Journal is middleware that records requests and their responses, so that a test
// can check what a client did, and in particular with [Journal.Lint] whether it
// follows the spec. It works in front of any registry:
//
//	var j journal.Journal
//	server := httptest.NewServer(j.Handler(registry.New()))
//	// ... run the client against server.URL ...
//	if n := j.Count(registry.OpBlobGet); n != 3 {
//		t.Errorf("%d blobs pulled, want 3", n)
//	}
//
// It exposes no secrets: it shows only the scheme of credentials, and only the spec's
// parameters of queries. The zero value is an empty journal. A Journal is safe for
// concurrent use.
type Journal struct {
	mu      sync.Mutex
	entries []*Entry // guarded by mu, with the entries that it points to
}

// Entry is a request and its response.
type Entry struct {
	// Request is the parsed request. Its Op is empty if the spec has no such
	// request.
	registry.Request

	// Number is the position in the journal, from 1.
	Number int

	Method string
	Host   string
	Path   string // without the query

	// Range and ContentRange are the headers of the request, and Auth the
	// scheme of its credentials, such as "Bearer", or "unknown".
	Range, ContentRange, Auth string

	// Status is the response's status; 0 if there is no response yet, or if the
	// connection was aborted before it.
	Status int

	// Received is the number of bytes of the request's body that the registry
	// has read, and Sent the number of bytes of the response's body.
	Received, Sent int64

	// Location and Link are the headers of the response.
	Location, Link string

	target string // path and query, to compare with Location and Link; never printed

	// For Lint.
	contentType, accept string
	mediaType           string        // of a pushed manifest, by its mediaType member
	subject             digest.Digest // of a pushed manifest
	ociSubject          string        // OCI-Subject of the response
	chunkMin            int64         // OCI-Chunk-Min-Length of the response
}

// Handler returns a handler that serves requests with h and records them.
func (j *Journal) Handler(h http.Handler) http.Handler {
	if h == nil {
		panic("journal: Journal.Handler requires a handler")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// If the request is malformed, the fields parsed before the error are set.
		req, _ := registry.ParseRequest(r)
		e := &Entry{
			Request:      req,
			Method:       r.Method,
			Host:         r.Host,
			Path:         r.URL.Path,
			Range:        r.Header.Get("Range"),
			ContentRange: r.Header.Get("Content-Range"),
			Auth:         redact.AuthScheme(r.Header.Get("Authorization")),
			target:       r.URL.RequestURI(),
			contentType:  r.Header.Get("Content-Type"),
			accept:       r.Header.Get("Accept"),
		}
		j.mu.Lock()
		j.entries = append(j.entries, e)
		e.Number = len(j.entries)
		j.mu.Unlock()

		body := &recordedBody{ReadCloser: r.Body, keep: req.Op == registry.OpManifestPut}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = body
		}
		resp := &flushRecorder{recorder.Recorder{ResponseWriter: w}}
		defer func() { // also if the handler panics, to abort the connection
			j.mu.Lock()
			defer j.mu.Unlock()
			e.Received, e.Sent, e.Status = body.n, resp.Bytes, resp.Status
			e.Location, e.Link = w.Header().Get("Location"), w.Header().Get("Link")
			e.ociSubject = w.Header().Get("OCI-Subject")
			e.chunkMin, _ = strconv.ParseInt(w.Header().Get("OCI-Chunk-Min-Length"), 10, 64)
			e.parseManifest(body.content)
		}()
		h.ServeHTTP(resp, r)
		if resp.Status == 0 { // net/http sends 200 if the handler writes nothing
			resp.Status = http.StatusOK
		}
	})
}

// parseManifest sets the fields that Lint needs of a pushed manifest.
func (e *Entry) parseManifest(content []byte) {
	var doc struct {
		MediaType string
		Subject   *struct{ Digest digest.Digest }
	}
	if json.Unmarshal(content, &doc) != nil {
		return
	}
	e.mediaType = doc.MediaType
	if doc.Subject != nil {
		e.subject = doc.Subject.Digest
	}
}

// recordedBody counts the bytes read of a request's body, and keeps them if keep
// is set.
type recordedBody struct {
	io.ReadCloser
	n       int64
	keep    bool
	content []byte
}

// maxContent is the size of the largest body that is kept, in bytes.
const maxContent = 4 << 20

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if b.keep && len(b.content)+n <= maxContent {
		b.content = append(b.content, p[:n]...)
	}
	return n, err
}

// flushRecorder is a Recorder for handlers that use http.Flusher.
type flushRecorder struct{ recorder.Recorder }

func (w *flushRecorder) Flush() {
	if w.Status == 0 {
		w.Status = http.StatusOK
	}
	http.NewResponseController(w.ResponseWriter).Flush()
}

// Entries returns copies of the entries, in the order in which the requests
// arrived.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]Entry, len(j.entries))
	for i, e := range j.entries {
		all[i] = *e
	}
	return all
}

// Count returns the number of requests for any of the given operations, or of all
// requests if none is given.
func (j *Journal) Count(ops ...registry.Op) (n int) {
	for _, e := range j.Entries() {
		if len(ops) == 0 || slices.Contains(ops, e.Op) {
			n++
		}
	}
	return n
}

// pushedBlob reports whether e completed the push of a blob.
func (e Entry) pushedBlob() bool {
	return e.Status == http.StatusCreated && (e.Op == registry.OpBlobPush || e.Op == registry.OpUploadPut)
}

// BlobsPushed returns the digest of each blob push, in order. A blob whose
// content was pushed twice is listed twice; mounted blobs are not listed.
func (j *Journal) BlobsPushed() (all []digest.Digest) {
	for _, e := range j.Entries() {
		if e.pushedBlob() {
			all = append(all, e.Digest)
		}
	}
	return all
}

// BlobsPushedUnchecked returns the digest of each blob push for which the client
// had not checked first, by HEAD or by a mount, whether the repository has the
// blob.
func (j *Journal) BlobsPushedUnchecked() (all []digest.Digest) {
	type blob struct {
		repo   string
		digest digest.Digest
	}
	checked := make(map[blob]bool)
	for _, e := range j.Entries() {
		switch b := (blob{e.Repo, e.Digest}); {
		case e.Op == registry.OpBlobHead || e.Op == registry.OpBlobMount:
			checked[b] = true
		case e.pushedBlob() && !checked[b]:
			all = append(all, e.Digest)
		}
	}
	return all
}

// IgnoredLocations returns the requests to upload sessions that were not sent to
// the session's latest Location. The spec says that clients should use the Location
// unchanged, apart from the digest that the closing PUT adds (section "POST then
// PUT").
func (j *Journal) IgnoredLocations() (all []Entry) {
	latest := make(map[string]string) // by session ID
	for _, e := range j.Entries() {
		if location, ok := latest[e.UploadID]; ok && e.UploadID != "" && !sameLocation(location, e.target) {
			all = append(all, e)
		}
		if u, err := url.Parse(e.Location); err == nil && e.Status == http.StatusAccepted {
			id := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
			latest[id] = u.RequestURI()
		}
	}
	return all
}

// sameLocation reports whether target is location, or location with a digest
// added.
func sameLocation(location, target string) bool {
	a, err1 := url.Parse(location)
	b, err2 := url.Parse(target)
	if err1 != nil || err2 != nil || a.EscapedPath() != b.EscapedPath() {
		return false
	}
	query := b.Query()
	if !a.Query().Has("digest") {
		query.Del("digest")
	}
	return a.Query().Encode() == query.Encode()
}

// IgnoredLinks returns the requests for further pages of lists that were not sent
// to the Link of the preceding page. The spec says that clients should prefer the
// Link to building a URL with a last parameter (section "Listing Tags").
func (j *Journal) IgnoredLinks() (all []Entry) {
	type list struct {
		host    string
		op      registry.Op
		repo    string
		subject digest.Digest
	}
	type page struct{ first, next string }
	pages := make(map[list]page)
	for _, e := range j.Entries() {
		if e.Op != registry.OpTags && e.Op != registry.OpCatalog && e.Op != registry.OpReferrers {
			continue
		}
		l := list{e.Host, e.Op, e.Repo, e.Digest}
		p := pages[l]
		if p.next == "" || e.target == p.first {
			p.first = e.target // the list from its start
		} else if e.target != p.next {
			all = append(all, e)
		}
		p.next = nextPage(e.Link)
		pages[l] = p
	}
	return all
}

// nextPage returns the path and query of a Link header's target (RFC 8288), "" if
// there is none.
func nextPage(link string) string {
	target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	u, err := url.Parse(target)
	if err != nil || target == "" {
		return ""
	}
	return u.RequestURI()
}

// UnsolicitedCredentials returns the requests that sent credentials to a host that
// had not requested any with a 401.
func (j *Journal) UnsolicitedCredentials() (all []Entry) {
	challenged := make(map[string]bool) // by host
	for _, e := range j.Entries() {
		if e.Auth != "" && !challenged[e.Host] {
			all = append(all, e)
		}
		if e.Status == http.StatusUnauthorized {
			challenged[e.Host] = true
		}
	}
	return all
}

// String returns the journal as a table, one line for each request.
func (j *Journal) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "#\tmethod\top\trepository\treference\tstatus\treceived\tsent\trange\tauth")
	for i, e := range j.Entries() {
		op, reference := string(e.Op), e.Tag+string(e.Digest)
		if op == "" {
			op = e.Path
		}
		if e.UploadID != "" {
			reference = strings.TrimSpace(e.UploadID + " " + reference)
		}
		if e.From != "" {
			reference += " from " + e.From
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\n",
			i+1, e.Method, redact.Printable(op), redact.Printable(e.Repo), redact.Printable(reference), e.Status, e.Received, e.Sent, redact.Printable(e.Range+e.ContentRange), e.Auth)
	}
	w.Flush()
	return b.String()
}
