// SPDX-License-Identifier: Apache-2.0

// When journals are folded.

package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"time"
)

// arm has the repository looked after in a while, if it is not to be sooner. It must
// be called with committing held.
func (r *repo) arm(after time.Duration) {
	due := time.Now().Add(after)
	switch {
	case r.timer == nil:
		r.s.mu.Lock()
		r.refs++ // until the timer is not needed any more
		r.s.mu.Unlock()
		r.timer = time.AfterFunc(after, func() { r.s.background(r.lookAfter) })
	case r.timerDue.IsZero() || due.Before(r.timerDue):
		r.timer.Reset(after)
	default:
		return
	}
	r.timerDue = due
}

// background calls f unless the store is being closed, which waits for it.
func (s *Store) background(f func()) {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	f()
}

func (s *Store) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// lookAfter folds the journal if it is time, and forgets old versions.
func (r *repo) lookAfter() {
	r.committing.Lock()
	defer r.committing.Unlock()
	if r.timer == nil {
		return
	}
	r.timerDue = time.Time{} // the timer has fired
	now := time.Now()
	switch due := r.foldDue(); {
	case r.background != nil:
		r.arm(foldIdle)
		return
	case due.After(now):
		r.arm(due.Sub(now))
		return
	case !due.IsZero():
		r.arm(foldRetry)
		r.committing.Unlock()
		err := r.fold()
		r.committing.Lock()
		if err != nil {
			r.s.log.Error("a journal can't be folded", "repository", r.name, "error", err)
		}
		return
	}
	r.refresh() // another tool may have written meanwhile
	if r.forgetVersions(now); len(r.versions) > 0 || r.damaged != nil {
		r.arm(versionLife / 60)
		return
	}
	r.timer = nil
	r.s.releaseRepo(r)
}

// foldDue returns when the journal is to be folded, the zero time if index.json
// lacks nothing.
func (r *repo) foldDue() time.Time {
	switch {
	case r.current == nil || !r.current.dirty && !r.mustFold && r.journal == nil:
		return time.Time{}
	case r.journal != nil && r.journal.size > r.foldSize():
		return r.lastChange
	}
	due := r.lastChange.Add(foldIdle)
	if latest := r.firstDirty.Add(foldAge); latest.Before(due) {
		return latest
	}
	return due
}

// Fold writes the changes in all journals into the repositories' index.json, so
// that other tools see them. The store also does so on its own: once a repository is
// idle, within seconds of a change, and in Close.
func (s *Store) Fold(ctx context.Context) error {
	errs := []error{s.foldInUse()}
	for name, err := range s.journals() { // left by another process
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		r := s.acquireRepo(name)
		if err := r.fold(); err != nil {
			errs = append(errs, err)
		}
		s.releaseRepo(r)
	}
	err := errors.Join(errs...)
	if err == nil {
		s.fromCrash.Store(false)
	}
	return err
}

// journals yields the repositories that have a journal.
func (s *Store) journals() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.Repositories(context.Background(), "") {
			if err == nil {
				if _, err := fs.Stat(s.fsys, path.Join(repoDir(name), journalFile)); err != nil {
					continue
				}
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// foldInUse folds the journals of the repositories in use.
func (s *Store) foldInUse() error {
	s.mu.Lock()
	var all []*repo
	for _, r := range s.repos {
		r.refs++
		all = append(all, r)
	}
	s.mu.Unlock()
	var errs []error
	for _, r := range all {
		for isDirty, try := true, 0; isDirty && try < 10; try++ { // another tool may write meanwhile
			err := r.fold()
			r.committing.Lock()
			isDirty = err == nil && !r.foldDue().IsZero()
			r.committing.Unlock()
			if err != nil {
				errs = append(errs, err)
			}
		}
		s.releaseRepo(r)
	}
	return errors.Join(errs...)
}

// setFailure notes why a repository takes no changes, or that it does again.
func (s *Store) setFailure(repo string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.failures, repo)
		return
	}
	if s.failures == nil {
		s.failures = make(map[string]error)
	}
	s.failures[repo] = err
}
