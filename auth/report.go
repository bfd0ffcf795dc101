// SPDX-License-Identifier: Apache-2.0

// Reports to handlers in front of this package's, such as a log.

package auth

import "context"

// Report is the result of authenticating a request: see [WithReport].
type Report struct {
	// User is the user's name, empty for a client without credentials. If Err
	// is not nil, the client may only have claimed to be that user.
	User string
	// Err is the reason why the request was rejected, nil if it was not. It
	// may contain details that the client did not get.
	Err error
}

type reportKey struct{}

// WithReport returns a context for a request, and the report that [Basic],
// [Bearer] and [TokenServer] fill in when they serve the request. It is for
// handlers in front of them, such as a log of rejected requests. The report may be
// read once the inner handler has returned.
func WithReport(ctx context.Context) (context.Context, *Report) {
	r := new(Report)
	return context.WithValue(ctx, reportKey{}, r), r
}

// report fills in the report of a request's context, if it has one.
func report(ctx context.Context, user string, err error) {
	if r, ok := ctx.Value(reportKey{}).(*Report); ok {
		*r = Report{User: user, Err: err}
	}
}
