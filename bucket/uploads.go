// SPDX-License-Identifier: Apache-2.0

// Upload sessions: opening, leasing and cancelling them.

package bucket

import (
	"container/list"
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// leasedSession is what this process knows about a session that it has leased.
// The store's mu guards it.
type leasedSession struct {
	lease  *lease // nil until CreateUpload or ResumeUpload has found that it can have one
	saved  bool   // the session is in the bucket
	saving bool   // Close writes it to the bucket
	ended  bool   // the session was cancelled or published, or was idle for too long

	element *list.Element // in byUse; nil while the session can't expire
	lastUse time.Time
}

var (
	errBadAlgorithm = fmt.Errorf("%w: unsupported digest algorithm", registry.ErrDigestInvalid)
	errIDInUse      = fmt.Errorf("%w: session ID in use", registry.ErrBlobUploadInvalid)
)

// CreateUpload opens an upload session. The session is in the bucket, where other
// processes find it, once Close has returned.
func (s *Store) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	if opts.Algorithm == "" {
		opts.Algorithm = digest.Canonical
	}
	if !opts.Algorithm.Available() {
		return nil, errBadAlgorithm
	}
	id := opts.ID
	switch {
	case id == "":
		id = newUUID()
	case !validID(id):
		return nil, fmt.Errorf("%w: badly formed session ID", registry.ErrBlobUploadInvalid)
	}
	key, session := sessionKey(repo, id), new(leasedSession)
	if err := s.addLease(key, session); err != nil {
		if err == registry.ErrUploadBusy {
			err = errIDInUse
		}
		return nil, err
	}
	var old value
	if opts.ID != "" {
		st, err := s.readState(ctx, key)
		if err == nil && st.isOpen() {
			err = errIDInUse
		}
		if err != nil {
			s.removeLease(key, session)
			return nil, err
		}
		old = st.value
	}
	l := s.newLease(ctx, repo, id, session, uploadState{Algorithm: opts.Algorithm, Chosen: opts.ID != "", value: old})
	s.beginLease(l)
	return l, nil
}

// ResumeUpload leases an upload session. It does not notice a lease of another
// process: the lease that is closed first is the one that counts.
func (s *Store) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	if !validID(id) {
		return nil, registry.ErrBlobUploadUnknown
	}
	key, session := sessionKey(repo, id), &leasedSession{saved: true}
	if err := s.addLease(key, session); err != nil {
		return nil, err
	}
	st, err := s.openState(ctx, key)
	if err == nil && !st.Algorithm.Available() {
		err = errBadAlgorithm
	}
	if err != nil {
		s.removeLease(key, session)
		return nil, err
	}
	l := s.newLease(ctx, repo, id, session, st)
	l.renewed = time.Now()
	if err := l.reset(); err != nil {
		s.removeLease(key, session)
		return nil, err
	}
	s.beginLease(l)
	return l, nil
}

// PublishedUpload returns the digest that a session was published as.
func (s *Store) PublishedUpload(ctx context.Context, repo, id string) (digest.Digest, error) {
	if !validID(id) {
		return "", registry.ErrBlobUploadUnknown
	}
	key := sessionKey(repo, id)
	if d, ended := s.hasEnded(key); ended && d != "" {
		return d, nil
	}
	st, err := s.readState(ctx, key)
	if err == nil && st.Phase != published {
		err = registry.ErrBlobUploadUnknown
	}
	return st.Digest, err
}

// UploadSize returns the number of bytes in an upload session.
func (s *Store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	if !validID(id) {
		return 0, registry.ErrBlobUploadUnknown
	}
	key := sessionKey(repo, id)
	if s.useUnsaved(key) {
		return 0, nil // none at the start of the lease
	}
	st, err := s.openState(ctx, key)
	if err == nil && st.Phase == publishing {
		err = registry.ErrBlobUploadUnknown
	}
	if err != nil {
		return 0, err
	}
	return st.Size, s.renew(ctx, key, st)
}

// CancelUpload ends an upload session and discards its bytes.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	if !validID(id) {
		return registry.ErrBlobUploadUnknown
	}
	key := sessionKey(repo, id)
	if s.cancelLease(key, false) {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for range maxAttempts {
		st, err := s.openState(ctx, key)
		if err == nil && st.Phase == publishing {
			err = registry.ErrBlobUploadUnknown // it has ended, even if the blob is not yet there
		}
		if err != nil {
			return err
		}
		_, err = s.setPhase(ctx, key, st, cancelled, "")
		if err == registry.ErrUploadBusy {
			continue // bytes were appended meanwhile: cancel the session anyway
		}
		if err != nil {
			return err
		}
		s.cancelLease(key, true)
		s.removeParts(ctx, key, st.Parts)
		s.forget(ctx, key, st, "")
		return nil
	}
	return registry.ErrUnavailable
}

// addLease records that this process has a lease, or is about to have it.
// Errors: ErrUploadBusy, ErrTooManyUploads.
func (s *Store) addLease(key string, session *leasedSession) error {
	s.mu.Lock()
	defer s.unlock()
	s.expire()
	if _, ok := s.leases[key]; ok {
		return registry.ErrUploadBusy
	}
	if s.opts.Uploads > 0 && len(s.leases) >= s.opts.Uploads {
		return registry.ErrTooManyUploads
	}
	s.leases[key] = session
	return nil
}

// beginLease begins a lease that addLease has recorded. From then on, the session
// is cancelled if it is idle for too long.
func (s *Store) beginLease(l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.leasedSession.lease = l
	if !l.ended { // while ResumeUpload has read its state
		s.use(l.leasedSession)
	}
}

// removeLease undoes addLease, unless the session has ended and another has its key.
func (s *Store) removeLease(key string, session *leasedSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopTimer(session)
	if s.leases[key] == session {
		delete(s.leases, key)
	}
}

// use resets the idle timer of a leased session. It must be called with mu held.
func (s *Store) use(session *leasedSession) {
	session.lastUse = time.Now()
	if session.element == nil {
		session.element = s.byUse.PushBack(session)
		return
	}
	s.byUse.MoveToBack(session.element)
}

// stopTimer makes sure that a session does not expire. It must be called with mu
// held.
func (s *Store) stopTimer(session *leasedSession) {
	if session.element != nil {
		s.byUse.Remove(session.element)
		session.element = nil
	}
}

// expire ends the leased sessions that were idle for too long: a stalled client
// must not keep one for ever. In the bucket, activeState and GC end them. It must be
// called with mu held.
func (s *Store) expire() {
	for e := s.byUse.Front(); e != nil; e = s.byUse.Front() {
		session := e.Value.(*leasedSession)
		if time.Since(session.lastUse) < s.opts.UploadIdle {
			return
		}
		s.end(session)
	}
}

// end ends a leased session in this process. It must be called with mu held.
func (s *Store) end(session *leasedSession) {
	session.ended = true
	s.stopTimer(session)
	if session.saving || session.lease == nil {
		return // its holder will notice soon
	}
	delete(s.leases, session.lease.key)
	s.ended = append(s.ended, session.lease)
}

// unlock unlocks mu, and then discards the bytes of the leases whose sessions have
// ended.
func (s *Store) unlock() {
	ended := s.ended
	s.ended = nil
	s.mu.Unlock()
	for _, l := range ended {
		l.abandon()
	}
}

// useUnsaved reports whether a session exists only in this process, and resets the
// idle timer of a session that is leased.
func (s *Store) useUnsaved(key string) bool {
	s.mu.Lock()
	defer s.unlock()
	s.expire()
	session, ok := s.leases[key]
	if !ok || session.ended || session.lease == nil {
		return false
	}
	if session.element != nil {
		s.use(session)
	}
	return !session.saved
}

// cancelLease ends a session that this process has leased, and reports whether it
// has one that is saved or not.
func (s *Store) cancelLease(key string, saved bool) bool {
	s.mu.Lock()
	defer s.unlock()
	s.expire()
	session, ok := s.leases[key]
	if !ok || session.saved != saved || session.ended || session.lease == nil && !saved {
		return false
	}
	s.end(session)
	return true
}
