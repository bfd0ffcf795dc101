// SPDX-License-Identifier: Apache-2.0

// Who may do what: what a request needs, and policies that grant it.

package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"path"
	"slices"
	"strings"

	"github.com/berth-oci/registry"
)

// Action is something that a user may do.
type Action string

const (
	// Pull is to read a repository: blobs, manifests, tags and referrers.
	Pull Action = "pull"
	// Push is to add to a repository, and to move its tags.
	Push Action = "push"
	// Create is Push without the right to move a tag that is there.
	Create Action = "create"
	// Delete is to delete blobs, manifests and tags.
	Delete Action = "delete"
	// Catalog is to list the repositories, all of them. It is asked for with
	// no repository.
	Catalog Action = "catalog"
)

// Policy tells whether a user may do something in a repository. The user is
// empty for a client without credentials, the repository for Catalog. It is
// asked for Create only where it denies Push. A nil Policy lets every user do
// everything, and a client without credentials nothing.
type Policy func(user, repo string, action Action) bool

func (p Policy) allows(user, repo string, action Action) bool {
	if p == nil {
		return user != ""
	}
	return p(user, repo, action)
}

// Rules are a policy: what no rule grants is denied.
type Rules []Rule

// Rule grants actions.
type Rule struct {
	// User is the user's name; "" is a client without credentials, and "*" is
	// everyone, these included.
	User string
	// Repo is a pattern of repositories' names, as of path.Match: a "*"
	// stands for a name's component or a part of it. After a last "/**" comes
	// anything, and "**" alone is every repository. Catalog needs none.
	Repo string
	// Actions are what is granted.
	Actions []Action
}

// Allow is the rules' Policy.
func (rules Rules) Allow(user, repo string, action Action) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return (r.User == "*" || r.User == user) &&
			slices.Contains(r.Actions, action) &&
			(action == Catalog || matchRepo(r.Repo, repo))
	})
}

func matchRepo(pattern, repo string) bool {
	if pattern == "**" {
		return true
	}
	if parent, ok := strings.CutSuffix(pattern, "/**"); ok {
		components := strings.Count(parent, "/") + 1
		rest := strings.Split(repo, "/")
		if len(rest) <= components {
			return false
		}
		pattern, repo = parent, strings.Join(rest[:components], "/")
	}
	ok, err := path.Match(pattern, repo)
	return ok && err == nil
}

// Users are users with their passwords, as they are: for tests, and for
// programs that get them so. A program that keeps passwords of others checks
// them by a function of its own, against hashes.
type Users map[string]string

// Check reports whether user has the given password, in a time that tells
// neither whether there is such a user nor how much of the password is right.
func (u Users) Check(user, password string) bool {
	want, known := u[user]
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && known
}

// access is what a request needs: an action, in a repository but for Catalog.
// Its zero value is no more than to be somebody.
type access struct {
	repo   string
	action Action
}

// needs returns what req needs. A request that is malformed, or for nothing
// in the spec, needs nothing: whatever it is answered tells nothing.
func needs(req registry.Request) access {
	switch req.Op {
	case registry.OpBlobGet, registry.OpBlobHead, registry.OpManifestGet, registry.OpManifestHead,
		registry.OpTags, registry.OpReferrers:
		return access{req.Repo, Pull}
	case registry.OpBlobPush, registry.OpBlobMount, registry.OpManifestPut, registry.OpUploadStart,
		registry.OpUploadPatch, registry.OpUploadPut, registry.OpUploadStatus, registry.OpUploadCancel:
		return access{req.Repo, Push}
	case registry.OpBlobDelete, registry.OpManifestDelete:
		return access{req.Repo, Delete}
	case registry.OpCatalog:
		return access{"", Catalog}
	}
	return access{}
}

// admit tells whether may grants what is needed, and returns the context that
// the registry is to serve the request in.
func admit(ctx context.Context, need access, may func(repo string, action Action) bool) (context.Context, bool) {
	switch {
	case need.action == "" || may(need.repo, need.action):
	case need.action == Push && may(need.repo, Create):
		ctx = registry.WithImmutableTags(ctx)
	default:
		return ctx, false
	}
	return registry.WithPullScope(ctx, func(repo string) bool { return may(repo, Pull) }), true
}

type userKey struct{}

// User returns the name of the user whose request has the given context, empty
// for a client without credentials. It is for the log, say, of a handler
// behind Basic or Bearer.
func User(ctx context.Context) string {
	user, _ := ctx.Value(userKey{}).(string)
	return user
}

func withUser(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}
