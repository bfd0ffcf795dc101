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
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// Commit publishes the session's bytes as a blob.
//
// It ends the session by a conditional write before it publishes anything, and only
// the lease that has ended the session publishes it. So a session that was
// cancelled, in this process or in another, is never published. If publishing
// fails, the session is revived. If the process stops, another request with the
// same bytes can publish the session.
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
	if l.state.Phase == publishing && l.state.Digest != d {
		return registry.ErrBlobUploadUnknown
	}
	if err := l.endLease(); err != nil {
		return err
	}
	// From here on, cancelling the request has no effect: Commit succeeds or
	// revives the session.
	p := &publication{store: l.store, repo: l.repo, digest: d, size: l.size, crc: &l.crc, write: l.writeData, small: l.isSmall()}
	ended, next := l.state.Revision == "", l.state // while writeData reads the state
	p.end = func() (err error) {
		if !ended {
			// The state does not include the bytes of this lease, so the session
			// can be revived as the lease found it.
			if next, err = l.store.setPhase(l.ctx, l.key, l.state, publishing, d); err == nil {
				ended, p.id = true, next.Link
			}
		}
		return err
	}
	err := p.publish(l.ctx)
	if ended {
		l.state = next
	}
	if err != nil {
		if !ended && errors.Is(err, registry.ErrBlobUploadUnknown) { // it was cancelled
			return errors.Join(err, l.store.removeRepo(l.ctx, l.repo))
		}
		return errors.Join(err, l.revive())
	}
	if l.state.Revision != "" {
		parts, st := l.allParts(), l.state
		finish := func() { l.store.finish(l.ctx, l.key, st, d, parts) }
		if l.state.Chosen { // another session may use the ID at once
			finish()
		} else {
			l.store.forget(l.ctx, l.key, l.state, d)
			l.store.later(finish)
		}
		l.parts = nil
	}
	return nil // Close discards the rest
}

// finish records that a session was published, and removes its parts.
func (s *Store) finish(ctx context.Context, key string, st uploadState, d digest.Digest, parts []part) {
	for range maxTries {
		_, err := s.setPhase(ctx, key, st, published, d)
		if err != registry.ErrUploadBusy {
			break
		}
		// Another process publishes the same bytes, or has failed to.
		if st, err = s.readState(ctx, key); err != nil || !st.isOpen() {
			break
		}
	}
	each(parts, func(p part) error { return s.remove(ctx, partKey(key, p.Name)) })
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

// endLease prevents other callers in this process from using the session.
func (l *lease) endLease() error {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.ended {
		return registry.ErrBlobUploadUnknown
	}
	l.ended = true
	l.store.stopTimer(l.leasedSession)
	return nil
}

// revive undoes endLease, and ends the phase in which the session is published.
func (l *lease) revive() error {
	if l.state.Phase == publishing {
		st, err := l.store.setPhase(l.ctx, l.key, l.state, active, "")
		if err != nil {
			return err // the same request can publish it later
		}
		l.state = st
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.ended = false
	l.store.use(l.leasedSession)
	return nil
}

// isSmall reports whether the session's bytes are all in memory.
func (l *lease) isSmall() bool {
	return l.out == nil && len(l.parts) == 0 && len(l.state.Parts) == 0
}

// writeData writes the session's bytes as one object: from memory, by a copy that
// the provider makes or, if there are several parts, through this process.
func (l *lease) writeData(key string) error {
	s := l.store
	if l.isSmall() {
		return s.put(l.ctx, key, l.buf)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if all := l.allParts(); len(all) == 1 && all[0].Size <= maxCopy {
		return s.copy(l.ctx, key, partKey(l.key, all[0].Name), all[0].Size)
	}
	if !l.writing { // the parts are read from the bucket, and written to it
		if err := l.reserve(&s.writers, objects.WriterMemory); err != nil {
			return err
		}
		l.writing = true
	}
	defer l.releaseWriter()
	w := s.newWriter(l.ctx, key)
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
