// SPDX-License-Identifier: Apache-2.0

// Repositories that are in use: their queue of changes, their journal, and the
// state that both lead to.

package ocidir

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// repo is a repository with changes in progress, or whose journal is not folded
// yet, or whose former versions are kept for merges.
type repo struct {
	s    *Store
	name string
	dir  string // its folder
	refs int    // guarded by the store's mu

	mu    sync.Mutex // guards queue
	queue []*change

	folding sync.Mutex // held by the caller that folds; taken before committing
	writing sync.Mutex // held while a fold writes files; taken last

	committing sync.Mutex      // guards the fields below; held by the caller that commits the queue
	current    *layout         // nil until it is needed
	journal    *journal        // nil until a change needs one
	mustFold   bool            // there is a journal that can't be continued
	background *fold           // in progress, nil if there is none
	tail       [][]byte        // lines appended since the current fold began
	versions   []version       // of index.json, the newest last
	touched    map[string]bool // the tags that changed since then
	damaged    fs.FileInfo     // of an index.json that can't be read
	timer      *time.Timer     // of lookAfter, nil if there is nothing to do
	timerDue   time.Time       // zero if it has fired
	firstDirty time.Time       // since when index.json lacks a change
	lastChange time.Time
}

func (s *Store) acquireRepo(name string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.repos[name]
	if !ok {
		r = &repo{s: s, name: name, dir: repoDir(name)}
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

// hasFile reports whether the repository has a file with the digest d.
func (r *repo) hasFile(d digest.Digest) bool { return r.s.files.exists(contentPath(r.dir, d)) }

// file returns the name of a file in the repository's folder.
func (r *repo) file(name string) string { return path.Join(r.dir, name) }

// refresh reads what another tool has written. It is the reload of the store's
// reader.
func (s *Store) refresh(name string) (*layout, error) {
	r := s.acquireRepo(name)
	defer s.releaseRepo(r)
	r.committing.Lock()
	defer r.committing.Unlock()
	return r.refresh()
}

// refresh returns the current state, after merging an index.json that another tool
// has written. It must be called with committing held, like all below.
// Errors: ErrNameUnknown.
func (r *repo) refresh() (*layout, error) {
	s := r.s
	info, err := s.files.Stat(r.file(ocispec.ImageIndexFile))
	if isMissing(err) {
		r.forget()
		return nil, registry.ErrNameUnknown
	}
	if err != nil {
		return nil, err
	}
	if r.current == nil {
		r.current = s.cached(r.name)
	}
	current := r.current
	switch {
	case current == nil:
		return r.load()
	case isUnchanged(current.info, info):
		return current, nil
	case r.damaged != nil && isUnchanged(r.damaged, info):
		return current, nil
	}
	theirs, err := readIndex(s.fsys, r.dir, r.name, s.noLists)
	if isMissing(err) {
		r.forget()
		return nil, registry.ErrNameUnknown
	}
	if err != nil { // it is being written
		r.damaged = info
		r.arm(foldRetry)
		s.log.Warn("index.json can't be read, serving its former state", "repository", r.name, "error", err)
		return current, nil
	}
	return r.merge(current, theirs)
}

// load reads a repository that is not in memory.
func (r *repo) load() (*layout, error) {
	s := r.s
	l, base, j, err := loadLayout(s.fsys, r.dir, r.name, s.noLists)
	for start := time.Now(); isHalfWritten(err) && r.isRecent() && time.Since(start) < halfWritten; {
		time.Sleep(10 * time.Millisecond)
		l, base, j, err = loadLayout(s.fsys, r.dir, r.name, s.noLists)
	}
	if isMissing(err) {
		return nil, registry.ErrNameUnknown
	}
	if err != nil {
		return nil, err
	}
	s.logUnreadable(l)
	s.files.addFacts(r.dir, l.unsaved)
	l.unsaved = nil
	r.publish(l)
	if j != nil {
		// The kernel may have bytes in memory that the last process failed to
		// sync: no change is acknowledged in this file.
		r.mustFold = true
		r.journal = &journal{dir: s.files, name: r.file(journalFile), size: j.size, batches: len(j.batches)}
		r.keepVersion(base)
		r.changed()
	}
	return l, nil
}

// halfWritten is how long a reader waits for another tool that is writing an
// index.json in place.
const halfWritten = time.Second

// isHalfWritten reports whether err may be due to an index.json that is being
// written.
func isHalfWritten(err error) bool {
	var syntax *json.SyntaxError
	return errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isRecent reports whether index.json was written just now.
func (r *repo) isRecent() bool {
	info, err := r.s.files.Stat(r.file(ocispec.ImageIndexFile))
	return err == nil && time.Since(info.ModTime()) < 2*halfWritten
}

// logUnreadable logs the entries that can't be read.
func (s *Store) logUnreadable(l *layout) {
	for _, raw := range l.unreadable.After("") {
		s.log.Warn("an entry of index.json can't be read", "repository", l.name, "entry", string(raw))
	}
}

// merge merges an index.json that another tool wrote into the current state.
func (r *repo) merge(current, theirs *layout) (*layout, error) {
	s := r.s
	versions := r.versions
	if !current.dirty || len(versions) == 0 { // otherwise no tool can have read it
		versions = append(slices.Clip(versions), version{layout: current})
	}
	base, touched := mergeBase(versions, theirs)
	merged, records, err := merge(base, current, theirs, union(touched, r.touched), func(tag string, ours, others digest.Digest) {
		s.log.Warn("another tool has changed a tag that was pushed meanwhile; the push wins",
			"repository", r.name, "tag", tag, "pushed", ours, "other", others)
	})
	if err != nil {
		return nil, err
	}
	s.logUnreadable(theirs)
	s.files.addFacts(r.dir, theirs.unsaved)
	theirs.unsaved, r.damaged = nil, nil
	r.keepVersion(theirs)
	if len(records) > 0 { // a crash must not undo the merge
		r.current = theirs // which a new journal continues
		if err := r.append(batch{Changes: records}, true); err != nil {
			s.log.Error("a merge can't be written to the journal", "repository", r.name, "error", err)
		}
	}
	r.publish(merged)
	if merged.dirty {
		r.changed()
		r.lastChange = time.Time{}
		r.arm(0)
	}
	return merged, nil
}

// publish makes l the current state.
func (r *repo) publish(l *layout) {
	r.current = l
	r.s.cacheMu.Lock()
	defer r.s.cacheMu.Unlock()
	r.s.addToCache(l)
}

// forget ends all that is known of a repository that does not exist any more.
func (r *repo) forget() {
	r.s.cacheMu.Lock()
	delete(r.s.cache, r.name)
	r.s.cacheMu.Unlock()
	r.journal = nil
	r.current, r.mustFold, r.damaged, r.tail, r.versions, r.touched = nil, false, nil, nil, nil, nil
	r.firstDirty = time.Time{}
	r.s.setFailure(r.name, nil)
	if r.background != nil { // it must not bring the repository back
		r.background.superseded.Store(true)
	}
}
