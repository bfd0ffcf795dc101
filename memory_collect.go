// SPDX-License-Identifier: Apache-2.0

// Uses of content in a MemStore, and its Collector.

package registry

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// use notes that content is used. It returns false if the content was being
// collected just then, and may be gone.
//
// A user notes the use and then looks whether the content is being collected; a
// collection says so and then looks for uses. So one of the two sees the other.
func (m *MemStore) use(u *lastUse) bool {
	u.touch()
	if m.collecting.Load() != u {
		return true
	}
	m.mu.Lock() // wait for the collection
	m.unlock()
	return false
}

// collect calls delete unless the content with the given use was used since a time,
// and reports whether it has deleted it. It must be called with mu held.
func (m *MemStore) collect(u *lastUse, since time.Time, delete func() error) bool {
	m.collecting.Store(u)
	defer m.collecting.Store(nil)
	return !u.since(since) && delete() == nil
}

func (m *MemStore) StatBlob(_ context.Context, repo string, d digest.Digest) (Info, error) {
	l, err := m.load().link(repo, d)
	if err == nil && !m.use(l.used) {
		l, err = m.load().link(repo, d)
	}
	if err != nil {
		return Info{}, err
	}
	return l.info(d), nil
}

func (m *MemStore) StatManifest(_ context.Context, repo string, d digest.Digest) (Info, error) {
	mf, err := m.load().manifest(repo, d)
	if err == nil && !m.use(mf.used) {
		mf, err = m.load().manifest(repo, d)
	}
	if err != nil {
		return Info{}, err
	}
	return mf.info(), nil
}

func (m *MemStore) Now(context.Context) (time.Time, error) { return time.Now(), nil }

func (m *MemStore) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]Info, error) {
	return m.collectEach(ctx, blobs, func(d digest.Digest) (info Info, ok bool) {
		l, err := m.load().link(repo, d)
		if err != nil {
			return info, false
		}
		return l.info(d), m.collect(l.used, since, func() error { return m.deleteBlob(repo, d) })
	})
}

func (m *MemStore) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]Info, error) {
	return m.collectEach(ctx, manifests, func(d digest.Digest) (info Info, ok bool) {
		mf, err := m.load().manifest(repo, d)
		if err != nil || mf.tags.Len() > 0 {
			return info, false
		}
		return mf.info(), m.collect(mf.used, since, func() error {
			return m.updateLocked(func(c *memContent) error { return c.deleteManifest(repo, d) })
		})
	})
}

// collectEach calls a function that deletes content, with mu held, for each. It returns
// the content that was deleted.
func (m *MemStore) collectEach(ctx context.Context, content []digest.Digest, collect func(digest.Digest) (Info, bool)) ([]Info, error) {
	var deleted []Info
	for _, d := range content {
		if err := ctx.Err(); err != nil {
			return deleted, err
		}
		m.mu.Lock()
		if info, ok := collect(d); ok {
			deleted = append(deleted, info)
		}
		m.unlock()
	}
	return deleted, nil
}

// CollectRest ends the uploads that have expired: all else goes at once.
func (m *MemStore) CollectRest(context.Context, time.Time) (Collected, error) {
	m.mu.Lock()
	defer m.unlock()
	before := len(m.uploads)
	m.expire()
	return Collected{Uploads: before - len(m.uploads)}, nil
}
