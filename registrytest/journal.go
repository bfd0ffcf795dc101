// SPDX-License-Identifier: Apache-2.0

package registrytest

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
	"testing"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// Journal records what a registry was asked and what it answered, for a test
// to ask what a client did. It keeps no secrets: of credentials the scheme
// alone, of queries the spec's parameters alone.
type Journal struct {
	mu      sync.Mutex
	entries []*Entry // guarded by mu, and what they point at
}

// Entry is a request and its answer.
type Entry struct {
	// Request is what was asked for; its Op is empty where that is nothing in
	// the spec.
	registry.Request

	Method string
	Host   string
	Path   string // without the query

	// Range and ContentRange are the request's fields of these names; Auth is
	// the scheme of its credentials, such as "Bearer".
	Range, ContentRange, Auth string

	// Status is the answer's; 0 while there is none.
	Status int

	// Received is the number of bytes that the registry read of the request's
	// body, Sent that of the answer's.
	Received, Sent int64

	// Location and Link are the answer's.
	Location, Link string

	target string // path and query, to compare with Locations and Links; never shown

	number int // of the request, from 1

	// What Lint looks at.
	contentType, accept string
	mediaType           string        // of a manifest, by its own word
	subject             digest.Digest // of a manifest
	ociSubject          string        // the answer's
	chunkMin            int64         // the answer's OCI-Chunk-Min-Length
}

// NewJournal returns an empty journal. When tb fails, it is logged.
func NewJournal(tb testing.TB) *Journal {
	j := new(Journal)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("what the registry was asked:\n%s", j)
		}
	})
	return j
}

// Handler is middleware: it has h serve what the journal records.
func (j *Journal) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What is malformed has the fields that were understood.
		req, _ := registry.ParseRequest(r)
		scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		e := &Entry{
			Request:      req,
			Method:       r.Method,
			Host:         r.Host,
			Path:         r.URL.Path,
			Range:        r.Header.Get("Range"),
			ContentRange: r.Header.Get("Content-Range"),
			Auth:         scheme,
			target:       r.URL.RequestURI(),
			contentType:  r.Header.Get("Content-Type"),
			accept:       r.Header.Get("Accept"),
		}
		j.mu.Lock()
		j.entries = append(j.entries, e)
		e.number = len(j.entries)
		j.mu.Unlock()

		body := &countingBody{ReadCloser: r.Body, keep: req.Op == registry.OpManifestPut}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = body
		}
		answer := &countingWriter{ResponseWriter: w}
		defer func() { // a handler may panic, to break the connection off
			j.mu.Lock()
			defer j.mu.Unlock()
			e.Received, e.Sent, e.Status = body.n, answer.n, answer.status
			e.Location, e.Link = w.Header().Get("Location"), w.Header().Get("Link")
			e.ociSubject = w.Header().Get("OCI-Subject")
			e.chunkMin, _ = strconv.ParseInt(w.Header().Get("OCI-Chunk-Min-Length"), 10, 64)
			e.readManifest(body.kept)
		}()
		h.ServeHTTP(answer, r)
		answer.WriteHeader(http.StatusOK) // unless it has
	})
}

// readManifest takes from a pushed manifest what Lint looks at.
func (e *Entry) readManifest(content []byte) {
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

type countingBody struct {
	io.ReadCloser
	n    int64
	keep bool
	kept []byte
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if b.keep && len(b.kept)+n <= maxKept {
		b.kept = append(b.kept, p[:n]...)
	}
	return n, err
}

// maxKept is the largest manifest that is looked into, in bytes.
const maxKept = 4 << 20

type countingWriter struct {
	http.ResponseWriter
	status int
	n      int64
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// ReadFrom keeps the connection's own way to send content.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, r)
	w.n += n
	return n, err
}

func (w *countingWriter) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Entries returns what was recorded, in the order in which requests came.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]Entry, len(j.entries))
	for i, e := range j.entries {
		all[i] = *e
	}
	return all
}

// Count returns the number of requests for any of the given operations; of all
// requests where none is given.
func (j *Journal) Count(ops ...registry.Op) (n int) {
	for _, e := range j.Entries() {
		if len(ops) == 0 || slices.Contains(ops, e.Op) {
			n++
		}
	}
	return n
}

// pushes reports whether e has pushed a blob.
func (e Entry) pushes() bool {
	return e.Status == http.StatusCreated && (e.Op == registry.OpBlobPush || e.Op == registry.OpUploadPut)
}

// BlobsPushed returns the digests of the blobs whose content was pushed, in
// order, each as often as it was. A blob that was mounted is not among them.
func (j *Journal) BlobsPushed() (all []digest.Digest) {
	for _, e := range j.Entries() {
		if e.pushes() {
			all = append(all, e.Digest)
		}
	}
	return all
}

// BlobsPushedUnchecked returns the digests of the blobs whose content was
// pushed although the client had not asked before, by HEAD or by a mount,
// whether the repository has it.
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
		case e.pushes() && !checked[b]:
			all = append(all, e.Digest)
		}
	}
	return all
}

// LocationsChanged returns the requests to an upload session that were not sent
// to the Location which the registry gave last: the spec has clients use it as
// it is, with a digest added in the closing PUT (section "POST then PUT").
func (j *Journal) LocationsChanged() (all []Entry) {
	given := make(map[string]string) // by session ID
	for _, e := range j.Entries() {
		if location, ok := given[e.UploadID]; ok && e.UploadID != "" && !sameLocation(location, e.target) {
			all = append(all, e)
		}
		if u, err := url.Parse(e.Location); err == nil && e.Status == http.StatusAccepted {
			id := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
			given[id] = u.RequestURI()
		}
	}
	return all
}

// sameLocation reports whether target is location, but for a digest.
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

// LinksChanged returns the requests for a further page of a list that were not
// sent to the Link which the page before had: the spec has clients prefer it
// over a last parameter of their own (section "Listing Tags").
func (j *Journal) LinksChanged() (all []Entry) {
	type list struct {
		host string
		op   registry.Op
		repo string
		of   digest.Digest
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

// nextPage returns the path and query that a Link field leads to (RFC 8288).
func nextPage(link string) string {
	target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	u, err := url.Parse(target)
	if err != nil || target == "" {
		return ""
	}
	return u.RequestURI()
}

// CredentialsUnasked returns the requests that had credentials for a host which
// had not asked for any by a 401.
func (j *Journal) CredentialsUnasked() (all []Entry) {
	asked := make(map[string]bool)
	for _, e := range j.Entries() {
		if e.Auth != "" && !asked[e.Host] {
			all = append(all, e)
		}
		if e.Status == http.StatusUnauthorized {
			asked[e.Host] = true
		}
	}
	return all
}

// String returns the journal as a table.
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
			i+1, e.Method, op, e.Repo, reference, e.Status, e.Received, e.Sent, e.Range+e.ContentRange, e.Auth)
	}
	w.Flush()
	return b.String()
}
