// SPDX-License-Identifier: Apache-2.0

// The names of upstreams and of their repositories.

package mirror

import (
	"errors"
	"strings"

	"github.com/berth-oci/registry"
)

// CachePrefix begins the names of the repositories of the store that hold what was
// fetched: that of nginx is mirror.cache/docker.io/library/nginx.
const CachePrefix = "mirror.cache/"

// upstreams are the upstreams by their names.
type upstreams struct {
	byName    map[string]*upstream
	byDefault *upstream // may be nil
}

// target is a repository as clients name it.
type target struct {
	local string    // where pushes go
	up    *upstream // nil if nothing mirrors it
	name  string    // at the upstream
	cache string    // where fetched content goes

	byDefault bool // the name does not say that it is the upstream's
}

// resolve returns the target of a name.
// Errors: ErrNameUnknown if the name is reserved.
func (m *Mirror) resolve(repo string) (target, error) {
	if strings.HasPrefix(repo, CachePrefix) {
		return target{}, errNotMirrored
	}
	all := m.current.Load()
	host, name, ok := strings.Cut(repo, "/")
	if up := all.byName[canonicalHost(host)]; ok && up != nil {
		if canonical := up.canonicalName(name); host != up.Name || canonical != name {
			name = canonical
			repo = up.Name + "/" + name
		}
		return m.allowed(target{local: repo, up: up, name: name, cache: CachePrefix + repo}), nil
	}
	if up := all.byDefault; up != nil {
		name := up.canonicalName(repo)
		return m.allowed(target{local: repo, up: up, name: name, cache: CachePrefix + up.Name + "/" + name, byDefault: true}), nil
	}
	return target{local: repo}, nil
}

// allowed returns t, without its upstream if that does not mirror the repository.
func (m *Mirror) allowed(t target) target {
	if !t.up.mirrors(t.name) {
		return target{local: t.local}
	}
	return t
}

// canonicalHost returns the name of a registry in the form that names of repositories
// can begin with. The registry docker.io has several names, and a port follows an
// underscore, since names have no colons.
func canonicalHost(host string) string {
	switch host = strings.ReplaceAll(strings.ToLower(host), ":", "_"); host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}

// canonicalName returns the name of a repository at the upstream: on docker.io, nginx
// is library/nginx.
func (u *upstream) canonicalName(name string) string {
	if u.hasShortNames() && !strings.Contains(name, "/") {
		return "library/" + name
	}
	return name
}

func (u *upstream) hasShortNames() bool { return u.Name == "docker.io" }

// moreSpecific returns the second of two errors, unless that only says that the repository is
// unknown.
func moreSpecific(first, second error) error {
	if first != nil && errors.Is(second, registry.ErrNameUnknown) {
		return first
	}
	return second
}

// isUnknown reports whether err says that the store does not have something.
func isUnknown(err error) bool {
	return errors.Is(err, registry.ErrNameUnknown) || errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrManifestUnknown)
}
