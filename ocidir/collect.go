// SPDX-License-Identifier: Apache-2.0

// Garbage collection: uses of content, and the store's registry.Collector.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// A use of content is the modification time of its file, to within usePrecision: half
// of it for content that is not touched again so soon, and a quarter each for touches
// that overtake each other and for the time until a manifest that names it is visible.
const usePrecision = time.Second

// collector is the state of collections.
type collector struct {
	mu      sync.Mutex                 // held while content is collected
	current atomic.Pointer[collection] // set with mu held
}

// wait waits for the collection in progress.
func (c *collector) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
}

// collection is content that is collected just now.
type collection struct {
	repo    string
	content map[digest.Digest]bool
}

// use notes that content is used whose time is known. It returns false if the content
// was being collected just then, and may be gone.
//
// A user notes the use and then looks whether the content is being collected; a
// collection says so and then looks for uses. So one of the two sees the other.
func (s *Store) use(repo string, used registry.Info) (bool, error) {
	if time.Since(used.Time) > usePrecision/2 {
		err := s.touchUsed(contentPath(repoDir(repo), used.Digest))
		if isMissing(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	if c := s.collector.current.Load(); c == nil || c.repo != repo || !c.content[used.Digest] {
		return true, nil
	}
	s.collector.wait()
	return false, nil
}

// touchUsed sets the modification time of a file to now, to within usePrecision: while
// it does, another use may have set it to a later time.
func (s *Store) touchUsed(name string) error {
	for {
		now := time.Now()
		if err := s.touch(name); err != nil || time.Since(now) < usePrecision/4 {
			return err
		}
	}
}

// stat returns the result of a function that returns facts about content, which it
// notes as used.
func (s *Store) stat(ctx context.Context, repo string, d digest.Digest, stat func(context.Context, string, digest.Digest) (registry.Info, error)) (registry.Info, error) {
	info, err := stat(ctx, repo, d)
	if err != nil {
		return info, err
	}
	if ok, err := s.use(repo, info); ok || err != nil {
		return info, err
	}
	return stat(ctx, repo, d)
}

func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	return s.stat(ctx, repo, d, s.reader.StatBlob)
}

func (s *Store) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	return s.stat(ctx, repo, d, s.reader.StatManifest)
}

// useChildren notes that m names content of the repository.
// Errors: ErrManifestBlobUnknown if the repository lacks some of its blobs.
func (t *txn) useChildren(m registry.Manifest) error {
	for i, d := range append(m.Blobs[:len(m.Blobs):len(m.Blobs)], m.Manifests...) {
		if _, pending := t.pending.Get(string(d)); pending {
			continue
		}
		info, err := t.repo.s.reader.stat(t.name, d)
		if err == nil && i < len(m.Blobs) && !t.isBlob(d) {
			err = fs.ErrNotExist
		}
		switch {
		case err == nil && time.Since(info.Time) > usePrecision/2:
			err = t.repo.s.touchUsed(t.file(d))
		case isMissing(err) && (m.Sparse || i >= len(m.Blobs)): // putManifest looks for the manifests
			err = nil
		case isMissing(err):
			err = fmt.Errorf("%w: blob %s", registry.ErrManifestBlobUnknown, d)
		}
		if err != nil {
			return err
		}
		if t.named = append(t.named, d); t.namedAt.IsZero() {
			t.namedAt = time.Now()
		}
	}
	return nil
}

// useNamed notes again that manifests name content, once they are visible: a
// collection that does not see them must see the uses as later than its beginning.
func (t *txn) useNamed() {
	if t.named == nil || time.Since(t.namedAt) < usePrecision/4 {
		return // the precision allows for that
	}
	for _, d := range t.named {
		if err := t.repo.s.touchUsed(t.file(d)); err != nil && !isMissing(err) {
			t.repo.s.log.Error("the use of content can't be noted", "repository", t.name, "digest", d, "error", err)
		}
	}
}

func (s *Store) Now(context.Context) (time.Time, error) { return time.Now(), nil }

func (s *Store) CollectBlobs(_ context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	return s.collect(repo, blobs, func(t *txn, d digest.Digest) (registry.Info, bool) {
		info, err := s.reader.stat(repo, d)
		if err != nil || !t.isBlob(d) || !isUnused(info, since) {
			return info, false
		}
		t.deleteBlob(d)
		t.record(record{Op: opDeleteBlob, Digest: d})
		return info, true
	})
}

func (s *Store) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	return s.collect(repo, manifests, func(t *txn, d digest.Digest) (registry.Info, bool) {
		info, err := s.reader.stat(repo, d)
		_, pending := t.pending.Get(string(d)) // it was pushed seconds ago
		if err != nil || pending || !isUnused(info, since) || !t.isUntagged(ctx, d) {
			return info, false
		}
		r := record{Op: opDelete, Digest: d, Blob: t.uses(d).has(asBlob)}
		if t.deleteManifest(d) != nil {
			return info, false
		}
		t.record(r)
		return info, true
	})
}

func isUnused(info registry.Info, since time.Time) bool {
	return info.Time.Before(since.Add(-usePrecision))
}

// isUntagged reports whether the layout has a manifest, without tags.
func (l *layout) isUntagged(ctx context.Context, d digest.Digest) bool {
	deleted, err := l.manifests.Clone().CollectManifests(ctx, l.name, []digest.Digest{d}, time.Now().Add(time.Hour))
	return err == nil && len(deleted) == 1
}

// collect deletes content of a repository in one transaction, in which delete is
// called for each. It returns the content that was deleted.
func (s *Store) collect(repo string, content []digest.Digest, delete func(t *txn, d digest.Digest) (registry.Info, bool)) ([]registry.Info, error) {
	c := &collection{repo: repo, content: make(map[digest.Digest]bool, len(content))}
	for _, d := range content {
		c.content[d] = true
	}
	s.collector.mu.Lock()
	defer s.collector.mu.Unlock()
	s.collector.current.Store(c)
	defer s.collector.current.Store(nil)
	var deleted []registry.Info
	err := s.update(repo, func(t *txn) error {
		if t.isNew {
			return nil
		}
		for _, d := range content {
			if info, ok := delete(t, d); ok {
				deleted = append(deleted, info)
			}
		}
		t.deletes = t.deletes || len(deleted) > 0
		return nil
	})
	if err != nil {
		return nil, err
	}
	return deleted, nil
}

// CollectRest ends uploads that have expired, and removes repositories without
// content, and content that no repository has: the remains of interrupted deletes,
// and of layouts that other tools removed.
func (s *Store) CollectRest(ctx context.Context, since time.Time) (registry.Collected, error) {
	var c registry.Collected
	s.sessions.mu.Lock()
	before := len(s.sessions.byKey)
	s.expireUploads()
	c.Uploads = before - len(s.sessions.byKey)
	s.unlockSessions()
	if err := s.removeEmptyRepos(ctx); err != nil || !canCountLinks {
		return c, err
	}
	err := fs.WalkDir(s.fsys, poolDir, func(name string, d fs.DirEntry, err error) error {
		if isMissing(err) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || linkCount(info) != 1 {
			return nil // deleted meanwhile, or in use
		}
		// A concurrent push that has linked to it keeps it under its own name.
		if err := s.files.remove(name); err != nil {
			return err
		}
		c.Blobs++
		c.Bytes += info.Size()
		return nil
	})
	return c, err
}

// removeEmptyRepos removes the folders of repositories without content.
func (s *Store) removeEmptyRepos(ctx context.Context) error {
	for repo, err := range s.Repositories(ctx, "") {
		if err != nil {
			return err
		}
		err := s.update(repo, func(t *txn) error {
			t.deletes = t.deletes || !t.isNew && t.isEmpty()
			return nil
		})
		if err != nil && !errors.Is(err, registry.ErrNameUnknown) {
			return err
		}
	}
	return nil
}
