// SPDX-License-Identifier: Apache-2.0

// Recording of tapes.

package registrytest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/redact"
)

// tapeRecorder records requests and responses.
type tapeRecorder struct {
	tape      *Tape
	dir       string
	stage     tapeStage
	transport http.RoundTripper

	mu        sync.Mutex
	exchanges []*recordedExchange          // in the order of the requests
	redirects map[string]redirectTarget    // content behind URLs that the registry redirected to
	chunks    map[string][]digest.Digest   // of uploads in progress, by the path of their Location
	uploaded  []digest.Digest              // blobs that were pushed
	manifests map[manifestRef]taggedRecord // that were pushed or pulled
	heads     map[manifestRef]taggedRecord // that were only looked up
	notes     []string                     // to log
	err       error                        // the first reason why there can be no tape
}

// redirectTarget is the content behind a URL that the registry redirected to.
type redirectTarget struct {
	digest   digest.Digest // if it is known
	manifest *url.URL      // the registry's URL, if it is a manifest
}

// recordedExchange is a request and its response.
type recordedExchange struct {
	request *http.Request // without its body
	sent    *spool        // the request's body; nil if it has none
	anyBody bool          // the request's body does not matter, or is not known

	response *http.Response // without its body; nil if there is none
	received *spool
	body     *receivedBody

	content digest.Digest // of the content that the response has a part of, if known
	staged  digest.Digest // of the response's body if it is a blob
	err     error
	ended   bool
}

// manifestRef is a name of a manifest.
type manifestRef struct{ host, repo, ref string }

// taggedRecord is a manifest that had a name last.
type taggedRecord struct {
	digest    digest.Digest
	mediaType string
}

func (r *tapeRecorder) roundTrip(req *http.Request) (*http.Response, error) {
	out, sent := sendable(req, r.stage.dir)
	x := &recordedExchange{request: out.Clone(req.Context()), sent: sent}
	x.request.Body = nil
	if x.request.URL.Host == "" {
		x.request.URL.Host = x.request.Host
	}
	mask := r.tape.mask
	mask.learnURL(out.URL)
	mask.learnHeader(out.Header)
	r.mu.Lock()
	r.exchanges = append(r.exchanges, x)
	r.mu.Unlock()

	resp, err := r.transport.RoundTrip(out)
	if err != nil {
		r.end(x, err)
		return nil, err
	}
	mask.learnHeader(resp.Header)
	recorded := *resp
	recorded.Header, recorded.Body = resp.Header.Clone(), nil
	r.mu.Lock()
	x.response = &recorded
	x.received = newSpool(r.stage.dir)
	r.mu.Unlock()
	if resp.Body == nil || resp.Body == http.NoBody || req.Method == http.MethodHead {
		r.end(x, nil)
		return resp, nil
	}
	body := &receivedBody{ReadCloser: resp.Body, spool: x.received, length: resp.ContentLength, end: func(err error) { r.end(x, err) }}
	r.mu.Lock()
	x.body = body
	r.mu.Unlock()
	resp.Body = body
	return resp, nil
}

// end ends an exchange, with the error that ended it.
func (r *tapeRecorder) end(x *recordedExchange, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x.ended = true
	complete := true
	if x.sent != nil {
		size := x.request.ContentLength
		if size == 0 {
			size = -1 // unknown
		}
		complete = x.sent.freeze(size)
		// How much of content a client sends before it gets a 401 is up to chance.
		_, inline := inlineBody(x.request, x.sent)
		x.anyBody = !complete || !inline && x.response != nil && x.response.StatusCode == http.StatusUnauthorized
	}
	if x.response != nil && x.received.freeze(x.response.ContentLength) {
		err = nil
	}
	x.err = err
	if x.response == nil && !errors.Is(err, context.Canceled) {
		// A client of the handler sees only a broken connection.
		r.notes = append(r.notes, fmt.Sprintf("no response to %s %s: %v", x.request.Method, r.tape.mask.url(x.request.URL.String()), r.tape.mask.text(err.Error())))
	}
	if e := r.keep(x, complete); e != nil && r.err == nil {
		r.err = fmt.Errorf("%s %s: %w", x.request.Method, r.tape.mask.url(x.request.URL.String()), e)
	}
}

// keep keeps the bodies of an exchange that has ended. complete reports whether the
// request's body is.
func (r *tapeRecorder) keep(x *recordedExchange, complete bool) error {
	mask := r.tape.mask
	u := x.request.URL
	status := 0
	if x.response != nil {
		status = x.response.StatusCode
		if x.received.err != nil {
			return x.received.err
		}
	}
	if x.sent != nil {
		if x.sent.err != nil {
			return x.sent.err
		}
		if _, ok := inlineBody(x.request, x.sent); ok {
			data, _ := x.sent.data()
			mask.learnBody(x.request.Header.Get("Content-Type"), data)
		}
	}
	d, isManifest, isContent := contentOf(u.Path)
	target := redirectTarget{digest: d}
	if isManifest {
		target.manifest = u
	}
	if t, ok := r.redirects[u.String()]; ok {
		target, isContent = t, true
	}
	x.content = target.digest
	if isContent && status/100 == 3 {
		if to, err := u.Parse(x.response.Header.Get("Location")); err == nil {
			r.redirects[to.String()] = target
		}
	}
	if err := r.keepUpload(x, complete, status); err != nil {
		return err
	}
	if status == http.StatusCreated && isManifest && x.request.Method == http.MethodPut && x.sent != nil && complete {
		d, err := r.stage.keep(x.sent, x.content)
		if err != nil {
			return err
		}
		r.addManifest(r.manifests, u, d, x.request.Header.Get("Content-Type"), u.Query()["tag"])
	}
	if _, ok := inlineBody(x.request, x.sent); x.sent != nil && !ok {
		x.sent.drop() // only its digest is on tape
	}
	if x.response == nil {
		return nil
	}
	if x.request.Method == http.MethodHead {
		if d := digest.Digest(x.response.Header.Get("Docker-Content-Digest")); target.manifest != nil && status == http.StatusOK {
			r.addManifest(r.heads, target.manifest, d, "", nil)
		}
		return nil
	}
	contentType := x.response.Header.Get("Content-Type")
	if isContent && (status == http.StatusOK || status == http.StatusPartialContent) && x.request.Method == http.MethodGet && x.received.size > 0 {
		want := x.content
		if status == http.StatusPartialContent {
			want = ""
		}
		d, err := r.stage.keep(x.received, want)
		if err != nil {
			return err
		}
		x.staged = d
		if target.manifest != nil && status == http.StatusOK && x.err == nil {
			r.addManifest(r.manifests, target.manifest, d, contentType, nil)
		}
		return nil
	}
	data, ok := x.received.data()
	if !ok { // too large for text
		var err error
		x.staged, err = r.stage.keep(x.received, "")
		return err
	}
	if encoding := x.response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" && len(data) > 0 {
		return fmt.Errorf("the response is encoded by %s, although the request accepts only identity: secrets could not be found in it", encoding)
	}
	mask.learnBody(contentType, data)
	return nil
}

// keepUpload keeps what a request contributes to an upload.
func (r *tapeRecorder) keepUpload(x *recordedExchange, complete bool, status int) error {
	u, method := x.request.URL, x.request.Method
	if _, _, ok := contentOf(u.Path); ok || x.response == nil || method == http.MethodGet && status != http.StatusNoContent || method == http.MethodHead {
		return nil
	}
	location := u
	header := x.response.Header
	if to, err := u.Parse(header.Get("Location")); err == nil && header.Get("Location") != "" && status == http.StatusAccepted {
		location = to
		r.tape.mask.upload(path.Base(to.Path))
		r.tape.mask.upload(header.Get("Docker-Upload-Uuid"))
	}
	var chunk []digest.Digest
	if _, inline := inlineBody(x.request, x.sent); x.sent != nil && x.sent.size > 0 && complete && !inline && (status == http.StatusAccepted || status == http.StatusCreated) {
		d, err := r.stage.keep(x.sent, "")
		if err != nil {
			return err
		}
		chunk = []digest.Digest{d}
	}
	chunks := slices.Concat(r.chunks[u.Path], chunk)
	final := digest.Digest(u.Query().Get("digest"))
	switch {
	case status == http.StatusAccepted && method == http.MethodPost:
		// If the request had a body, the registry has ignored it.
		r.chunks[location.Path] = nil
	case status == http.StatusAccepted && method == http.MethodPatch:
		delete(r.chunks, u.Path)
		r.chunks[location.Path] = chunks
	case status == http.StatusCreated && (method == http.MethodPut || method == http.MethodPost) && final.Validate() == nil:
		delete(r.chunks, u.Path)
		if err := r.stage.join(final, chunks); err != nil {
			r.notes = append(r.notes, fmt.Sprintf("the tape does not have the blob %s, since its chunks are not complete: %v", final, err))
			return nil
		}
		r.uploaded = append(r.uploaded, final)
	}
	return nil
}

// addManifest adds a manifest to a list, with its tags in addition to the one in the URL.
func (r *tapeRecorder) addManifest(list map[manifestRef]taggedRecord, u *url.URL, d digest.Digest, mediaType string, tags []string) {
	repo, ref, _ := strings.Cut(strings.TrimPrefix(u.Path, "/v2/"), "/manifests/")
	mediaType, _, _ = strings.Cut(mediaType, ";")
	for _, ref := range append(tags, ref) {
		list[manifestRef{u.Host, repo, ref}] = taggedRecord{d, strings.TrimSpace(mediaType)}
	}
}

// uploadsPath is the path to which the content of a blob may be sent by POST.
var uploadsPath = regexp.MustCompile(`^/v2/.+/blobs/uploads?/`)

// inlineBody returns the body of a request that is not content: that of a token
// request, for example.
func inlineBody(req *http.Request, body *spool) (text string, ok bool) {
	if body == nil {
		return "", false
	}
	data, ok := body.data()
	contentType := strings.ToLower(req.Header.Get("Content-Type"))
	_, _, isContent := contentOf(req.URL.Path)
	if isUpload := req.Method == http.MethodPut || req.Method == http.MethodPatch || uploadsPath.MatchString(req.URL.Path); isUpload {
		isContent = isContent || !isForm(contentType) && !strings.HasPrefix(contentType, "application/json")
	}
	return string(data), ok && !isContent && isText(data)
}

// tapeRequest returns a request as it is on tape. Its body has been read into the
// spool, if it has one.
func (m *masker) tapeRequest(req *http.Request, body *spool) tapeRequest {
	r := tapeRequest{method: req.Method, url: m.url(req.URL.String()), header: m.header(req.Header, requestHeaders)}
	if body != nil && body.size > 0 {
		if text, ok := inlineBody(req, body); ok {
			r.body.text = m.body(req.Header.Get("Content-Type"), []byte(text))
		} else {
			r.body.digest, r.body.size = body.digest(), body.size
		}
	}
	r.replaceBoundary(req.Header.Get("Content-Type"))
	return r
}

// replaceBoundary replaces the boundary of a multipart body, which is random.
func (r *tapeRequest) replaceBoundary(contentType string) {
	_, params, err := mime.ParseMediaType(contentType)
	if boundary := params["boundary"]; err == nil && len(boundary) >= minSecret {
		r.body.text = strings.ReplaceAll(r.body.text, boundary, "boundary")
		for i, line := range r.header {
			r.header[i] = strings.ReplaceAll(line, boundary, "boundary")
		}
	}
}

// tapeExchange returns an exchange as it is on tape.
func (r *tapeRecorder) tapeExchange(x *recordedExchange) (*tapeExchange, error) {
	mask := r.tape.mask
	e := &tapeExchange{request: mask.tapeRequest(x.request, x.sent)}
	if x.anyBody {
		e.request.body = tapeBody{any: true}
	}
	if x.err != nil {
		e.err = redact.Printable(mask.text(rootCause(x.err)))
	}
	if x.response == nil {
		return e, nil
	}
	e.status = x.response.StatusCode
	header := x.response.Header.Clone()
	isHead := x.request.Method == http.MethodHead
	if x.response.ContentLength < 0 && !isHead && (x.received.size > 0 || x.err != nil) {
		header.Set("Transfer-Encoding", "chunked")
	}
	if isHead && e.status >= http.StatusBadRequest || !isHead && e.err == "" {
		header.Del("Content-Length") // of no use in an error, of which it may vary
	}
	e.header = mask.header(header, responseHeaders)
	switch {
	case x.staged != "":
		e.body.digest, e.body.size = x.staged, x.received.size
		return e, r.findPart(x, e)
	case isHead || e.status/100 == 3:
		return e, nil
	}
	data, _ := x.received.data()
	text := mask.body(x.response.Header.Get("Content-Type"), data)
	if isText([]byte(text)) {
		e.body.text = text
		return e, nil
	}
	masked := newSpool(r.stage.dir)
	masked.read([]byte(text), nil)
	e.body.size = masked.size
	var err error
	e.body.digest, err = r.stage.keep(masked, "")
	return e, err
}

// findPart replaces the body of a response with a part of a blob, if the whole blob is on
// the tape too.
func (r *tapeRecorder) findPart(x *recordedExchange, e *tapeExchange) error {
	var first, last int64
	contentRange := x.response.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/", &first, &last); err != nil || e.status != http.StatusPartialContent || x.content == "" || !r.stage.has(x.content) {
		return nil
	}
	d, err := r.stage.section(x.content, first, e.body.size)
	if err == nil && d == e.body.digest {
		e.body = tapeBody{digest: x.content, size: e.body.size, part: true, offset: first}
	}
	return err
}

// rootCause returns the text of the error that caused err: those around it name ports.
func rootCause(err error) string {
	for {
		cause := errors.Unwrap(err)
		if cause == nil {
			return cmp.Or(err.Error(), "unknown error")
		}
		err = cause
	}
}
