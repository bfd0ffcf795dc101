// SPDX-License-Identifier: Apache-2.0

// Eviction of the least recently used content that was fetched.

package mirror

import (
	"container/list"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// entry is a blob or a manifest that was fetched.
type entry struct {
	digest   digest.Digest
	size     int64
	manifest bool
	repos    []string // of the store
}

// usage knows the fetched content in the order of its last use, if that is bounded.
type usage struct {
	max int64

	mu      sync.Mutex
	loaded  bool
	total   int64
	entries map[digest.Digest]*list.Element // of *entry
	order   *list.List                      // the most recently used first
}

func (u *usage) init(max int64) {
	u.max = max
	u.entries, u.order = make(map[digest.Digest]*list.Element), list.New()
}

// Bytes returns the number of bytes of fetched content; 0 if that is unlimited, and so not
// counted.
func (m *Mirror) Bytes() int64 {
	m.usage.mu.Lock()
	defer m.usage.mu.Unlock()
	return m.usage.total
}

// use notes a use of content.
func (u *usage) use(d digest.Digest) {
	if u.max == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if e := u.entries[d]; e != nil {
		u.order.MoveToFront(e)
	} else if !u.loaded {
		u.entries[d] = u.order.PushFront(&entry{digest: d}) // its size is found by load
	}
}

// add notes content that was stored in a repository. Its order is that of its last use.
func (u *usage) add(e entry, repo string, last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	element := u.entries[e.digest]
	switch {
	case element != nil:
		if !last {
			u.order.MoveToFront(element)
		}
	case last:
		element = u.order.PushBack(&entry{digest: e.digest})
	default:
		element = u.order.PushFront(&entry{digest: e.digest})
	}
	u.entries[e.digest] = element
	known := element.Value.(*entry)
	u.total += e.size - known.size
	known.size, known.manifest = e.size, e.manifest
	if !slices.Contains(known.repos, repo) {
		known.repos = append(known.repos, repo)
	}
}

// remove notes that a repository does not have content anymore.
func (u *usage) remove(repo string, d digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	element := u.entries[d]
	if element == nil {
		return
	}
	e := element.Value.(*entry)
	if e.repos = slices.DeleteFunc(e.repos, func(r string) bool { return r == repo }); len(e.repos) == 0 {
		u.drop(element)
	}
}

func (u *usage) drop(element *list.Element) {
	e := element.Value.(*entry)
	u.total -= e.size
	u.order.Remove(element)
	delete(u.entries, e.digest)
}

// victims removes, and returns, the entries that are too many.
func (u *usage) victims() []entry {
	u.mu.Lock()
	defer u.mu.Unlock()
	var victims []entry
	for u.loaded && u.total > u.max {
		element := u.order.Back()
		victims = append(victims, *element.Value.(*entry))
		u.drop(element)
	}
	return victims
}

// stored notes fetched content that was stored.
func (m *Mirror) stored(e entry, repo string) {
	if m.usage.max == 0 {
		return
	}
	m.usage.add(e, repo, false)
	m.evict()
}

// evict evicts what is too much.
func (m *Mirror) evict() {
	for _, v := range m.usage.victims() {
		for _, repo := range v.repos {
			remove := m.store.DeleteBlob
			if v.manifest {
				remove = m.store.DeleteManifest
			}
			if err := remove(m.ctx, repo, v.digest); err != nil && !isUnknown(err) {
				m.log.Warn("content was not evicted", "repository", repo, "digest", v.digest, "error", err)
				m.usage.add(v, repo, true)
			}
		}
	}
}

// load adds the content that an earlier process has fetched. Nothing is evicted before.
func (m *Mirror) load() {
	type found struct {
		entry
		repo string
		time time.Time
	}
	var all []found
	ctx := m.ctx
	failed := func(repo string, err error) bool {
		if err != nil && !isUnknown(err) && ctx.Err() == nil {
			m.log.Warn("content that was fetched is not counted", "repository", repo, "error", err)
		}
		return err != nil
	}
	for repo, err := range m.store.Repositories(ctx, CachePrefix) {
		if failed(repo, err) || !strings.HasPrefix(repo, CachePrefix) {
			break
		}
		for info, err := range m.store.Blobs(ctx, repo, "") {
			if !failed(repo, err) {
				all = append(all, found{entry{digest: info.Digest, size: info.Size}, repo, info.Time})
			}
		}
		for info, err := range m.store.Manifests(ctx, repo, "") {
			if !failed(repo, err) {
				all = append(all, found{entry{digest: info.Digest, size: info.Size, manifest: true}, repo, info.Time})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return b.time.Compare(a.time) })
	for _, f := range all {
		m.usage.add(f.entry, f.repo, true)
	}
	m.usage.mu.Lock()
	m.usage.loaded = true
	m.usage.mu.Unlock()
	m.evict()
}
