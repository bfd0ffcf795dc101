// SPDX-License-Identifier: Apache-2.0

// Leases of upload sessions: how bytes come in.

package bucket

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// session is what a process knows of a session that it has leased. The store's
// mu guards it.
type session struct {
	repo  string
	known bool  // it is there: ResumeUpload has looked
	saved bool  // it is in the bucket
	gone  bool  // cancelled or published
	size  int64 // at the start of the lease
}

// Bytes are gathered in memory up to maxBuffer: what is smaller is written at
// once, without an object of its own before. More goes to an object as it comes.
const (
	minBuffer = 4 << 10
	maxBuffer = 1 << 20
)

// lease is a registry.Upload.
type lease struct {
	*session
	store *Store
	ctx   context.Context // of the request, but not cancelled with it: what came in is kept
	id    string

	state state     // of the session, as the lease found it; without a revision: a new one
	hash  hash.Hash // of all that the session has
	size  int64
	parts []part // made through this lease
	buf   []byte // what is in none
	part  part   // that is being written, if out is set
	out   *writer

	used   time.Time // when the state said so last
	closed bool
}

var errBadAlgorithm = fmt.Errorf("%w: unsupported digest algorithm", registry.ErrDigestInvalid)

// CreateUpload opens an upload session. It is in the bucket, and so to be found
// by other processes, once Close has returned.
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
	x := &session{repo: repo, known: true}
	if err := s.take(id, x); err != nil {
		if err == registry.ErrUploadBusy {
			err = errIDInUse
		}
		return nil, err
	}
	if opts.ID != "" {
		used, err := s.exists(ctx, stateKey(id))
		if used && err == nil {
			err = errIDInUse
		}
		if err != nil {
			s.release(id)
			return nil, err
		}
	}
	st := state{Repo: repo, Algorithm: opts.Algorithm}
	return s.newLease(ctx, id, x, st), nil
}

// ResumeUpload leases an upload session. That another process has the lease is
// found out later: the first that is closed is kept.
func (s *Store) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	x := &session{repo: repo, saved: true}
	if err := s.take(id, x); err != nil {
		return nil, err
	}
	st, err := s.session(ctx, repo, id)
	if err == nil && !st.Algorithm.Available() {
		err = errBadAlgorithm
	}
	if err != nil {
		s.release(id)
		return nil, err
	}
	s.mu.Lock()
	x.known, x.size = true, st.Size
	s.mu.Unlock()
	l := s.newLease(ctx, id, x, st)
	l.used = st.Used
	if err := l.restore(); err != nil {
		s.release(id)
		return nil, err
	}
	return l, nil
}

func (s *Store) newLease(ctx context.Context, id string, x *session, st state) *lease {
	return &lease{
		session: x,
		store:   s,
		ctx:     context.WithoutCancel(ctx),
		id:      id,
		state:   st,
		hash:    st.Algorithm.Hash(),
		size:    st.Size,
	}
}

// take notes that this process has a session.
// Errors: ErrUploadBusy, ErrBlobUploadUnknown where it is of another
// repository, ErrTooManyRequests.
func (s *Store) take(id string, x *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.leases[id]; ok {
		if other.repo != x.repo && x.saved {
			return registry.ErrBlobUploadUnknown
		}
		return registry.ErrUploadBusy
	}
	if s.opts.Uploads > 0 && len(s.leases) >= s.opts.Uploads {
		return fmt.Errorf("%w: too many uploads in progress", registry.ErrTooManyRequests)
	}
	s.leases[id] = x
	return nil
}

func (s *Store) release(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, id)
}

// leasedSize returns the size of a session that this process has, as of the
// start of the lease.
func (s *Store) leasedSize(repo, id string) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.leases[id]
	if !ok || x.repo != repo || x.gone || !x.known {
		return 0, false
	}
	return x.size, true
}

// cancelUnsaved cancels a session that is nowhere but in this process.
func (s *Store) cancelUnsaved(repo, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.leases[id]
	if !ok || x.repo != repo || x.saved || x.gone {
		return false
	}
	x.gone = true
	return true
}

// cancelLease tells who has a session that it is gone.
func (s *Store) cancelLease(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.leases[id]; ok {
		x.gone = true
	}
}

func (l *lease) ID() string  { return l.id }
func (l *lease) Size() int64 { return l.size }

// ended reports whether there is nothing left to do for this lease.
func (l *lease) ended() bool {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.closed || l.gone
}

// ReadFrom appends what r gives. If the bucket fails, what came through this
// lease is dropped: what is half there is of no use.
func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	empty := 0 // reads that gave nothing, in a row
	for {
		if l.ended() {
			return total, registry.ErrBlobUploadUnknown
		}
		free := l.free()
		n, err := r.Read(free)
		total += int64(n)
		if n > 0 {
			empty = 0
			if err := l.append(free[:n]); err != nil {
				return 0, errors.Join(err, l.Rollback())
			}
		} else if empty++; empty == 100 && err == nil {
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

// free returns where the next bytes may go: after those that are gathered, or
// anywhere in the buffer once they go to an object.
func (l *lease) free() []byte {
	if len(l.buf) == cap(l.buf) {
		grown := make([]byte, len(l.buf), min(max(2*cap(l.buf), minBuffer), maxBuffer))
		copy(grown, l.buf)
		l.buf = grown
	}
	return l.buf[len(l.buf):cap(l.buf)]
}

// append takes bytes that are in free.
func (l *lease) append(p []byte) error {
	l.hash.Write(p)
	l.size += int64(len(p))
	if l.out != nil {
		l.part.Size += int64(len(p))
		if _, err := l.out.Write(p); err != nil {
			return err
		}
	} else if l.buf = l.buf[:len(l.buf)+len(p)]; len(l.buf) == maxBuffer {
		if err := l.spill(); err != nil {
			return err
		}
	}
	return l.stay()
}

// spill begins an object with what was gathered.
func (l *lease) spill() error {
	l.part = part{Name: newUUID(), Size: int64(len(l.buf))}
	var err error
	if l.out, err = l.store.write(l.ctx, partKey(l.id, l.part.Name)); err != nil {
		return err
	}
	_, err = l.out.Write(l.buf)
	l.buf = l.buf[:0]
	return err
}

// stay keeps a session from being idle while bytes come in for long.
func (l *lease) stay() error {
	if l.state.Revision == "" || time.Since(l.used) < l.store.opts.UploadIdle/4 {
		return nil
	}
	st, err := l.store.session(l.ctx, l.repo, l.id)
	if err != nil {
		return err
	}
	l.used = time.Now()
	return l.store.use(l.ctx, l.id, st)
}

// flush makes an object of what came through this lease. It is there when flush
// returns.
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

// all returns the parts of the session, with those of this lease.
func (l *lease) all() []part {
	return append(l.state.Parts[:len(l.state.Parts):len(l.state.Parts)], l.parts...)
}

// Rollback drops what was appended through this lease.
func (l *lease) Rollback() error {
	if l.ended() {
		return nil
	}
	l.drop()
	return l.restore()
}

// drop drops what was appended through this lease from the bucket.
func (l *lease) drop() {
	if l.out != nil {
		l.out.abort()
		l.out = nil
	}
	for _, p := range l.parts {
		l.store.discard(l.ctx, partKey(l.id, p.Name))
	}
	l.parts, l.buf = nil, l.buf[:0]
}

// restore has the lease stand where it began.
func (l *lease) restore() error {
	l.size = l.state.Size
	l.hash.Reset()
	if l.state.Hash == nil {
		return nil
	}
	return l.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.state.Hash)
}

// Close ends the lease, and keeps what came through it. If another process was
// faster it is dropped.
// Errors: ErrUploadBusy, ErrBlobUploadUnknown, ErrBlobUploadInvalid where the
// ID of a new session is in use since.
func (l *lease) Close() error {
	if l.closed {
		return nil
	}
	ended := l.ended()
	defer func() {
		l.closed = true
		l.buf = nil
		l.store.release(l.id)
	}()
	if ended {
		l.drop()
		return nil
	}
	err := l.save()
	if err != nil {
		l.drop()
		return err
	}
	l.store.mu.Lock()
	gone := l.gone
	l.saved = true
	l.store.mu.Unlock()
	if gone { // cancelled while we saved it
		if _, err := l.store.end(l.ctx, l.id, l.state); err != nil {
			return err
		}
		l.store.clear(l.ctx, l.id, l.state.Parts)
	}
	return nil
}

// save writes the session's state.
func (l *lease) save() error {
	if l.state.Revision != "" && l.size == l.state.Size {
		return l.store.use(l.ctx, l.id, l.state)
	}
	next, err := l.next()
	if err != nil {
		return err
	}
	l.state, err = l.store.change(l.ctx, l.id, l.state, next)
	return err
}

// next returns the state with what came through this lease, all of which is in
// the bucket then.
func (l *lease) next() (state, error) {
	if err := l.flush(); err != nil {
		return state{}, err
	}
	next := l.state
	next.Parts, next.Size, next.Used = l.all(), l.size, time.Now()
	if l.size > 0 {
		var err error
		if next.Hash, err = l.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			return state{}, err
		}
	}
	return next, nil
}

// Commit publishes the session's bytes as a blob.
//
// The session ends first, by a conditional write, and only who has ended it
// publishes: so what was cancelled, here or in another process, is not
// published after that. If it can't be published, the session is brought back.
func (l *lease) Commit(ctx context.Context, d digest.Digest) error {
	if l.ended() {
		return registry.ErrBlobUploadUnknown
	}
	if err := l.verify(d); err != nil {
		return err
	}
	undo, err := l.endSession()
	if err != nil {
		return err
	}
	// From here on it goes to its end, or back.
	err = l.store.publish(l.ctx, l.repo, d, l.size, "", l.writeData)
	if err != nil {
		return errors.Join(err, undo())
	}
	if l.state.Revision != "" {
		l.store.clear(l.ctx, l.id, l.all())
		l.parts = nil
	}
	return nil // what else there is goes with Close
}

// verify compares the digest of the session's bytes with d.
func (l *lease) verify(d digest.Digest) error {
	h, a := l.hash, d.Algorithm()
	if a != l.state.Algorithm {
		if !a.Available() {
			return errBadAlgorithm
		}
		// The client chose another algorithm than it had announced, if any.
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

// endSession ends the session for all others. undo brings it back.
func (l *lease) endSession() (undo func() error, err error) {
	l.store.mu.Lock()
	if l.gone {
		l.store.mu.Unlock()
		return nil, registry.ErrBlobUploadUnknown
	}
	l.gone = true
	l.store.mu.Unlock()
	back := func() {
		l.store.mu.Lock()
		l.gone = false
		l.store.mu.Unlock()
	}
	if l.state.Revision == "" {
		return func() error { back(); return nil }, nil
	}
	// What came through this lease is not in the state, so what is brought back
	// is the session as the lease found it.
	ended, err := l.store.end(l.ctx, l.id, l.state)
	if err != nil {
		if !errors.Is(err, registry.ErrBlobUploadUnknown) {
			back()
		}
		return nil, err
	}
	return func() error {
		st, err := l.store.revive(l.ctx, l.id, ended)
		if err != nil {
			return err // it is over: the client has to begin again
		}
		l.state = st
		back()
		return nil
	}, nil
}

// writeData writes the session's bytes as one object: from memory, by a copy
// that the provider makes, or, of several parts, through this process.
func (l *lease) writeData(key string) error {
	s := l.store
	if l.out == nil && len(l.parts) == 0 && len(l.state.Parts) == 0 {
		return s.put(l.ctx, key, l.buf)
	}
	if err := l.flush(); err != nil {
		return err
	}
	if all := l.all(); len(all) == 1 && all[0].Size <= maxCopy {
		return s.copy(l.ctx, key, partKey(l.id, all[0].Name), all[0].Size)
	}
	w, err := s.write(l.ctx, key)
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
	for _, p := range l.all() {
		r := l.store.newReader(l.ctx, partKey(l.id, p.Name), p.Size)
		_, err := r.WriteTo(w)
		r.Close()
		if err != nil {
			return err
		}
	}
	_, err := io.Copy(w, bytes.NewReader(l.buf))
	return err
}
