// SPDX-License-Identifier: Apache-2.0

// The spec's error codes as values, and WriteError, which writes all error
// responses.

package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Error is an error in the shape of the distribution-spec (section "Error
// Codes"), with its HTTP status.
//
// errors.Is compares the code and the status. The first 14 values below, one
// for each of the spec's codes, match each error with their code, whatever its
// status: errors.Is(ErrTooLarge, ErrSizeInvalid) holds, and
// errors.Is(ErrSizeInvalid, ErrTooLarge) does not.
//
// Wrap an Error to say more:
//
//	fmt.Errorf("%w: layer %s", registry.ErrManifestBlobUnknown, d)
//
// The entire text of the wrapping error is sent to the client, so it must not
// contain anything internal. An error that wraps no *Error becomes a plain 500,
// and its text is not sent.
type Error struct {
	// Status is the HTTP status of the response.
	Status int
	// Code is one of the codes in the spec's table.
	Code string
	// Message describes the error to a person.
	Message string
	// RetryAfter is how long the client should wait before it tries again. It
	// is rounded up to seconds, and sent as Retry-After unless it is 0.
	RetryAfter time.Duration
	// Header holds further headers of the response, such as Allow. It is nil
	// in this package's values.
	Header http.Header
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error with the same code and status, or this
// package's value for the code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Status == e.Status && t.RetryAfter == e.RetryAfter || slices.Contains(specErrors[:], t))
}

// The codes of the spec's table, code-1 to code-14, each with its usual status.
// Stores return these, wrapped or not.
var (
	ErrBlobUnknown         = &Error{Status: http.StatusNotFound, Code: "BLOB_UNKNOWN", Message: "blob unknown to registry"}
	ErrBlobUploadInvalid   = &Error{Status: http.StatusBadRequest, Code: "BLOB_UPLOAD_INVALID", Message: "blob upload invalid"}
	ErrBlobUploadUnknown   = &Error{Status: http.StatusNotFound, Code: "BLOB_UPLOAD_UNKNOWN", Message: "blob upload unknown to registry"}
	ErrDigestInvalid       = &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "provided digest did not match uploaded content"}
	ErrManifestBlobUnknown = &Error{Status: http.StatusNotFound, Code: "MANIFEST_BLOB_UNKNOWN", Message: "manifest references a manifest or blob unknown to registry"}
	ErrManifestInvalid     = &Error{Status: http.StatusBadRequest, Code: "MANIFEST_INVALID", Message: "manifest invalid"}
	ErrManifestUnknown     = &Error{Status: http.StatusNotFound, Code: "MANIFEST_UNKNOWN", Message: "manifest unknown to registry"}
	ErrNameInvalid         = &Error{Status: http.StatusBadRequest, Code: "NAME_INVALID", Message: "invalid repository name"}
	ErrNameUnknown         = &Error{Status: http.StatusNotFound, Code: "NAME_UNKNOWN", Message: "repository name not known to registry"}
	ErrSizeInvalid         = &Error{Status: http.StatusBadRequest, Code: "SIZE_INVALID", Message: "provided length did not match content length"}
	ErrUnauthorized        = &Error{Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: "authentication required"}
	ErrDenied              = &Error{Status: http.StatusForbidden, Code: "DENIED", Message: "requested access to the resource is denied"}
	ErrUnsupported         = &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "the operation is unsupported"}
	ErrTooManyRequests     = &Error{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "too many requests"}
)

var specErrors = [...]*Error{
	ErrBlobUnknown, ErrBlobUploadInvalid, ErrBlobUploadUnknown, ErrDigestInvalid,
	ErrManifestBlobUnknown, ErrManifestInvalid, ErrManifestUnknown, ErrNameInvalid,
	ErrNameUnknown, ErrSizeInvalid, ErrUnauthorized, ErrDenied, ErrUnsupported,
	ErrTooManyRequests,
}

// ErrUploadBusy is returned by a store if another caller holds the lease on an
// upload. As for any chunk out of order, the client should get the upload's
// status and continue from there.
var ErrUploadBusy = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_INVALID", Message: "another request is writing to this upload"}

// ErrTooManyUploads is returned by a store if the limit of uploads in progress
// is reached.
var ErrTooManyUploads = &Error{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "too many uploads in progress", RetryAfter: 10 * time.Second}

// ErrTooLarge is returned if content exceeds a limit: RFC 9110 section 15.5.14.
var ErrTooLarge = &Error{Status: http.StatusRequestEntityTooLarge, Code: "SIZE_INVALID", Message: "content too large"}

// ErrUnavailable is returned by a store whose backend can't be reached, or does
// not respond in time: RFC 9110 section 15.6.4.
var ErrUnavailable = &Error{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "the registry's storage is unavailable", RetryAfter: 5 * time.Second}

// Errors that share a code with one of the above and differ in their status or
// message. Some messages are those of go-containerregistry, which users of its
// registry compare.
var (
	errNotFound     = &Error{Status: http.StatusNotFound, Code: "UNSUPPORTED", Message: "page not found"}
	errBadDigest    = &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "badly formed digest"}
	errBadAlgorithm = &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "unsupported digest algorithm"}
	errContentRange = &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "we don't understand your Content-Range"}
	errBodyBroken   = &Error{Status: http.StatusBadRequest, Code: "SIZE_INVALID", Message: "the request body ended early or was malformed"}
	errPrecondition = &Error{Status: http.StatusPreconditionFailed, Code: "DENIED", Message: "precondition failed"}
	errBlobRange    = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "SIZE_INVALID", Message: "requested range not satisfiable"}
	errUploadRange  = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_INVALID", Message: "chunk out of order"}
	errTooMany      = &Error{Status: http.StatusRequestURITooLong, Code: "UNSUPPORTED", Message: "too many parameters"}
	errGone         = &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "the client has cancelled the request"}
	errBusy         = &Error{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "too many requests in progress", RetryAfter: time.Second}
	errInternal     = &Error{Status: http.StatusInternalServerError, Code: "UNSUPPORTED", Message: "internal error"}
)

// Values of headers that are always the same, shared by all responses.
var (
	typeJSON = []string{"application/json"}
	noSniff  = []string{"nosniff"}
)

// maxErrors is the maximum number of errors in a response.
const maxErrors = 10

// WriteError writes err as the response to r, in the shape of the spec's section
// "Error Codes"; without a body if r is a HEAD request. It must be called before
// anything else is written. Errors joined by errors.Join are listed one by one,
// with the status of the first; those that wrap no *Error are left out.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	var body struct {
		Errors []entry `json:"errors"`
	}
	if report := reportOf(r.Context()); report != nil && report.err == nil {
		report.err = err
	}
	first, all := clientErrors(err)
	for _, err := range all {
		var e *Error
		errors.As(err, &e)
		body.Errors = append(body.Errors, entry{e.Code, err.Error()})
	}
	h := w.Header()
	for k, v := range first.Header {
		h[k] = slices.Clone(v)
	}
	if first.RetryAfter > 0 {
		seconds := first.RetryAfter / time.Second
		if first.RetryAfter%time.Second > 0 {
			seconds++
		}
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	b, _ := json.Marshal(body) // strings only: cannot fail
	h["Content-Type"] = typeJSON
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h["X-Content-Type-Options"] = noSniff
	h.Del("Etag") // it belongs to content that this response does not carry
	status := first.Status
	if status < 400 || status > 599 { // not an error's
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(b)
	}
}

// clientErrors returns the *Error that determines the response's status, and the
// errors to list, each of which wraps an *Error.
func clientErrors(err error) (first *Error, all []error) {
	for _, err := range flatten(nil, err) {
		e := (*Error)(nil)
		if !errors.As(err, &e) {
			continue // internal
		}
		if first == nil {
			first = e
		}
		if len(all) < maxErrors {
			all = append(all, err)
		}
	}
	if first == nil {
		return errInternal, []error{errInternal}
	}
	return first, all
}

// flatten appends the errors joined in err, at any depth.
func flatten(all []error, err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return append(all, err)
	}
	for _, err := range joined.Unwrap() {
		all = flatten(all, err)
	}
	return all
}
