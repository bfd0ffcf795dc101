// SPDX-License-Identifier: Apache-2.0

// Commit, which publishes an upload session as a blob.

package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// Commit publishes the session's bytes as a blob.
//
// First it ends the session, by a conditional write, and only the lease that has
// ended the session publishes it. So a session that was cancelled, in this process
// or in another, is never published. If publishing fails, the session is revived.
func (l *lease) Commit(ctx context.Context, d digest.Digest) error {
	if !l.useIfActive() {
		return registry.ErrBlobUploadUnknown
	}
	if err := l.verify(d); err != nil {
		if l.isOver() {
			err = registry.ErrBlobUploadUnknown
		}
		return err
	}
	undo, err := l.endSession()
	if err != nil {
		return err
	}
	// From here on, cancelling the request has no effect: Commit succeeds or
	// revives the session.
	err = l.store.publish(l.ctx, l.repo, d, l.size, "", l.writeData)
	if err != nil {
		return errors.Join(err, undo())
	}
	if l.state.Revision != "" {
		l.store.removeUpload(l.ctx, l.key, l.allParts())
		l.parts = nil
	}
	return nil // Close discards the rest
}

// verify compares the digest of the session's bytes with d.
func (l *lease) verify(d digest.Digest) error {
	h, a := l.hash, d.Algorithm()
	if a != l.state.Algorithm {
		if !a.Available() {
			return errBadAlgorithm
		}
		// The client announced another algorithm, or none.
		h = a.Hash()
		if err := l.copyTo(h); err != nil {
			return err
		}
	}
	if digest.NewDigest(a, h) != d {
		return registry.ErrDigestInvalid
	}
	return nil
}

// endSession ends the session, so that no other caller can use it. undo revives
// it.
func (l *lease) endSession() (undo func() error, err error) {
	l.store.mu.Lock()
	if l.ended {
		l.store.mu.Unlock()
		return nil, registry.ErrBlobUploadUnknown
	}
	l.ended = true
	l.store.stopTimer(l.leasedSession)
	l.store.mu.Unlock()
	revive := func() {
		l.store.mu.Lock()
		l.ended = false
		l.store.use(l.leasedSession)
		l.store.mu.Unlock()
	}
	if l.state.Revision == "" {
		return func() error { revive(); return nil }, nil
	}
	// The state does not include the bytes of this lease, so the session is
	// revived as the lease found it.
	ended, err := l.store.endUpload(l.ctx, l.key, l.state)
	if err != nil {
		if !errors.Is(err, registry.ErrBlobUploadUnknown) {
			revive()
		}
		return nil, err
	}
	return func() error {
		st, err := l.store.reviveUpload(l.ctx, l.key, ended)
		if err != nil {
			return err // the session is lost: the client must start over
		}
		l.state = st
		revive()
		return nil
	}, nil
}

// writeData writes the session's bytes as one object: from memory, by a copy that
// the provider makes or, if there are several parts, through this process.
func (l *lease) writeData(key string) error {
	s := l.store
	if l.out == nil && len(l.parts) == 0 && len(l.state.Parts) == 0 {
		return s.put(l.ctx, key, l.buf)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if all := l.allParts(); len(all) == 1 && all[0].Size <= maxCopy {
		return s.copy(l.ctx, key, partKey(l.key, all[0].Name), all[0].Size)
	}
	w, err := s.newWriter(l.ctx, key)
	if err != nil {
		return err
	}
	if err := l.copyTo(w); err != nil {
		w.abort()
		return err
	}
	return w.close()
}

// copyTo writes the session's bytes to w.
func (l *lease) copyTo(w io.Writer) error {
	if l.out != nil {
		if err := l.flush(); err != nil {
			return err
		}
	}
	for _, p := range l.allParts() {
		r := l.store.newReader(l.ctx, partKey(l.key, p.Name), p.Size)
		_, err := r.WriteTo(w)
		r.Close()
		if err != nil {
			return err
		}
	}
	_, err := io.Copy(w, bytes.NewReader(l.buf))
	return err
}
