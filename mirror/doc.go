// SPDX-License-Identifier: Apache-2.0

// Package mirror makes a registry a pull-through cache of others, which also takes
// pushes.
//
//	m, err := mirror.New(store, mirror.Options{Upstreams: []mirror.Upstream{
//		{Name: "docker.io", URL: "https://registry-1.docker.io"},
//		{Name: "ghcr.io", URL: "https://ghcr.io"},
//	}})
//	...
//	handler := m.Handler(registry.New(registry.WithStore(m)))
//
// Clients name an upstream registry in three ways: with the parameter ns, as
// containerd and BuildKit do (/v2/library/nginx/…?ns=docker.io), as the first part of
// the repository's name (/v2/docker.io/library/nginx/…), or not at all, if it is
// [Options.Default], as the mirrors of dockerd.
//
// # Content
//
// Content that is stored is served without a call upstream. A tag is served as stored
// during its time to live; then one HEAD request asks whether it has moved. A missing
// blob is fetched once, however many clients ask for it; they read it while it arrives,
// and it is fetched to its end even if they leave. Everything is hashed on its way: of
// content with the wrong digest the last bytes are never sent, and nothing is stored.
//
// If an upstream fails, a stored tag is served as it is, with the header Warning. Without
// one, a client gets 502 if the upstream is unreachable or broken, 504 if it does not
// respond in time, 403 if it denies access, 404 if it does not have the content, and 429
// while it limits requests. Such an upstream is left in peace until its Retry-After.
//
// # Pushes
//
// Pushes stay here, and never go upstream. What is pushed is kept apart from what is
// fetched, so it is neither revalidated nor replaced nor evicted, and a pushed tag hides
// the upstream's. Lists of tags and referrers are merged with the upstream's; the catalog
// has what is stored here.
//
// Fetched content is in repositories whose names begin with [CachePrefix]. Clients see
// it by the names of the upstreams alone. An operator can delete it at any time.
package mirror
