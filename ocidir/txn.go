// SPDX-License-Identifier: Apache-2.0

// Transactions: changes to a repository, written in batches and acknowledged
// once they are durable.

package ocidir

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// repo is a repository with changes in progress.
type repo struct {
	s    *Store
	name string
	dir  string // its folder's path
	refs int    // guarded by the store's mu

	mu    sync.Mutex // guards queue
	queue []*change

	committing sync.Mutex // held by the caller that commits the queue
}

// change is a change to a repository, queued or done.
type change struct {
	apply func(*txn) error
	alone bool // in a batch of its own, so that its cleanup can't undo another change
	err   error
	done  bool
}

// txn is a transaction: a repository while a batch of changes is applied.
type txn struct {
	*layout
	repo  *repo
	isNew bool // the repository does not exist yet

	indexChanged bool                   // index.json must be written
	unsynced     map[string]bool        // folders with new names
	subjects     map[digest.Digest]bool // those whose referrers have changed
	newFiles     []digest.Digest        // to remove if the transaction fails
	hidden       []digest.Digest        // of files that are not blobs, until the transaction ends
	cleanup      []func() error         // to run once index.json is written
	deletes      bool                   // the repository may be empty afterwards
}

// update applies a change to a repository. When it returns nil, the change is
// durable.
func (s *Store) update(name string, apply func(*txn) error) error {
	return s.enqueue(name, &change{apply: apply})
}

// updateAlone is update for a change that needs cleanup.
func (s *Store) updateAlone(name string, apply func(*txn) error) error {
	return s.enqueue(name, &change{apply: apply, alone: true})
}

// enqueue queues a change, and returns when it is done. Callers that wait for
// the same repository have their changes committed together, by one of them.
func (s *Store) enqueue(name string, c *change) error {
	r := s.acquireRepo(name)
	defer s.releaseRepo(r)
	r.mu.Lock()
	r.queue = append(r.queue, c)
	r.mu.Unlock()

	r.committing.Lock()
	defer r.committing.Unlock()
	if c.done { // by an earlier caller
		return storeError(c.err)
	}
	r.mu.Lock()
	batch := r.queue
	r.queue = nil
	r.mu.Unlock()
	for len(batch) > 0 {
		n := 1
		for !batch[0].alone && n < len(batch) && !batch[n].alone {
			n++
		}
		r.commit(batch[:n])
		batch = batch[n:]
	}
	if !c.done {
		return errors.New("ocidir: the goroutine that was committing the change panicked")
	}
	return storeError(c.err)
}

func (s *Store) acquireRepo(name string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.repos[name]
	if !ok {
		r = &repo{s: s, name: name, dir: s.path(repoDir(name))}
		if s.repos == nil {
			s.repos = make(map[string]*repo)
		}
		s.repos[name] = r
	}
	r.refs++
	return r
}

func (s *Store) releaseRepo(r *repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.refs--; r.refs == 0 {
		delete(s.repos, r.name)
	}
}

// commit applies a batch of changes and makes those that succeed durable.
func (r *repo) commit(batch []*change) {
	t := &txn{repo: r, unsynced: make(map[string]bool), subjects: make(map[digest.Digest]bool)}
	current, err := r.s.load(r.name)
	if errors.Is(err, registry.ErrNameUnknown) {
		current, err = emptyLayout(r.name), nil
		current.noLists = r.s.noLists
		t.isNew = true
	}
	if err == nil {
		t.layout = current.clone()
		for _, c := range batch {
			c.err = c.apply(t)
		}
		err = t.commit()
		r.s.countNotBlobs(r.name, t.hidden, -1)
	}
	for _, c := range batch {
		if c.err == nil {
			c.err = err
		}
		c.done = true
	}
}

// commit publishes the changes, if any, and cleans up.
func (t *txn) commit() error {
	if !t.indexChanged && !t.deletes && len(t.unsynced) == 0 {
		return nil
	}
	err := t.publish()
	if err != nil {
		for _, d := range t.newFiles {
			os.Remove(t.filePath(d))
			os.Remove(t.repo.s.path(poolPath(d))) // it may be the file of an upload, which can grow
		}
		return err
	}
	for _, f := range t.cleanup {
		err = errors.Join(err, f())
	}
	if t.deletes {
		err = errors.Join(err, t.removeRepoIfEmpty())
	}
	return err
}

// publish makes the changes durable: files first, then their names, and then
// index.json, which makes them visible.
func (t *txn) publish() error {
	for subject := range t.subjects {
		if t.noLists {
			break // clients write them
		}
		if err := t.writeList(subject); err != nil {
			return err
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(t.unsynced)) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if !t.indexChanged && !t.isNew {
		return nil
	}
	data, err := t.encode()
	if err != nil {
		return err
	}
	if t.isNew {
		if err := replaceFile(filepath.Join(t.repo.dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
			return err
		}
	}
	name := filepath.Join(t.repo.dir, ocispec.ImageIndexFile)
	if err := replaceFile(name, data); err != nil {
		return err
	}
	t.newFiles = nil // index.json names them
	if t.info, err = os.Stat(name); err != nil {
		return err
	}
	s := t.repo.s
	s.cacheMu.Lock()
	s.addToCache(t.layout)
	s.cacheMu.Unlock()
	if err := syncDir(t.repo.dir); err != nil {
		return err
	}
	for dir := t.repo.dir; t.isNew && dir != s.dir; { // the folder's own name, and those above it
		dir = filepath.Dir(dir)
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// hide keeps a file that is added or removed from being taken for a blob while
// index.json does not name it.
func (t *txn) hide(d digest.Digest) {
	t.hidden = append(t.hidden, d)
	t.repo.s.countNotBlobs(t.name, []digest.Digest{d}, 1)
}

// filePath returns the path of the file with the digest d.
func (t *txn) filePath(d digest.Digest) string {
	return filepath.Join(t.repo.dir, filepath.FromSlash(contentPath("", d)))
}

// hasFile reports whether the repository has a file with the digest d.
func (t *txn) hasFile(d digest.Digest) bool {
	_, err := os.Stat(t.filePath(d))
	return err == nil
}

// addFile adds the file with the digest d to the repository, or sets the time of
// an existing one to now. It takes the bytes from the file source if the store
// does not have them yet.
func (t *txn) addFile(d digest.Digest, source string) error {
	name := t.filePath(d)
	if t.hasFile(d) {
		if t.isNew { // a crash has interrupted the first push: complete it
			t.addUnsynced(filepath.Dir(name))
		}
		return touch(name)
	}
	if err := t.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	if err := t.repo.s.linkContent(d, source, name); err != nil {
		return err
	}
	t.newFiles = append(t.newFiles, d)
	t.unsynced[filepath.Dir(name)] = true
	return touch(name)
}

// removeFile removes the file with the digest d.
func (t *txn) removeFile(d digest.Digest) error {
	name := t.filePath(d)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	t.repo.s.unpool(d)
	return syncDir(filepath.Dir(name))
}

// mkdir creates a folder below the repository's.
func (t *txn) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	t.repo.s.folders.Lock()
	defer t.repo.s.folders.Unlock()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	t.addUnsynced(filepath.Dir(dir))
	return nil
}

// addUnsynced marks a folder, and those above it up to the repository's, as
// having new names.
func (t *txn) addUnsynced(dir string) {
	t.unsynced[dir] = true
	for dir != t.repo.dir {
		dir = filepath.Dir(dir)
		t.unsynced[dir] = true
	}
}

// removeRepoIfEmpty removes the repository's folder if it has neither manifests
// nor blobs.
func (t *txn) removeRepoIfEmpty() error {
	if len(t.order) > 0 {
		return nil
	}
	s := t.repo.s
	s.folders.Lock()
	defer s.folders.Unlock()
	blobs := filepath.Join(t.repo.dir, ocispec.ImageBlobsDir)
	folders, err := os.ReadDir(blobs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range folders {
		os.Remove(filepath.Join(blobs, f.Name())) // fails unless it is empty
	}
	if err := os.Remove(blobs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // the repository has blobs
	}
	for _, name := range []string{ocispec.ImageIndexFile, ocispec.ImageLayoutFile, tempName(ocispec.ImageIndexFile)} {
		if err := os.Remove(filepath.Join(t.repo.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := syncDir(t.repo.dir); err != nil {
		return err
	}
	for dir := t.repo.dir; dir != s.dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // it has other repositories
		}
	}
	return nil
}
