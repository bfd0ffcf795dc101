// SPDX-License-Identifier: Apache-2.0

// Leases: appending bytes to an upload session.

package bucket

import (
	"context"
	"encoding"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"sync"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
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
	repo  string
	id    string
	key   string // sessionKey

	state uploadState // at the start of the lease; without a revision for a new session
	hash  hash.Hash   // of all bytes of the session
	crc   uint32      // likewise
	size  int64       // of the session

	// The holder of the lease alone changes these, but that abandon discards
	// them while the holder waits for bytes.
	data      sync.Mutex         // guards the fields below; not held while bytes arrive
	parts     []part             // that this lease has written
	buf       []byte             // bytes that are in no part
	part      part               // the one that out writes
	out       *writer            // nil if no part is being written
	abandoned bool               // no more parts may be written
	writeCtx  context.Context    // ctx for writing parts
	stop      context.CancelFunc // of writeCtx

	reserved int64 // of the store's memory for buffers
	writing  bool  // memory for out is reserved

	renewed time.Time // when the session's idle timer in the bucket was last reset
	closed  bool
}

func (s *Store) newLease(ctx context.Context, repo, id string, session *leasedSession, st uploadState) *lease {
	l := &lease{
		leasedSession: session,
		store:         s,
		ctx:           context.WithoutCancel(ctx),
		repo:          repo,
		id:            id,
		key:           sessionKey(repo, id),
		state:         st,
		hash:          st.Algorithm.Hash(),
		size:          st.Size,
	}
	l.writeCtx, l.stop = context.WithCancel(l.ctx)
	return l
}

func (l *lease) ID() string  { return l.id }
func (l *lease) Size() int64 { return l.size }

// isOver reports whether the lease or its session has ended.
func (l *lease) isOver() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.closed || l.ended
}

// useIfActive resets the idle timer, unless the lease or its session has ended.
func (l *lease) useIfActive() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.closed || l.ended {
		return false
	}
	l.store.use(l.leasedSession)
	return true
}

// ReadFrom appends the bytes of r. If the bucket fails, all bytes of this lease
// are discarded, since half an object is useless.
func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	emptyReads := 0 // in a row
	active := l.useIfActive()
	for {
		if !active {
			return total, registry.ErrBlobUploadUnknown
		}
		space, err := l.freeSpace()
		if err != nil {
			return total, err
		}
		n, err := r.Read(space)
		if n > 0 {
			active = l.useIfActive()
		} else {
			active = !l.isOver()
		}
		if !active {
			return total, registry.ErrBlobUploadUnknown
		}
		total += int64(n)
		if n > 0 {
			emptyReads = 0
			err := l.append(space[:n])
			if err == nil {
				err = l.keepAlive()
			}
			if l.isOver() {
				return total, registry.ErrBlobUploadUnknown
			}
			if err != nil {
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
// Errors: ErrBlobUploadUnknown if the session has ended, errBusy.
func (l *lease) freeSpace() ([]byte, error) {
	l.data.Lock()
	defer l.data.Unlock()
	if l.abandoned {
		return nil, registry.ErrBlobUploadUnknown
	}
	if len(l.buf) == cap(l.buf) {
		size := min(max(2*cap(l.buf), minBuffer), maxBuffer)
		more := int64(size) - l.reserved
		switch {
		case l.store.buffers.TryAcquire(more):
		case len(l.buf) > 0:
			// A lease that has a buffer must not wait for more of it: all could
			// wait for each other.
			if err := l.beginPart(); err != nil {
				return nil, err
			}
			return l.buf[:cap(l.buf)], nil
		default:
			if err := l.reserve(&l.store.buffers, more); err != nil {
				return nil, err
			}
		}
		l.reserved = int64(size)
		grown := make([]byte, len(l.buf), size)
		copy(grown, l.buf)
		l.buf = grown
	}
	return l.buf[len(l.buf):cap(l.buf)], nil
}

// append appends bytes that are in the buffer's free space.
func (l *lease) append(p []byte) error {
	l.hash.Write(p)
	l.crc = crc32.Update(l.crc, castagnoli, p)
	l.size += int64(len(p))
	l.data.Lock()
	defer l.data.Unlock()
	if l.abandoned {
		return registry.ErrBlobUploadUnknown
	}
	if l.out != nil {
		l.part.Size += int64(len(p))
		_, err := l.out.Write(p)
		return err
	}
	if l.buf = l.buf[:len(l.buf)+len(p)]; len(l.buf) == maxBuffer {
		return l.beginPart()
	}
	return nil
}

// beginPart begins to stream to an object, with the bytes in the buffer. It must be
// called with data held.
func (l *lease) beginPart() error {
	if err := l.reserve(&l.store.writers, objects.WriterMemory); err != nil {
		return err
	}
	l.writing = true
	l.part = part{Name: newUUID(), Size: int64(len(l.buf))}
	l.out = l.store.newWriter(l.writeCtx, partKey(l.key, l.part.Name))
	_, err := l.out.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// keepAlive resets the session's idle timer in the bucket now and then while bytes
// arrive.
func (l *lease) keepAlive() error {
	if l.state.Revision == "" || time.Since(l.renewed) < l.store.opts.UploadIdle/4 {
		return nil
	}
	st, err := l.store.openState(l.ctx, l.key)
	if err != nil {
		return err
	}
	l.renewed = time.Now()
	return l.store.renew(l.ctx, l.key, st)
}

// flush writes the remaining bytes of this lease to a part. When it returns, all
// parts exist in the bucket.
func (l *lease) flush() error {
	l.data.Lock()
	defer l.data.Unlock()
	switch {
	case l.abandoned:
		return registry.ErrBlobUploadUnknown
	case l.out != nil:
		out := l.out
		l.out = nil
		defer l.releaseWriter()
		if err := out.close(); err != nil {
			return err
		}
	case len(l.buf) > 0:
		l.part = part{Name: newUUID(), Size: int64(len(l.buf))}
		if err := l.store.put(l.writeCtx, partKey(l.key, l.part.Name), l.buf); err != nil {
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

// abandon discards the bytes appended through the lease of a session that has
// ended. Its holder may still wait for more, and gets ErrBlobUploadUnknown then.
func (l *lease) abandon() {
	l.stop() // what holds data returns soon
	l.data.Lock()
	l.abandoned = true
	l.data.Unlock()
	l.discard()
}

// discard discards the bytes appended through this lease.
func (l *lease) discard() {
	l.data.Lock()
	defer l.data.Unlock()
	if l.out != nil {
		l.out.abort()
		l.out = nil
	}
	l.releaseWriter()
	l.store.removeParts(l.ctx, l.key, l.parts)
	l.parts, l.buf = nil, l.buf[:0]
	if l.abandoned {
		l.releaseBuffer()
	}
}

// reset sets the size and the hash to those at the start of the lease.
func (l *lease) reset() error {
	l.size, l.crc = l.state.Size, l.state.CRC
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
	l.closed = true
	defer l.store.removeLease(l.key, l.leasedSession)
	defer l.stop()
	defer l.release()
	if !l.beginSaving() {
		l.discard()
		return nil
	}
	if err := l.save(); err != nil {
		l.discard()
		return err
	}
	l.store.mu.Lock()
	ended := l.ended
	l.saved = true
	l.store.mu.Unlock()
	if ended { // while we were saving it
		if _, err := l.store.setPhase(l.ctx, l.key, l.state, cancelled, ""); err != nil {
			return err
		}
		l.store.removeParts(l.ctx, l.key, l.state.Parts)
		l.store.forget(l.ctx, l.key, l.state, "")
	}
	return nil
}

// beginSaving begins the part of Close in which the session does not expire and
// keeps its key even if it is cancelled. It returns false if the session has ended.
func (l *lease) beginSaving() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.ended {
		return false
	}
	l.saving = true
	l.store.stopTimer(l.leasedSession)
	return true
}

// release frees the buffer.
func (l *lease) release() {
	l.data.Lock()
	defer l.data.Unlock()
	l.releaseBuffer()
}

// save writes the session's state.
func (l *lease) save() error {
	switch {
	case l.state.Phase != active: // it can be published again, and nothing else
		return registry.ErrBlobUploadUnknown
	case l.state.Revision != "" && l.size == l.state.Size:
		return l.store.renew(l.ctx, l.key, l.state)
	}
	next, err := l.nextState()
	if err != nil {
		return err
	}
	st, err := l.store.replaceState(l.ctx, l.key, l.state, next)
	switch {
	case err == nil:
		l.state = st
	case !isRejection(err): // the state may name the parts, now or later
		l.parts = nil
	}
	return err
}

// isRejection reports whether a change of a session was rejected: it did not take
// effect, and never will.
func isRejection(err error) bool {
	return err == registry.ErrBlobUploadUnknown || err == registry.ErrUploadBusy || err == errIDInUse
}

// nextState flushes, and returns the state that includes the bytes of this lease.
func (l *lease) nextState() (uploadState, error) {
	if err := l.flush(); err != nil {
		return uploadState{}, err
	}
	next := l.state
	next.Parts, next.Size, next.CRC = l.allParts(), l.size, l.crc
	if l.size > 0 {
		var err error
		if next.Hash, err = l.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			return uploadState{}, err
		}
	}
	return next, nil
}
