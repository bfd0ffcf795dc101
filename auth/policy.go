// SPDX-License-Identifier: Apache-2.0

// Authorization: the right that a request needs, and policies that grant it.

package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/pattern"
)

// Action is a right in a repository, or the right to list them.
type Action string

const (
	// Pull is the right to read a repository: its blobs, manifests, tags and
	// referrers.
	Pull Action = "pull"
	// Push is the right to add to a repository and to move its tags.
	Push Action = "push"
	// Create is Push without the right to move existing tags, in Rules and
	// Grants. A Policy is called for Push instead, and returns ErrCreateOnly.
	Create Action = "create"
	// Delete is the right to delete blobs, manifests and tags.
	Delete Action = "delete"
	// Catalog is the right to list all repositories.
	Catalog Action = "catalog"
)

// ErrCreateOnly is returned by a [Policy] for Push if the user may create tags but
// not move them. A push that would move a tag is rejected. For other actions it
// is an ordinary denial.
var ErrCreateOnly = fmt.Errorf("%w: existing tags may not be moved", registry.ErrDenied)

// Policy decides whether a user may take an action. It returns nil to allow it,
// registry.ErrDenied (or an error that wraps it) to deny it, and any other error
// if the policy fails: see the package documentation. The user is empty for a
// client without credentials. A nil Policy allows users everything, and clients
// without credentials nothing.
//
// [Basic] passes the parsed request. For Catalog its Repo is empty; the tags of a
// push are in Tag or in Tags. In two cases only Repo is set:
//   - A [TokenServer] issues tokens that are valid for every request to a
//     repository. A policy that distinguishes requests by more than Repo can't
//     protect a registry behind [Bearer].
//   - A mount requires Pull in the repository that it reads from. Any error
//     denies it.
type Policy func(ctx context.Context, user string, action Action, req registry.Request) error

func (p Policy) check(ctx context.Context, user string, action Action, req registry.Request) error {
	switch {
	case p != nil:
		return p(ctx, user, action, req)
	case user == "":
		return registry.ErrDenied
	}
	return nil
}

// isDenied reports whether err is a policy's denial, rather than a failure.
func isDenied(err error) bool {
	return errors.Is(err, registry.ErrDenied) || errors.Is(err, registry.ErrUnauthorized)
}

// Rules provide a Policy that denies everything that no rule grants.
type Rules []Rule

// Rule grants actions.
type Rule struct {
	// User is the user's name; "" is a client without credentials, and "*" is
	// everyone, including clients without credentials.
	User string
	// Repo is a pattern for the names of repositories in the syntax of
	// path.Match: "*" matches a component of a name, or a part of one. A final
	// "/**" matches one or more components, and "**" alone every repository.
	// It is ignored for Catalog.
	Repo string
	// Actions are granted by the rule.
	Actions []Action
}

// Allow is a [Policy]. It ignores everything in the request except Repo.
func (rules Rules) Allow(_ context.Context, user string, action Action, req registry.Request) error {
	switch {
	case rules.grant(user, action, req.Repo):
		return nil
	case action == Push && rules.grant(user, Create, req.Repo):
		return ErrCreateOnly
	}
	return registry.ErrDenied
}

func (rules Rules) grant(user string, action Action, repo string) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return (r.User == "*" || r.User == user) &&
			slices.Contains(r.Actions, action) &&
			(action == Catalog || pattern.Match(r.Repo, repo))
	})
}

// neededAction returns the action that req takes in req.Repo. It is empty for
// /v2/, for a malformed request and for one outside the spec: any user may send
// those, since the responses reveal nothing.
func neededAction(req registry.Request) Action {
	switch req.Op {
	case registry.OpBlobGet, registry.OpBlobHead, registry.OpManifestGet, registry.OpManifestHead,
		registry.OpTags, registry.OpReferrers:
		return Pull
	case registry.OpBlobPush, registry.OpBlobMount, registry.OpManifestPut, registry.OpUploadStart,
		registry.OpUploadPatch, registry.OpUploadPut, registry.OpUploadStatus, registry.OpUploadCancel:
		return Push
	case registry.OpBlobDelete, registry.OpManifestDelete:
		return Delete
	case registry.OpCatalog:
		return Catalog
	}
	return ""
}

// admit checks that the client may take action, and returns the context in which
// the registry serves req. Errors: those of check.
func admit(ctx context.Context, action Action, req registry.Request, check func(Action, registry.Request) error) (context.Context, error) {
	if action != "" {
		switch err := check(action, req); {
		case action == Push && errors.Is(err, ErrCreateOnly):
			ctx = registry.WithImmutableTags(ctx)
		case err != nil:
			return ctx, err
		}
	}
	return registry.WithPullScope(ctx, func(repo string) bool {
		return check(Pull, registry.Request{Repo: repo}) == nil
	}), nil
}

type userKey struct{}

// User returns the name of the user who sent the request with the context ctx,
// "" for a client without credentials. It is for handlers behind [Basic] or
// [Bearer]. Handlers in front of them use [registry.Observe].
func User(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

// WithUser returns a context in which [User] returns user. It is for handlers that
// authenticate clients by other means than [Basic] and [Bearer], such as certificates, in
// front of [Require].
func WithUser(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}
