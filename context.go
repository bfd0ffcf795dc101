// SPDX-License-Identifier: Apache-2.0

// Facts about a request that only middleware knows, passed to the handlers in
// the request's context.

package registry

import "context"

// pullScope is the context key of WithPullScope.
type pullScope struct{}

// WithPullScope returns a context for a request whose sender may pull only from
// the repositories for which may returns true. It is for middleware that
// authenticates: a mount (section "Mounting a blob from another repository")
// reads from repositories that the request's URL need not name.
//
// It panics if may is nil.
func WithPullScope(ctx context.Context, may func(repo string) bool) context.Context {
	if may == nil {
		panic("registry: WithPullScope requires a function")
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
