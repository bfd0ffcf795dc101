// SPDX-License-Identifier: Apache-2.0

// Facts about a request in its context: those that only middleware knows, for the
// handlers, and those that the handlers report to Observe.

package registry

import "context"

// pullScope is the context key of WithPullScope.
type pullScope struct{}

// WithPullScope returns a context for a request whose sender may pull only from
// the repositories for which may returns true. It is for middleware that
// authenticates: a mount (section "Mounting a blob from another repository")
// reads from repositories that the request's URL need not name. If ctx has a pull scope
// already, both must allow a repository.
//
// It panics if may is nil.
func WithPullScope(ctx context.Context, may func(repo string) bool) context.Context {
	if may == nil {
		panic("registry: WithPullScope requires a function")
	}
	if outer, ok := ctx.Value(pullScope{}).(func(string) bool); ok {
		inner := may
		may = func(repo string) bool { return outer(repo) && inner(repo) }
	}
	return context.WithValue(ctx, pullScope{}, may)
}

func mayPull(ctx context.Context, repo string) bool {
	may, ok := ctx.Value(pullScope{}).(func(string) bool)
	return !ok || may(repo)
}

// immutableTags is the context key of WithImmutableTags.
type immutableTags struct{}

// WithImmutableTags returns a context for a push whose sender may create tags
// but not move them: a push that would move a tag is rejected with 403 DENIED.
func WithImmutableTags(ctx context.Context) context.Context {
	return context.WithValue(ctx, immutableTags{}, true)
}

func tagsAreImmutable(ctx context.Context) bool {
	return ctx.Value(immutableTags{}) != nil
}

// report is what handlers report to Observe.
type report struct {
	user string
	err  error
	size int64 // of the content, -1 if it is not known
}

type reportKey struct{}

func reportOf(ctx context.Context) *report {
	r, _ := ctx.Value(reportKey{}).(*report)
	return r
}

// ReportUser reports the name of a request's user to [Observe]. It is for middleware
// that authenticates. The last report counts.
func ReportUser(ctx context.Context, name string) {
	if r := reportOf(ctx); r != nil {
		r.user = name
	}
}

// ReportError reports an error to [Observe]. It is for middleware whose responses
// leave out details that a log should have: [WriteError] reports its error itself,
// unless another was reported before.
func ReportError(ctx context.Context, err error) {
	if r := reportOf(ctx); r != nil {
		r.err = err
	}
}
