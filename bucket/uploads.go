// SPDX-License-Identifier: Apache-2.0

// Upload sessions: opening, leasing and cancelling them.

package bucket

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// leasedSession is what this process knows about a session that it has leased.
// The store's mu guards it.
type leasedSession struct {
	repo      string
	known     bool  // the session exists: it is new, or ResumeUpload has found it
	saved     bool  // the session is in the bucket
	ended     bool  // the session was cancelled or published
	startSize int64 // at the start of the lease
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
	session := &leasedSession{repo: repo, known: true}
	if err := s.addLease(id, session); err != nil {
		if err == registry.ErrUploadBusy {
			err = errIDInUse
		}
		return nil, err
	}
	if opts.ID != "" {
		inUse, err := s.exists(ctx, stateKey(id))
		if inUse && err == nil {
			err = errIDInUse
		}
		if err != nil {
			s.removeLease(id)
			return nil, err
		}
	}
	st := uploadState{Repo: repo, Algorithm: opts.Algorithm}
	return s.newLease(ctx, id, session, st), nil
}

// ResumeUpload leases an upload session. It does not notice a lease of another
// process: the lease that is closed first is the one that counts.
func (s *Store) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	session := &leasedSession{repo: repo, saved: true}
	if err := s.addLease(id, session); err != nil {
		return nil, err
	}
	st, err := s.activeState(ctx, repo, id)
	if err == nil && !st.Algorithm.Available() {
		err = errBadAlgorithm
	}
	if err != nil {
		s.removeLease(id)
		return nil, err
	}
	s.mu.Lock()
	session.known, session.startSize = true, st.Size
	s.mu.Unlock()
	l := s.newLease(ctx, id, session, st)
	l.touched = st.Used
	if err := l.reset(); err != nil {
		s.removeLease(id)
		return nil, err
	}
	return l, nil
}

// UploadSize returns the number of bytes in an upload session.
func (s *Store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	if size, ok := s.leasedSize(repo, id); ok {
		return size, nil
	}
	st, err := s.activeState(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	return st.Size, s.touch(ctx, id, st)
}

// CancelUpload ends an upload session and discards its bytes.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	if s.cancelUnsaved(repo, id) {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for range maxAttempts {
		st, err := s.activeState(ctx, repo, id)
		if err != nil {
			return err
		}
		_, err = s.endUpload(ctx, id, st)
		if err == registry.ErrUploadBusy {
			continue // bytes were appended meanwhile: cancel the session anyway
		}
		if err != nil {
			return err
		}
		s.cancelLease(id)
		s.removeUpload(ctx, id, st.Parts)
		return nil
	}
	return registry.ErrUnavailable
}

// addLease records that this process has a lease.
// Errors: ErrUploadBusy, ErrBlobUploadUnknown if the session belongs to another
// repository, ErrTooManyUploads.
func (s *Store) addLease(id string, session *leasedSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.leases[id]; ok {
		if other.repo != session.repo && session.saved {
			return registry.ErrBlobUploadUnknown
		}
		return registry.ErrUploadBusy
	}
	if s.opts.Uploads > 0 && len(s.leases) >= s.opts.Uploads {
		return registry.ErrTooManyUploads
	}
	s.leases[id] = session
	return nil
}

func (s *Store) removeLease(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, id)
}

// leasedSize returns the size of a session that this process has leased, as of
// the start of the lease.
func (s *Store) leasedSize(repo, id string) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.leases[id]
	if !ok || session.repo != repo || session.ended || !session.known {
		return 0, false
	}
	return session.startSize, true
}

// cancelUnsaved cancels a session that exists only in this process.
func (s *Store) cancelUnsaved(repo, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.leases[id]
	if !ok || session.repo != repo || session.saved || session.ended {
		return false
	}
	session.ended = true
	return true
}

// cancelLease tells the holder of the lease, if it is in this process, that the
// session was cancelled.
func (s *Store) cancelLease(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session, ok := s.leases[id]; ok {
		session.ended = true
	}
}
