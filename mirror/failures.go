// SPDX-License-Identifier: Apache-2.0

// The failures of upstreams, and the responses that clients get.

package mirror

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/berth-oci/registry"
)

// failure is a call that an upstream did not serve.
type failure struct {
	kind       kind
	upstream   string
	status     int // of the upstream's response, if there was one
	retryAfter time.Duration
	err        error
}

// kind is a kind of failure.
type kind int

const (
	unreachable kind = iota // no connection, or a broken one
	timeout                 // no response in time
	denied                  // 401 with a new token, or 403
	missing                 // 404
	limited                 // 429
	broken                  // 5xx, and responses that are not a registry's
)

func (f *failure) Error() string { return "the upstream " + f.upstream + " " + f.reason() }

func (f *failure) Unwrap() error { return f.err }

// reason returns the end of a sentence that begins with the upstream. It has nothing of
// the upstream's response, which may contain secrets, nor its address.
func (f *failure) reason() string {
	switch f.kind {
	case unreachable:
		return "can't be reached"
	case timeout:
		return "does not respond in time"
	case denied:
		return "denies access"
	case missing:
		return "does not have it"
	case limited:
		return "limits the rate of requests"
	}
	if errors.As(f.err, new(credentialError)) {
		return "requires credentials, which can't be read"
	}
	if f.status != 0 {
		return "responds with the status " + strconv.Itoa(f.status)
	}
	return "sends what is not the content"
}

// logged returns the cause for the log, without the queries of URLs: those of signed ones
// give access to content.
func (f *failure) logged() string {
	if f.err == nil {
		return ""
	}
	return queries.ReplaceAllString(f.err.Error(), "?…")
}

var queries = regexp.MustCompile(`\?[^\s"]+`)

// response returns the error that a client gets for content that is not stored. The
// error unknown says that there is no such content.
func (f *failure) response(unknown error) error {
	switch f.kind {
	case missing:
		return unknown
	case denied:
		return fmt.Errorf("%w: %s", registry.ErrDenied, f.Error())
	case limited:
		return &registry.Error{Status: http.StatusTooManyRequests, Code: registry.ErrTooManyRequests.Code, Message: f.Error(), RetryAfter: max(f.retryAfter, time.Second)}
	case timeout:
		return &registry.Error{Status: http.StatusGatewayTimeout, Code: registry.ErrUnavailable.Code, Message: f.Error()}
	}
	return &registry.Error{Status: http.StatusBadGateway, Code: registry.ErrUnavailable.Code, Message: f.Error()}
}

// hides reports whether what is stored may not be served instead.
func (f *failure) hides(u *upstream) bool {
	switch f.kind {
	case denied:
		return u.Private
	case missing:
		return !u.KeepDeleted
	}
	return false
}

// failure returns the failure of a call of u that has ended with err.
func (u *upstream) failure(err error) *failure {
	f := failureOf(err)
	f.upstream = u.Name
	return f
}

// notContent returns the failure of a response that is not the content that was asked for.
func notContent(format string, args ...any) *failure {
	return &failure{kind: broken, err: fmt.Errorf(format, args...)}
}

// failureOf returns the failure of a request without a response.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	f = &failure{kind: unreachable, err: err}
	var status *errcode.ErrorResponse // of the token server
	var network net.Error
	switch {
	case errors.As(err, &status):
		f.kind, f.status = kindOf(status.StatusCode), status.StatusCode
		if f.kind == missing {
			f.kind = broken
		}
		if f.kind == limited {
			f.retryAfter = defaultRetryAfter
		}
	case errors.As(err, new(credentialError)):
		f.kind = broken
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		f.kind = denied
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		f.kind = timeout
	}
	return f
}

// kindOf returns the kind of a failure with a status.
func kindOf(status int) kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return denied
	case http.StatusNotFound, http.StatusGone:
		return missing
	case http.StatusTooManyRequests:
		return limited
	}
	return broken
}

// check returns an error of type *failure unless a response has content.
func (u *upstream) check(resp *http.Response, c call) error {
	switch {
	case resp.StatusCode == http.StatusOK:
		// A login page or a proxy's error would be kept as content.
		if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t == "text/html" {
			return notContent("a page of HTML")
		}
		return nil
	case resp.StatusCode == http.StatusPartialContent && c.from > 0:
		return nil
	}
	f := &failure{kind: kindOf(resp.StatusCode), status: resp.StatusCode, err: errors.New(resp.Status)}
	if f.kind == limited {
		f.retryAfter = retryAfter(resp.Header)
	}
	return f
}

const (
	defaultRetryAfter = time.Minute
	maxRetryAfter     = 24 * time.Hour
)

// retryAfter returns the time of the header Retry-After: RFC 9110 section 10.2.3.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	wait := defaultRetryAfter
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, time.Second), maxRetryAfter)
}
