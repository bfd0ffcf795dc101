// SPDX-License-Identifier: Apache-2.0

// The options of New.

package registry

import (
	"fmt"
	"log"
	"log/slog"
	"net/url"
	"path"
)

// Option is an option of New.
type Option func(*config)

// config holds the options. The default is its zero value with referrers set.
type config struct {
	store      Store
	prefix     string
	namespaces map[string]Store
	limits     Limits
	sparse     bool
	clientIDs  bool
	readOnly   bool
	noDelete   bool
	referrers  bool
	warnings   []warning
	hooks      []func(Event)
}

// WithStore sets the Store that holds the registry's content. The default is an
// empty [MemStore] without limits.
func WithStore(s Store) Option {
	if s == nil {
		panic("registry: WithStore requires a store")
	}
	return func(c *config) { c.store = s }
}

// WithPrefix adds a path prefix, such as "/registry", to the URLs in responses
// (Location and Link). It is for a registry below [http.StripPrefix], or behind a
// proxy that removes the prefix from requests.
//
// It panics unless the prefix begins with a slash and is a clean path that does not
// end with one.
func WithPrefix(prefix string) Option {
	if (&url.URL{Path: prefix}).EscapedPath() != prefix || path.Clean("/"+prefix) != prefix || prefix == "/" {
		panic(fmt.Sprintf("registry: the prefix %q is not a path such as /registry", prefix))
	}
	return func(c *config) { c.prefix = prefix }
}

// WithNamespaces serves GET and HEAD requests whose ns parameter is a key of
// stores from that store, with OCI-Namespace (section "Registry Proxying"): one
// registry can stand in for several. Any other ns is ignored.
func WithNamespaces(stores map[string]Store) Option {
	for ns, s := range stores {
		if s == nil {
			panic(fmt.Sprintf("registry: the store of the namespace %q is nil", ns))
		}
	}
	return func(c *config) { c.namespaces = stores }
}

// WithLimits bounds requests and responses. The limits of a store are its own:
// for the default store, see [MemStore.Limits].
func WithLimits(l Limits) Option {
	return func(c *config) { c.limits = l }
}

// AllowSparse accepts incomplete manifests. Without it a manifest that names blobs
// or manifests missing from the repository is rejected with 404
// MANIFEST_BLOB_UNKNOWN (section "Push"), and one that lacks a member required by
// its type (an image's config and layers, an index's manifests) with 400
// MANIFEST_INVALID. A subject, a non-distributable layer, and a descriptor in an
// index whose type is not a manifest's may be missing in any case.
func AllowSparse() Option {
	return func(c *config) { c.sparse = true }
}

// ClientUploadIDs lets a PATCH or PUT name an upload session that no POST has
// opened, and opens it. Tests written for other registries do so.
func ClientUploadIDs() Option {
	return func(c *config) { c.clientIDs = true }
}

// ReadOnly rejects pushes and deletes with 405.
func ReadOnly() Option {
	return func(c *config) { c.readOnly = true }
}

// NoDelete rejects deletes of blobs, manifests and tags with 405. Uploads can
// still be cancelled.
func NoDelete() Option {
	return func(c *config) { c.noDelete = true }
}

// WithReferrersSupport turns the referrers API (section "Listing Referrers") on
// or off; it is on by default. With it off, the registry behaves like one of OCI
// 1.0, and clients fall back to the referrers tag schema.
func WithReferrersSupport(enabled bool) Option {
	return func(c *config) { c.referrers = enabled }
}

// WithWarning adds a Warning header with the text msg (section "Warnings") to
// responses, with the probability prob from 0 to 1.
func WithWarning(prob float64, msg string) Option {
	return func(c *config) { c.warnings = append(c.warnings, newWarning(prob, msg)) }
}

// Logger logs each request to l, on one line.
func Logger(l *log.Logger) Option {
	if l == nil {
		panic("registry: Logger requires a logger")
	}
	return func(c *config) { c.hooks = append(c.hooks, logTo(l)) }
}

// WithSlog logs each request to l: at level Info, at Warn if it is rejected, at
// Error if the registry has failed.
func WithSlog(l *slog.Logger) Option {
	if l == nil {
		panic("registry: WithSlog requires a logger")
	}
	return func(c *config) { c.hooks = append(c.hooks, slogTo(l)) }
}

// disabled reports whether the options disable op.
func (c *config) disabled(op Op) bool {
	switch op {
	case OpBlobDelete, OpManifestDelete:
		return c.noDelete || c.readOnly
	case OpManifestPut, OpBlobPush, OpBlobMount, OpUploadStart, OpUploadPatch, OpUploadPut, OpUploadCancel:
		return c.readOnly
	}
	return false
}
