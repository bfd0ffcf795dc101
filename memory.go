// SPDX-License-Identifier: Apache-2.0

// MemStore, the default store, which keeps its content in memory.

package registry

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/tree"
)

// MemStore is a Store in memory. Its zero value is empty and ready for use; it
// starts no goroutine and need not be closed. It must not be copied: see Clone.
//
// Its content is one immutable value. A reader takes the current value and needs
// no lock; a writer makes the next one.
type MemStore struct {
	// Limits bounds the store. It must not be changed once the store is in
	// use.
	Limits MemLimits

	content    atomic.Pointer[memContent] // nil: empty; replaced with mu held
	collecting atomic.Bool                // content is collected just now; set with mu held

	mu       sync.Mutex // guards the fields below, and writes to content; see unlock
	uploads  map[uploadKey]*memUpload
	byUse    list.List // of all *memUpload, the longest idle first
	reserved memBytes  // by uploads, and by deleted blobs that are still read
	unused   []*os.File
}

var _ Store = (*MemStore)(nil)

// Clone returns a store with the same content and limits, without the uploads, and
// without the function Limits.Collect, which frees memory of this store. It copies
// nothing, however large the content, but visits the blobs in temporary files: from then
// on, each of the two stores keeps its own changes. A use of content that both still have
// counts in both, see Info.
func (m *MemStore) Clone() *MemStore {
	m.mu.Lock() // no file may be closed meanwhile
	defer m.unlock()
	for _, b := range m.load().files.After("") {
		b.retain()
	}
	c := &MemStore{Limits: m.Limits}
	c.Limits.Collect = nil
	c.content.Store(m.content.Load())
	return c
}

// close closes f, unless it is nil, when mu is unlocked. It must be called with
// mu held.
func (m *MemStore) close(f *os.File) {
	if f != nil {
		m.unused = append(m.unused, f)
	}
}

// unlock unlocks mu, and then closes the files that are not used any more: that
// takes time if they are large.
func (m *MemStore) unlock() {
	unused := m.unused
	m.unused = nil
	m.mu.Unlock()
	for _, f := range unused {
		f.Close()
	}
}

// memoryLimit returns the number of bytes that the store may have in memory, 0 if
// it is unlimited.
func (m *MemStore) memoryLimit() int64 { return m.Limits.memory() }

// load returns the current content.
func (m *MemStore) load() memContent {
	if c := m.content.Load(); c != nil {
		return *c
	}
	return memContent{}
}

// update applies change to the content, unless it fails or exceeds a limit.
func (m *MemStore) update(change func(*memContent) error) error {
	return m.withSpace(func() error {
		m.mu.Lock()
		defer m.unlock()
		return m.updateLocked(change)
	})
}

// withSpace calls f, and again as long as it fails because the store is full, and
// Limits.Collect has freed memory. It must not be called with mu held.
func (m *MemStore) withSpace(f func() error) error {
	for {
		err := f()
		if m.Limits.Collect == nil || !errors.Is(err, ErrTooLarge) || !m.Limits.Collect() {
			return err
		}
	}
}

// updateLocked is update for callers that hold mu.
func (m *MemStore) updateLocked(change func(*memContent) error) error {
	before := m.load()
	c := before
	if err := change(&c); err != nil {
		return err
	}
	if c.bytes.all > before.bytes.all {
		m.expire()
		if err := m.checkCapacity(c.bytes, 0, false); err != nil {
			return err
		}
	}
	uses := c.uses
	c.uses = nil
	m.content.Store(&c)
	// Not before: a collection that does not see the change must see the uses as
	// later than its beginning.
	for _, used := range uses {
		used.touch()
	}
	return nil
}

// checkCapacity returns an error if more bytes, in addition to those of content
// and of the uploads, would exceed a limit. It must be called with mu held.
func (m *MemStore) checkCapacity(content memBytes, more int64, onDisk bool) error {
	if limit := m.Limits.TotalBytes; limit > 0 && content.all+m.reserved.all+more > limit {
		return fmt.Errorf("%w: the registry is full, its limit is %d bytes", ErrTooLarge, limit)
	}
	if limit := m.Limits.MemoryBytes; limit > 0 && !onDisk && content.memory()+m.reserved.memory()+more > limit {
		return fmt.Errorf("%w: the registry's memory is full, its limit is %d bytes", ErrTooLarge, limit)
	}
	return nil
}

func (*MemStore) inMemory() {}

func (m *MemStore) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	before := m.content.Load()
	l, err := m.load().link(repo, d)
	if err != nil {
		return nil, err
	}
	l.readers.Add(1)
	if now := m.content.Load(); now != before {
		if owners, ok := now.blobs.Get(string(d)); !ok || owners.storedBlob != l.storedBlob {
			l.closeReader() // it was deleted before the reader counted
			return nil, ErrBlobUnknown
		}
	}
	return &memReader{memBlob: l.memBlob, stored: l.storedBlob}, nil
}

func (m *MemStore) Blobs(_ context.Context, repo string, after digest.Digest) iter.Seq2[Info, error] {
	return listInfo(m, repo, func(r memRepo, yield func(Info, error) bool) {
		for d, l := range r.blobs.After(string(after)) {
			if !yield(l.info(digest.Digest(d)), nil) {
				return
			}
		}
	})
}

func (m *MemStore) MountBlob(_ context.Context, repo, from string, d digest.Digest) error {
	return m.update(func(c *memContent) error {
		l, err := c.link(from, d)
		if err != nil {
			return err
		}
		c.addBlob(repo, d, l.storedBlob)
		return nil
	})
}

func (m *MemStore) FindBlob(_ context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		owners, ok := m.load().blobs.Get(string(d))
		if !ok {
			return
		}
		for repo := range owners.repos.All() {
			if !yield(repo, nil) {
				return
			}
		}
	}
}

func (m *MemStore) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	m.mu.Lock()
	defer m.unlock()
	return m.deleteBlobs(repo, d)
}

// deleteBlobs deletes blobs of a repository. It must be called with mu held.
// Errors: those of MemStore.DeleteBlob, if one of them does not exist.
func (m *MemStore) deleteBlobs(repo string, blobs ...digest.Digest) error {
	var unused []*storedBlob
	err := m.updateLocked(func(c *memContent) (err error) {
		unused, err = c.deleteBlobs(repo, blobs)
		return err
	})
	for _, b := range unused {
		isRead, file := b.release(func() { m.forget(b) })
		if isRead {
			m.reserved = m.reserved.plus(b.size, b.onDisk())
		}
		m.close(file)
	}
	return err
}

// forget stops counting a deleted blob, whose last reader was closed.
func (m *MemStore) forget(b *storedBlob) {
	m.mu.Lock()
	defer m.unlock()
	m.reserved = m.reserved.plus(-b.size, b.onDisk())
}

func (m *MemStore) GetManifest(_ context.Context, repo string, d digest.Digest) (Manifest, error) {
	mf, err := m.load().manifest(repo, d)
	if err != nil {
		return Manifest{}, err
	}
	return mf.Manifest, nil
}

func (m *MemStore) GetTag(_ context.Context, repo, tag string) (Manifest, error) {
	r, err := m.load().repo(repo)
	if err != nil {
		return Manifest{}, err
	}
	d, ok := r.tags.Get(tag)
	if !ok {
		return Manifest{}, ErrManifestUnknown
	}
	mf, _ := r.manifests.Get(string(d)) // r is one value, so it has the tag's manifest
	return mf.Manifest, nil
}

func (m *MemStore) PutManifest(_ context.Context, repo string, mf Manifest, tags []string, allow AllowFunc) error {
	return m.update(func(c *memContent) error { return c.putManifest(repo, mf, tags, allow) })
}

func (m *MemStore) DeleteManifest(_ context.Context, repo string, d digest.Digest) error {
	return m.update(func(c *memContent) error { return c.deleteManifest(repo, d) })
}

func (m *MemStore) DeleteTag(_ context.Context, repo, tag string, allow AllowFunc) error {
	return m.update(func(c *memContent) error { return c.deleteTag(repo, tag, allow) })
}

func (m *MemStore) Manifests(_ context.Context, repo string, after digest.Digest) iter.Seq2[Info, error] {
	return listInfo(m, repo, func(r memRepo, yield func(Info, error) bool) {
		for _, mf := range r.manifests.After(string(after)) {
			if !yield(mf.info(), nil) {
				return
			}
		}
	})
}

// listInfo returns the list that walk yields of a repository.
func listInfo(m *MemStore, repo string, walk func(r memRepo, yield func(Info, error) bool)) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		r, err := m.load().repo(repo)
		if err != nil {
			yield(Info{}, err)
			return
		}
		walk(r, yield)
	}
}

func (m *MemStore) Tags(_ context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		r, err := m.load().repo(repo)
		if err != nil {
			yield("", err)
			return
		}
		yieldKeys(r.tags, after, yield)
	}
}

func (m *MemStore) Referrers(_ context.Context, repo string, subject, after digest.Digest) iter.Seq2[Referrer, error] {
	return func(yield func(Referrer, error) bool) {
		r, _ := m.load().repo(repo)
		list, _ := r.referrers.Get(string(subject))
		for _, referrer := range list.After(string(after)) {
			if !yield(referrer, nil) {
				return
			}
		}
	}
}

func (m *MemStore) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		yieldKeys(m.load().repos, after, yield)
	}
}

// yieldKeys yields the keys of a map after a key.
func yieldKeys[V any](t tree.Map[V], after string, yield func(string, error) bool) {
	for key := range t.After(after) {
		if !yield(key, nil) {
			return
		}
	}
}
