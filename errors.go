// SPDX-License-Identifier: Apache-2.0

// The spec's error codes as values, and WriteError, the one way out for errors.

package registry

import (
	"encoding/json"
	"errors"
	"net/http"
)

// Error is an error as the distribution-spec shapes it (section "Error
// Codes"), with the HTTP status it is answered with.
//
// Errors are compared by code: errors.Is(err, ErrBlobUnknown) holds for each
// error with the code BLOB_UNKNOWN. Some share a code: ErrTooLarge is
// ErrSizeInvalid to errors.Is. Wrap one to say more:
//
//	fmt.Errorf("%w: layer %s", registry.ErrManifestBlobUnknown, d)
//
// The whole text of the wrapping error is sent to the client, so it must hold
// nothing internal. An error that wraps no *Error is answered with a plain 500
// and its text is kept from the client.
type Error struct {
	// Status is the HTTP status of the answer.
	Status int
	// Code is one of the codes in the spec's table.
	Code string
	// Message says to a person what is wrong.
	Message string
	// Header holds further fields of the answer, such as Allow or Retry-After.
	// It must not be changed once the error is in use.
	Header http.Header
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error with the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// The codes of the spec's table, code-1 to code-14, each with the status it
// usually has. A store returns these, wrapped or as they are.
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

// Conditions that share a code with one of the above and differ in status or
// in what they say.
var (
	errNotFound      = &Error{Status: http.StatusNotFound, Code: "UNSUPPORTED", Message: "page not found"}
	errBadDigest     = &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "badly formed digest"}
	errBadAlgorithm  = &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "unsupported digest algorithm"}
	errContentRange  = &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "we don't understand your Content-Range"}
	errBodyBroken    = &Error{Status: http.StatusBadRequest, Code: "SIZE_INVALID", Message: "the request body ended early or was malformed"}
	errPrecondition  = &Error{Status: http.StatusPreconditionFailed, Code: "DENIED", Message: "precondition failed"}
	errBlobRange     = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "SIZE_INVALID", Message: "requested range not satisfiable"}
	errUploadRange   = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_INVALID", Message: "chunk out of order"}
	errInternal      = &Error{Status: http.StatusInternalServerError, Code: "UNSUPPORTED", Message: "internal error"}
	errTooManyUpload = &Error{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "too many uploads in progress", Header: http.Header{"Retry-After": {"10"}}}
)

// ErrUploadBusy is returned by a store when another caller holds the lease on
// an upload. As with any chunk that is out of order, the client is to ask for
// the upload's status and go on from there.
var ErrUploadBusy = &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_INVALID", Message: "another request is writing to this upload"}

// ErrTooLarge is returned where content is larger than a limit allows: RFC
// 9110 section 15.5.14.
var ErrTooLarge = &Error{Status: http.StatusRequestEntityTooLarge, Code: "SIZE_INVALID", Message: "content too large"}

// ErrUnavailable is returned by a store whose backend can't be reached, or does
// not answer in time. The client is to try again later: RFC 9110 section
// 15.6.4.
var ErrUnavailable = &Error{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "the registry's storage is unavailable", Header: http.Header{"Retry-After": {"5"}}}

// maxErrors bounds the errors in one answer.
const maxErrors = 10

// WriteError answers r with err in the shape of the spec's section "Error
// Codes", and without a body where r is a HEAD request. It must be called
// before anything else was written. Errors joined by errors.Join are listed one
// by one under the status of the first, those that wrap no *Error left out.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	var body struct {
		Errors []entry `json:"errors"`
	}
	first, all := shaped(err)
	for _, err := range all {
		var e *Error
		errors.As(err, &e)
		body.Errors = append(body.Errors, entry{e.Code, err.Error()})
	}
	h := w.Header()
	for k, v := range first.Header {
		h[k] = v
	}
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Del("Etag") // of the content that this answer is not
	w.WriteHeader(first.Status)
	if r.Method == http.MethodHead {
		return
	}
	b, _ := json.Marshal(body) // strings alone: cannot fail
	w.Write(b)
}

// shaped returns the *Error that decides the answer's status, and the errors
// to list, each of which wraps an *Error.
func shaped(err error) (first *Error, all []error) {
	for _, err := range flatten(nil, err) {
		e := (*Error)(nil)
		if !errors.As(err, &e) {
			continue // not for the client
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

// flatten appends the errors that were joined, however deep.
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
