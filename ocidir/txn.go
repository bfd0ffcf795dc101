// SPDX-License-Identifier: Apache-2.0

// Transactions: changes to a repository, written in batches and acknowledged
// once they are durable.

package ocidir

import (
	"errors"
	"maps"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// change is a change to a repository, queued or done.
type change struct {
	apply func(*txn) error
	err   error
	done  bool
}

// txn is a transaction: a repository while a batch of changes is applied.
type txn struct {
	*layout
	repo  *repo
	isNew bool // the repository does not exist yet

	records  []record        // of the changes, for the journal
	unsynced map[string]bool // folders with new names
	newFiles []digest.Digest // to remove if the transaction fails
	deletes  bool            // the repository may be empty afterwards
	named    []digest.Digest // content that manifests which are being pushed name
	namedAt  time.Time       // when that was noted first
}

// update applies a change to a repository. When it returns nil, the change is
// durable. Callers that wait for the same repository have their changes committed
// together, by one of them.
func (s *Store) update(name string, apply func(*txn) error) error {
	c := &change{apply: apply}
	r := s.acquireRepo(name)
	defer s.releaseRepo(r)
	r.mu.Lock()
	r.queue = append(r.queue, c)
	r.mu.Unlock()

	r.committing.Lock()
	defer r.committing.Unlock()
	if !c.done { // by an earlier caller
		r.mu.Lock()
		batch := r.queue
		r.queue = nil
		r.mu.Unlock()
		r.commit(batch)
	}
	if !c.done {
		return errors.New("ocidir: the goroutine that was committing the change panicked")
	}
	return s.storeError(c.err)
}

// commit applies a batch of changes and makes those that succeed durable.
func (r *repo) commit(batch []*change) {
	t, err := r.begin()
	if err == nil {
		for _, c := range batch {
			c.err = c.apply(t)
		}
		if err = t.commit(); err != nil {
			t.removeNewFiles()
		} else {
			t.useNamed()
		}
	}
	for _, c := range batch {
		if c.err == nil {
			c.err = err
		}
		c.done = true
	}
}

// begin begins a transaction.
func (r *repo) begin() (*txn, error) {
	t := &txn{repo: r, unsynced: make(map[string]bool)}
	if err := r.s.files.checkNoLinks(r.dir); err != nil {
		return nil, err
	}
	current, err := r.refresh()
	if t.isNew = errors.Is(err, registry.ErrNameUnknown); t.isNew {
		current, err = r.newLayout(), nil
	}
	if err != nil {
		return nil, err
	}
	for try := 0; r.mustFold || r.journal != nil && (r.journal.failed != nil || r.journal.size > 4*maxFold); try++ {
		if try == 3 {
			return nil, errors.New("ocidir: index.json is damaged, or another tool keeps writing it")
		}
		if err := r.foldNow(); err != nil {
			return nil, err
		}
		current = r.current
	}
	t.layout = current.clone()
	return t, nil
}

// newLayout returns the layout of a repository that does not exist yet. If a crash
// has ended its creation, the journal tells which files are not blobs.
func (r *repo) newLayout() *layout {
	l := emptyLayout(r.name, r.s.noLists)
	if j, err := readJournal(r.s.files, r.dir); err == nil && j != nil {
		for _, b := range j.batches {
			for _, old := range b.Changes {
				if old.Op == opPush || old.Op == opList {
					l.condemned = l.condemned.With(string(old.Digest), struct{}{})
				}
			}
		}
	}
	return l
}

// commit makes the changes durable, if any, and then visible.
func (t *txn) commit() error {
	r := t.repo
	if t.isNew {
		if len(t.records) == 0 && len(t.unsynced) == 0 {
			return nil
		}
		return r.createRepo(t)
	}
	for _, dir := range slices.Sorted(maps.Keys(t.unsynced)) {
		if err := r.s.files.sync(dir); err != nil {
			return err
		}
	}
	if len(t.records) > 0 {
		if !t.dirty {
			r.keepVersion(r.current)
		}
		if err := r.append(batch{Changes: t.records}, t.deletes); err != nil {
			return err
		}
		t.dirty = true
		r.publish(t.layout)
		r.changed()
	}
	if !t.deletes {
		return nil
	}
	// The change is durable: errors do not matter to its caller.
	switch {
	case t.isEmpty():
		if err := r.removeIfEmpty(); err != nil {
			r.s.log.Error("an empty repository can't be removed", "repository", r.name, "error", err)
		}
	case r.s.reserve.isNeeded():
		r.removeBlobs(t.layout)
		r.foldNow()
	}
	return nil
}

// append appends a batch to the journal.
func (r *repo) append(b batch, isDelete bool) error {
	line, err := appendLine(nil, b)
	if err != nil {
		return err
	}
	err = r.appendLine(line)
	if isDelete && isFull(err) {
		r.s.reserve.noteFull()
		r.s.releaseReserve()
		err = r.appendLine(line)
		r.s.keepReserve(0)
	}
	if err != nil {
		return err
	}
	r.touch(b.Changes)
	if r.background != nil {
		r.tail = append(r.tail, line)
	}
	return nil
}

// appendLine appends the line of a batch to the journal, which it creates if there
// is none.
func (r *repo) appendLine(line []byte) error {
	if r.journal != nil {
		err := r.journal.append(line)
		if err == nil {
			r.journal.batches++
		}
		return err
	}
	j, err := createJournal(r.s.files, r.file(journalFile), r.current.hash, line)
	if err != nil {
		return err
	}
	if err := r.s.files.sync(r.dir); err != nil {
		return errors.Join(err, r.s.files.remove(j.name))
	}
	r.journal = j
	return nil
}

// record adds a change to the journal.
func (t *txn) record(r record) { t.records = append(t.records, r) }

// removeNewFiles removes the files that a failed transaction has added.
func (t *txn) removeNewFiles() {
	files := t.repo.s.files
	for _, d := range t.newFiles {
		files.remove(t.file(d))
		files.remove(poolPath(d)) // it may be the file of an upload, which can grow
	}
}

// file returns the name of the file with the digest d.
func (t *txn) file(d digest.Digest) string { return contentPath(t.repo.dir, d) }

// hasFile reports whether the repository has a file with the digest d.
func (t *txn) hasFile(d digest.Digest) bool { return t.repo.hasFile(d) }

// addFile adds the file with the digest d to the repository, or sets the time of
// an existing one to now. It takes the bytes from the file source if the store
// does not have them yet.
func (t *txn) addFile(d digest.Digest, source string) error {
	s, name := t.repo.s, t.file(d)
	if t.hasFile(d) {
		if t.isNew { // a crash has interrupted the first push: complete it
			t.addUnsynced(path.Dir(name))
		}
		return s.touch(name)
	}
	if err := t.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if err := s.linkContent(d, source, name); err != nil {
		return err
	}
	t.newFiles = append(t.newFiles, d)
	t.unsynced[path.Dir(name)] = true
	return s.touch(name)
}

// mkdir creates a folder below the repository's.
func (t *txn) mkdir(dir string) error {
	s := t.repo.s
	if _, err := s.files.Stat(dir); err == nil {
		return nil
	}
	s.folders.Lock()
	defer s.folders.Unlock()
	if err := s.files.mkdirAll(dir); err != nil {
		return err
	}
	t.addUnsynced(path.Dir(dir))
	return nil
}

// addUnsynced marks a folder, and those above it up to the repository's, as
// having new names.
func (t *txn) addUnsynced(dir string) {
	t.unsynced[dir] = true
	for dir != t.repo.dir {
		dir = path.Dir(dir)
		t.unsynced[dir] = true
	}
}

// createRepo makes the first changes of a repository durable: files first, then
// their names, and then index.json, which makes the repository visible.
func (r *repo) createRepo(t *txn) error {
	s := r.s
	blobs := path.Join(r.dir, ocispec.ImageBlobsDir)
	s.folders.Lock()
	err := s.files.mkdirAll(blobs)
	s.folders.Unlock()
	if err != nil {
		return err
	}
	t.unsynced[r.dir] = true
	r.stopFold()
	if err := s.files.replace(r.file(ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
		return err
	}
	lists, err := t.updateLists(r.hasFile)
	if err != nil {
		return err
	}
	if err := r.beginCreate(append(t.records, lists...)); err != nil {
		return err
	}
	f := r.newFold(t.layout)
	defer f.cleanUp()
	defer func() {
		if f.info == nil { // it has failed
			for _, name := range append(f.created, r.file(journalFile)) {
				s.files.remove(name)
			}
		}
	}()
	if err := f.write(); err != nil {
		return err
	}
	for _, dir := range slices.Sorted(maps.Keys(t.unsynced)) {
		if err := s.files.sync(dir); err != nil {
			return err
		}
	}
	if err := f.putInPlace(); err != nil {
		return err
	}
	l := f.result(t.layout)
	removed, err := r.removeCondemned(f.l, l)
	if err := errors.Join(err, s.files.remove(r.file(journalFile))); err != nil {
		return err
	}
	for _, d := range removed {
		l.condemned = l.condemned.Without(d)
	}
	for dir := r.dir; dir != "."; { // the folder's own name, and those above it
		dir = path.Dir(dir)
		if err := s.files.sync(dir); err != nil {
			return err
		}
	}
	r.publish(l)
	return nil
}

// beginCreate writes the journal of a repository that does not exist yet, for
// newLayout.
func (r *repo) beginCreate(records []record) error {
	files, name := r.s.files, r.file(journalFile)
	if err := files.remove(name); err != nil || len(records) == 0 {
		return err
	}
	line, err := appendLine(nil, batch{Changes: records})
	if err != nil {
		return err
	}
	if _, err := createJournal(files, name, "", line); err != nil {
		return err
	}
	return files.sync(r.dir)
}

// removeIfEmpty removes the repository's folder if it has neither manifests nor
// blobs.
func (r *repo) removeIfEmpty() error {
	if err := r.foldNow(); err != nil || r.current == nil || !r.current.isEmpty() {
		return err
	}
	s := r.s
	s.folders.Lock()
	defer s.folders.Unlock()
	blobs := r.file(ocispec.ImageBlobsDir)
	folders, err := s.files.ReadDir(blobs)
	if err != nil && !isMissing(err) {
		return err
	}
	for _, f := range folders {
		s.files.root.Remove(path.Join(blobs, f.Name())) // fails unless it is empty
	}
	if err := s.files.remove(blobs); err != nil {
		return nil // the repository has blobs
	}
	for _, name := range []string{ocispec.ImageIndexFile, journalFile, factsFile, ocispec.ImageLayoutFile} {
		if err := s.files.remove(r.file(name)); err != nil {
			return err
		}
	}
	r.forget()
	if err := s.files.sync(r.dir); err != nil {
		return err
	}
	for dir := r.dir; dir != "."; dir = path.Dir(dir) {
		if s.files.root.Remove(dir) != nil {
			break // it has other repositories
		}
	}
	return nil
}

// changed notes that index.json lacks a change, and has it folded in time.
func (r *repo) changed() {
	now := time.Now()
	if r.lastChange = now; r.firstDirty.IsZero() {
		r.firstDirty = now
	}
	if r.journal != nil && r.journal.size > r.foldSize() && r.background == nil {
		r.arm(0)
		return
	}
	r.arm(foldIdle)
}
