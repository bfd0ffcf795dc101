// SPDX-License-Identifier: Apache-2.0

// The middleware: statuses, error codes and the log of go-containerregistry.

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	berth "github.com/berth-oci/registry"

	"github.com/opencontainers/go-digest"
)

// exchange holds facts about a request that the middleware and the store share,
// in its context.
type exchange struct {
	req     berth.Request
	invalid error // the error of ParseRequest, if any

	chunk    *chunk // in Content-Range
	rangeEnd int64  // the last byte in Range; -1 without one

	mediaType string        // of a manifest, if it is hidden from Berth; else empty
	subject   digest.Digest // of the stored manifest; "" without one

	redirect *RedirectError // returned by the handler
	internal error          // for the log
}

// chunk is a Content-Range. Berth does not see it, because in the tests of
// go-containerregistry its end is one byte past the chunk's.
type chunk struct {
	start, length int64
}

type exchangeKey struct{}

// exchangeOf returns the exchange of a request. In any other context, it returns
// a new one.
func exchangeOf(ctx context.Context) *exchange {
	if e, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return e
	}
	return &exchange{rangeEnd: -1}
}

// quirks is the handler that New returns.
type quirks struct {
	registry  http.Handler
	log       *log.Logger
	referrers bool
}

func (q *quirks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &exchange{rangeEnd: -1}
	e.req, e.invalid = berth.ParseRequest(r)
	inner := r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e))
	held := &response{ResponseWriter: w, exchange: e, referrers: q.referrers}
	err := e.headers(inner)
	if err == nil {
		q.registry.ServeHTTP(held, inner)
		err = held.err(r)
	}
	switch {
	case e.redirect != nil:
		w.Header().Del("Content-Type") // http.Redirect sets that of its body
		code := e.redirect.Code
		if code < 300 || code > 308 || code == http.StatusNotModified {
			code = http.StatusTemporaryRedirect
		}
		http.Redirect(w, r, e.redirect.Location, code)
	case err != nil:
		berth.WriteError(w, r, err)
		q.logFailure(r, e, err)
		return
	}
	q.log.Printf("%s %s", r.Method, r.URL)
}

// logFailure logs a rejected or failed request.
func (q *quirks) logFailure(r *http.Request, e *exchange, err error) {
	var first *berth.Error
	errors.As(err, &first) // always succeeds
	message := err.Error()
	if e.internal != nil {
		message = e.internal.Error()
	}
	words := append(strings.Fields(first.Code), strings.Fields(message)...) // one line
	q.log.Printf("%s %s %d %s", r.Method, r.URL, first.Status, strings.Join(words, " "))
}

var (
	errRange        = &berth.Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UNKNOWN", Message: "requested range not satisfiable"}
	errContentRange = &berth.Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_UNKNOWN", Message: "badly formed Content-Range"}

	contentRange = regexp.MustCompile(`^([0-9]+)-([0-9]+)$`)
	byteRange    = regexp.MustCompile(`^[0-9]+-([0-9]+)$`)
)

// headers removes the headers whose meaning differs from the spec's from r, which
// is a copy.
func (e *exchange) headers(r *http.Request) error {
	switch e.req.Op {
	case berth.OpUploadPatch, berth.OpUploadPut:
		if e.invalid != nil || r.Header.Values("Content-Range") == nil {
			return nil
		}
		var err error
		if e.chunk, err = parseChunk(strings.Join(r.Header.Values("Content-Range"), ",")); err != nil {
			return err
		}
		r.Header = r.Header.Clone()
		r.Header.Del("Content-Range")
	case berth.OpManifestPut:
		e.contentType(r)
	case berth.OpBlobGet:
		unit, set, ok := strings.Cut(r.Header.Get("Range"), "=")
		if ok && !strings.EqualFold(unit, "bytes") {
			return fmt.Errorf("%w: its unit is not bytes", errRange)
		}
		if m := byteRange.FindStringSubmatch(set); m != nil && r.Header.Get("If-Range") == "" {
			if end, err := strconv.ParseInt(m[1], 10, 64); err == nil {
				e.rangeEnd = end
			}
		}
	}
	return nil
}

func parseChunk(s string) (*chunk, error) {
	m := contentRange.FindStringSubmatch(s)
	if m == nil {
		return nil, errContentRange
	}
	start, err1 := strconv.ParseUint(m[1], 10, 62)
	end, err2 := strconv.ParseUint(m[2], 10, 62)
	if err1 != nil || err2 != nil || end+1 < start {
		return nil, errContentRange
	}
	return &chunk{int64(start), int64(end+1) - int64(start)}, nil
}

// response holds back an error response, which another error or a redirect may
// replace.
type response struct {
	http.ResponseWriter
	*exchange
	referrers bool
	status    int // of the error; 0 without one
	body      bytes.Buffer
}

func (w *response) WriteHeader(status int) {
	if status < 400 {
		if w.referrers && w.subject != "" {
			w.Header().Set("OCI-Subject", string(w.subject))
		}
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

func (w *response) Write(p []byte) (int, error) {
	if w.status != 0 {
		return w.body.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom preserves optimizations of the connection, such as sendfile.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	if w.status != 0 {
		return w.body.ReadFrom(r)
	}
	return io.Copy(w.ResponseWriter, r)
}

// Unwrap supports http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// err returns the error that was held back, with go-containerregistry's statuses
// and codes.
func (w *response) err(r *http.Request) error {
	if w.status == 0 {
		return nil
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	json.Unmarshal(w.body.Bytes(), &doc) // the response to HEAD has no body
	if len(doc.Errors) == 0 {
		doc.Errors = append(doc.Errors, struct{ Code, Message string }{"", http.StatusText(w.status)})
	}
	var all []error
	for _, entry := range doc.Errors {
		status, code := w.translate(r, w.status, entry.Code)
		all = append(all, &berth.Error{Status: status, Code: code, Message: entry.Message})
	}
	return errors.Join(all...)
}

// translate returns the status and code of go-containerregistry for those of
// Berth.
func (w *response) translate(r *http.Request, status int, code string) (int, string) {
	op, malformed := w.req.Op, errors.Is(w.invalid, berth.ErrDigestInvalid)
	parts := strings.Split(strings.TrimSuffix(r.URL.Path, "/"), "/")
	switch {
	case !w.referrers && len(parts) > 4 && parts[len(parts)-2] == "referrers":
		return http.StatusNotFound, "METHOD_UNKNOWN"
	case w.invalid != nil && status == http.StatusMethodNotAllowed:
		return http.StatusBadRequest, "METHOD_UNKNOWN"
	case w.invalid != nil && status == http.StatusNotFound && op == "":
		if len(parts) == 4 && parts[2] == "blobs" {
			return http.StatusBadRequest, "NAME_INVALID" // a blob without a repository
		}
		return status, "METHOD_UNKNOWN"
	case malformed && op == berth.OpReferrers:
		return status, "UNSUPPORTED"
	case malformed && (op == berth.OpManifestGet || op == berth.OpManifestHead || op == berth.OpManifestDelete):
		return http.StatusNotFound, "MANIFEST_UNKNOWN"
	case malformed && op != berth.OpManifestPut:
		return status, "NAME_INVALID"
	case op == berth.OpUploadPut && status == http.StatusBadRequest && w.req.Digest != "" && w.req.Digest.Validate() != nil:
		return status, "NAME_INVALID"
	case w.invalid != nil && code == "UNSUPPORTED" && (op == berth.OpTags || op == berth.OpCatalog):
		return status, "BAD_REQUEST"
	case op == berth.OpBlobGet && status == http.StatusRequestedRangeNotSatisfiable:
		return status, "BLOB_UNKNOWN"
	case status == http.StatusInternalServerError:
		return status, "INTERNAL_SERVER_ERROR"
	}
	return status, code
}
