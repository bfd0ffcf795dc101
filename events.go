// SPDX-License-Identifier: Apache-2.0

// Events: a description of each request for logs, metrics and notifications.

package registry

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/recorder"
)

// Event describes a request and its response: see [Observe].
type Event struct {
	// Request is the parsed request, as far as it could be parsed.
	Request Request

	// HTTP is the request as it was received. It must not be used after the
	// hook has returned, except by way of its Clone.
	HTTP *http.Request

	// Status is the status of the response, 0 if the connection was aborted
	// before one was sent.
	Status int

	// Header holds the headers of the response. Like HTTP, it must not be used
	// after the hook has returned, except by way of its Clone.
	Header http.Header

	// Err is the error that the response reports, nil if it reports none. It may
	// contain details that the client did not get. If the connection was aborted,
	// it wraps [http.ErrAbortHandler].
	Err error

	// User is the name that middleware such as that of package auth has reported,
	// "" for a client without credentials. If Status is 401 or 403, the client may
	// only have claimed to be that user.
	User string

	// Time is when the request began, and Duration how long it took until its
	// handler returned.
	Time     time.Time
	Duration time.Duration

	// BytesIn and BytesOut are the numbers of bytes of the bodies of request and
	// response that were transferred.
	BytesIn, BytesOut int64

	// Digest is the digest of the content that the request has read, stored,
	// mounted or deleted, "" if it is not known.
	Digest digest.Digest

	// Size is the size of that content in bytes, -1 if it is not known.
	Size int64

	// MediaType is the type of that content, "" if it is not known.
	MediaType string

	// Subject is the subject of a manifest that was pushed (header OCI-Subject).
	Subject digest.Digest

	// Tags are the tags that were moved or deleted.
	Tags []string

	// Changed reports whether a blob or a manifest was stored, mounted or
	// deleted, or a tag moved or deleted, even if it was there already.
	Changed bool
}

// Observe returns middleware that calls hook after each request, with what is known
// of it then. Logs, metrics and notifications can be made of it. It should be the
// outermost handler but for those that change the request, so that it sees the
// responses of the others too, such as those of package auth. The hook is called by
// the goroutine that serves the request, which it delays; it may be called by
// several at once.
//
// It panics if hook is nil.
func Observe(hook func(Event)) func(http.Handler) http.Handler {
	if hook == nil {
		panic("registry: Observe requires a function")
	}
	return func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { observe(h, w, r, hook) })
	}
}

// observation is what Observe allocates for a request: also the context of the inner
// request, and the ResponseWriter.
type observation struct {
	recorder.Recorder
	context.Context
	*facts // shared with an Observe outside, if there is one
	body   countedBody
	own    facts
	inner  http.Request
}

// facts are what an Observe learns from handlers.
type facts struct {
	report
	request Request // its Op is "" until it has reached the registry
}

type factsKey struct{}

func (o *observation) Value(key any) any {
	switch key {
	case factsKey{}:
		return o.facts
	case reportKey{}:
		return &o.report
	}
	return o.Context.Value(key)
}

// reportRequest reports the parsed request to Observe.
func reportRequest(ctx context.Context, req Request) {
	if f, ok := ctx.Value(factsKey{}).(*facts); ok {
		f.request = req
	}
}

func observe(h http.Handler, w http.ResponseWriter, r *http.Request, hook func(Event)) {
	o := &observation{Recorder: recorder.Recorder{ResponseWriter: w}, Context: r.Context()}
	var ok bool
	if o.facts, ok = r.Context().Value(factsKey{}).(*facts); !ok {
		o.own.size, o.facts = -1, &o.own
	}
	start, returned := time.Now(), false
	defer func() {
		if !returned && o.err == nil {
			o.err = abortedError{}
		} else if returned && o.Status == 0 { // net/http sends it for a handler that writes nothing
			o.Status = http.StatusOK
		}
		hook(o.event(r, start))
	}()
	o.inner = *r.WithContext(o)
	if r.Body != nil && r.Body != http.NoBody {
		o.body.ReadCloser = r.Body
		o.inner.Body = &o.body
	}
	h.ServeHTTP(o, &o.inner)
	returned = true
}

// abortedError is the error of a handler that has panicked, most likely on purpose.
type abortedError struct{}

func (abortedError) Error() string { return "the response was aborted" }
func (abortedError) Unwrap() error { return http.ErrAbortHandler }

// event returns the event of a request whose handler has returned.
func (o *observation) event(r *http.Request, start time.Time) Event {
	req := o.request
	if req.Op == "" { // it has not reached the registry
		req, _ = ParseRequest(r)
	}
	e := Event{
		Request:  req,
		HTTP:     r,
		Status:   o.Status,
		Header:   o.Recorder.Header(),
		Err:      o.err,
		User:     o.user,
		Time:     start,
		Duration: time.Since(start),
		BytesIn:  o.body.n,
		BytesOut: o.Bytes,
		Digest:   req.Digest,
		Size:     -1,
	}
	if o.Status >= 300 || o.Status == 0 {
		return e
	}
	header := o.Header()
	if d := first(header, "Docker-Content-Digest"); d != "" {
		e.Digest = digest.Digest(d)
	}
	e.Size = o.size
	switch req.Op {
	case OpBlobGet, OpBlobHead, OpManifestGet, OpManifestHead:
		e.MediaType, e.Size = first(header, "Content-Type"), servedSize(header)
	case OpBlobPush:
		e.Size = o.body.n
	case OpManifestPut:
		e.MediaType, _ = parseMediaType(first(r.Header, "Content-Type"))
		e.Subject = digest.Digest(first(header, "Oci-Subject"))
		e.Tags, e.Size = req.Tags, o.body.n
	}
	if req.Tag != "" && (req.Op == OpManifestPut || req.Op == OpManifestDelete) {
		e.Tags = []string{req.Tag}
	}
	switch req.Op {
	case OpBlobPush, OpBlobMount, OpUploadPut, OpManifestPut:
		e.Changed = o.Status == http.StatusCreated // else a mount has become an upload
	case OpBlobDelete, OpManifestDelete:
		e.Changed = true
	}
	return e
}

// first returns the first value of a header, whose name must be in its canonical form: to
// find that takes most of the time of Header.Get.
func first(h http.Header, canonical string) string {
	if values := h[canonical]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// servedSize returns the size of content of which a response has all, or a range, -1
// if its headers do not tell.
func servedSize(h http.Header) int64 {
	size := first(h, "Content-Length")
	if served := first(h, "Content-Range"); served != "" {
		_, size, _ = strings.Cut(served, "/")
	}
	if n, err := strconv.ParseInt(size, 10, 64); err == nil {
		return n
	}
	return -1
}

// countedBody counts the bytes of a request's body.
type countedBody struct {
	io.ReadCloser
	n int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}
