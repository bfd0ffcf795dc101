// SPDX-License-Identifier: Apache-2.0

// Uses of content in a MemStore, and its Collector.

package registry

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// use notes that content is used, which a caller has found in before. It returns false if
// content was being collected just then, and this may be gone.
//
// A user notes the use and then looks whether content is being collected; a
// collection says so and then looks for uses. So one of the two sees the other. If the
// collection has ended, the user sees that the store has changed.
func (m *MemStore) use(u *lastUse, before *memContent) bool {
	u.touch()
	if m.collecting.Load() {
		m.mu.Lock() // wait for the collection
		m.unlock()
		return false
	}
	return m.content.Load() == before
}

// collectBatch is how much content is deleted at once: others wait as long.
const collectBatch = 100

// collect calls delete for batches of content in their order, with mu held. It deletes what
// has not been used.
func (m *MemStore) collect(ctx context.Context, content []digest.Digest, delete func([]digest.Digest)) error {
	for batch := range slices.Chunk(content, collectBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		func() {
			m.mu.Lock()
			defer m.unlock()
			m.collecting.Store(true)
			defer m.collecting.Store(false)
			delete(batch)
		}()
	}
	return nil
}

func (m *MemStore) StatBlob(_ context.Context, repo string, d digest.Digest) (Info, error) {
	before := m.content.Load()
	l, err := m.load().link(repo, d)
	if err == nil && !m.use(&l.used, before) {
		l, err = m.load().link(repo, d)
	}
	if err != nil {
		return Info{}, err
	}
	return l.info(d), nil
}

func (m *MemStore) StatManifest(_ context.Context, repo string, d digest.Digest) (Info, error) {
	before := m.content.Load()
	mf, err := m.load().manifest(repo, d)
	if err == nil && !m.use(mf.used, before) {
		mf, err = m.load().manifest(repo, d)
	}
	if err != nil {
		return Info{}, err
	}
	return mf.info(), nil
}

func (m *MemStore) Now(context.Context) (time.Time, error) { return time.Now(), nil }

func (m *MemStore) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) (deleted []Info, err error) {
	deleted = make([]Info, 0, len(blobs))
	err = m.collect(ctx, blobs, func(batch []digest.Digest) {
		unused := make([]digest.Digest, 0, len(batch))
		for _, d := range batch {
			l, err := m.load().link(repo, d)
			if err == nil && !l.used.since(since) && !slices.Contains(unused, d) {
				unused = append(unused, d)
				deleted = append(deleted, l.info(d))
			}
		}
		m.deleteBlobs(repo, unused...)
	})
	return deleted, err
}

func (m *MemStore) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) (deleted []Info, err error) {
	err = m.collect(ctx, manifests, func(batch []digest.Digest) {
		m.updateLocked(func(c *memContent) error {
			for _, d := range batch {
				mf, err := c.manifest(repo, d)
				if err == nil && mf.tags.Len() == 0 && !mf.used.since(since) && c.deleteManifest(repo, d) == nil {
					deleted = append(deleted, mf.info())
				}
			}
			return nil
		})
	})
	return deleted, err
}

// CollectRest ends the uploads that have expired: all else goes at once.
func (m *MemStore) CollectRest(context.Context, time.Time) (Collected, error) {
	m.mu.Lock()
	defer m.unlock()
	before := len(m.uploads)
	m.expire()
	return Collected{Uploads: before - len(m.uploads)}, nil
}
