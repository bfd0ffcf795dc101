// SPDX-License-Identifier: Apache-2.0

// Leases: appending bytes to an upload session.

package bucket

import (
	"context"
	"encoding"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/berth-oci/registry"
)

// A lease collects its bytes in a buffer of up to maxBuffer bytes. If they do not
// fill it, they are written in one call, directly as the blob if they are all of
// it. Otherwise they are streamed to an object.
const (
	minBuffer = 4 << 10
	maxBuffer = 1 << 20
)

// lease is a registry.Upload.
type lease struct {
	*leasedSession
	store *Store
	ctx   context.Context // of the request, but not cancelled with it, since received bytes are kept
	id    string

	state uploadState // at the start of the lease; without a revision for a new session
	hash  hash.Hash   // of all bytes of the session
	size  int64       // of the session
	parts []part      // that this lease has written
	buf   []byte      // bytes that are in no part
	part  part        // the one that out writes
	out   *writer     // nil if no part is being written

	touched time.Time // when the session's idle timer was last reset
	closed  bool
}

func (s *Store) newLease(ctx context.Context, id string, session *leasedSession, st uploadState) *lease {
	return &lease{
		leasedSession: session,
		store:         s,
		ctx:           context.WithoutCancel(ctx),
		id:            id,
		state:         st,
		hash:          st.Algorithm.Hash(),
		size:          st.Size,
	}
}

func (l *lease) ID() string  { return l.id }
func (l *lease) Size() int64 { return l.size }

// isOver reports whether the lease or its session has ended.
func (l *lease) isOver() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.closed || l.ended
}

// ReadFrom appends the bytes of r. If the bucket fails, all bytes of this lease
// are discarded, since half an object is useless.
func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	emptyReads := 0 // in a row
	for {
		if l.isOver() {
			return total, registry.ErrBlobUploadUnknown
		}
		space := l.freeSpace()
		n, err := r.Read(space)
		total += int64(n)
		if n > 0 {
			emptyReads = 0
			if err := l.append(space[:n]); err != nil {
				return 0, errors.Join(err, l.Rollback())
			}
		} else if emptyReads++; emptyReads == 100 && err == nil {
			err = io.ErrNoProgress
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// freeSpace returns the part of the buffer that the next bytes can be read into:
// after the collected bytes or, once bytes are streamed to an object, all of it.
func (l *lease) freeSpace() []byte {
	if len(l.buf) == cap(l.buf) {
		grown := make([]byte, len(l.buf), min(max(2*cap(l.buf), minBuffer), maxBuffer))
		copy(grown, l.buf)
		l.buf = grown
	}
	return l.buf[len(l.buf):cap(l.buf)]
}

// append appends bytes that are in the buffer's free space.
func (l *lease) append(p []byte) error {
	l.hash.Write(p)
	l.size += int64(len(p))
	if l.out != nil {
		l.part.Size += int64(len(p))
		if _, err := l.out.Write(p); err != nil {
			return err
		}
	} else if l.buf = l.buf[:len(l.buf)+len(p)]; len(l.buf) == maxBuffer {
		if err := l.beginPart(); err != nil {
			return err
		}
	}
	return l.keepAlive()
}

// beginPart begins to stream to an object, with the bytes in the buffer.
func (l *lease) beginPart() error {
	l.part = part{Name: newUUID(), Size: int64(len(l.buf))}
	var err error
	if l.out, err = l.store.newWriter(l.ctx, partKey(l.id, l.part.Name)); err != nil {
		return err
	}
	_, err = l.out.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// keepAlive resets the session's idle timer now and then while bytes arrive.
func (l *lease) keepAlive() error {
	if l.state.Revision == "" || time.Since(l.touched) < l.store.opts.UploadIdle/4 {
		return nil
	}
	st, err := l.store.activeState(l.ctx, l.repo, l.id)
	if err != nil {
		return err
	}
	l.touched = time.Now()
	return l.store.touch(l.ctx, l.id, st)
}

// flush writes the remaining bytes of this lease to a part. When it returns, all
// parts exist in the bucket.
func (l *lease) flush() error {
	switch {
	case l.out != nil:
		out := l.out
		l.out = nil
		if err := out.close(); err != nil {
			return err
		}
	case len(l.buf) > 0:
		l.part = part{Name: newUUID(), Size: int64(len(l.buf))}
		if err := l.store.put(l.ctx, partKey(l.id, l.part.Name), l.buf); err != nil {
			return err
		}
		l.buf = l.buf[:0]
	default:
		return nil
	}
	l.parts = append(l.parts, l.part)
	return nil
}

// allParts returns the parts of the session, including those of this lease.
func (l *lease) allParts() []part {
	return append(l.state.Parts[:len(l.state.Parts):len(l.state.Parts)], l.parts...)
}

// Rollback discards the bytes appended through this lease.
func (l *lease) Rollback() error {
	if l.isOver() {
		return nil
	}
	l.discard()
	return l.reset()
}

// discard discards the bytes appended through this lease.
func (l *lease) discard() {
	if l.out != nil {
		l.out.abort()
		l.out = nil
	}
	for _, p := range l.parts {
		l.store.tryRemove(l.ctx, partKey(l.id, p.Name))
	}
	l.parts, l.buf = nil, l.buf[:0]
}

// reset sets the size and the hash to those at the start of the lease.
func (l *lease) reset() error {
	l.size = l.state.Size
	l.hash.Reset()
	if l.state.Hash == nil {
		return nil
	}
	return l.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.state.Hash)
}

// Close ends the lease and keeps the bytes appended through it. If another process
// has leased the session too, and closed its lease first, they are discarded.
// Errors: ErrUploadBusy, ErrBlobUploadUnknown, ErrBlobUploadInvalid if the ID of a
// new session has come into use meanwhile.
func (l *lease) Close() error {
	if l.closed {
		return nil
	}
	over := l.isOver()
	defer func() {
		l.closed = true
		l.buf = nil
		l.store.removeLease(l.id)
	}()
	if over {
		l.discard()
		return nil
	}
	err := l.save()
	if err != nil {
		l.discard()
		return err
	}
	l.store.mu.Lock()
	cancelled := l.ended
	l.saved = true
	l.store.mu.Unlock()
	if cancelled { // while we were saving it
		if _, err := l.store.endUpload(l.ctx, l.id, l.state); err != nil {
			return err
		}
		l.store.removeUpload(l.ctx, l.id, l.state.Parts)
	}
	return nil
}

// save writes the session's state.
func (l *lease) save() error {
	if l.state.Revision != "" && l.size == l.state.Size {
		return l.store.touch(l.ctx, l.id, l.state)
	}
	next, err := l.nextState()
	if err != nil {
		return err
	}
	l.state, err = l.store.replaceState(l.ctx, l.id, l.state, next)
	return err
}

// nextState flushes, and returns the state that includes the bytes of this lease.
func (l *lease) nextState() (uploadState, error) {
	if err := l.flush(); err != nil {
		return uploadState{}, err
	}
	next := l.state
	next.Parts, next.Size, next.Used = l.allParts(), l.size, time.Now()
	if l.size > 0 {
		var err error
		if next.Hash, err = l.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			return uploadState{}, err
		}
	}
	return next, nil
}
