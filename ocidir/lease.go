// SPDX-License-Identifier: Apache-2.0

// Leases of upload sessions: appending bytes and publishing them.

package ocidir

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// lease is a registry.Upload.
type lease struct {
	*upload
	s      *Store
	closed bool
	size   int64 // when it was closed

	// The session when the lease began, for Rollback.
	startSize int64
	startHash []byte
}

// newLease leases a session. It must be called with the mu of sessions held.
func (s *Store) newLease(u *upload) (*lease, error) {
	state, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
	u.leased = true
	return &lease{upload: u, s: s, startSize: u.uploadState.Size, startHash: state}, nil
}

func (l *lease) ID() string { return l.upload.ID }

func (l *lease) Size() int64 {
	if l.closed {
		return l.size
	}
	return l.uploadState.Size
}

// isOver reports whether the lease is closed or the session has ended.
func (l *lease) isOver() bool { return l.closed || l.ended.Load() }

// openFile returns the data file. A session that ends meanwhile closes it.
// Errors: ErrBlobUploadUnknown.
func (l *lease) openFile() (*os.File, error) {
	l.data.Lock()
	defer l.data.Unlock()
	switch {
	case l.isOver(): // its file must not be created again
		return nil, registry.ErrBlobUploadUnknown
	case l.file != nil:
		return l.file, nil
	}
	f, err := l.s.files.root.OpenFile(l.dataFile, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	l.file = f
	return f, nil
}

// fileError returns the error for a failure of the data file, which may have been
// closed because the session has ended.
func (l *lease) fileError(err error) error {
	if err != nil && l.isOver() {
		return registry.ErrBlobUploadUnknown
	}
	return l.s.storeError(err)
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	f, err := l.openFile()
	if err != nil {
		return 0, l.fileError(err)
	}
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, err := l.readHalf(r, buffer[:])
		if l.isOver() {
			return total, registry.ErrBlobUploadUnknown
		}
		// After an error the bytes are not counted, and the next ones
		// overwrite them.
		if _, err := f.WriteAt(buffer[:n], l.uploadState.Size); err != nil {
			return total, l.fileError(err)
		}
		l.hash.Write(buffer[:n])
		l.uploadState.Size += int64(n)
		total += int64(n)
		l.updateLastSize()
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// updateLastSize makes the session's size visible to others.
func (l *lease) updateLastSize() {
	l.s.sessions.mu.Lock()
	l.lastSize = l.uploadState.Size
	l.s.sessions.mu.Unlock()
}

// readHalf reads until p is at least half full, so that small reads do not cause
// small writes. Each byte that arrives resets the session's idle timer.
func (l *lease) readHalf(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p)/2 && err == nil; {
		var more int
		more, err = r.Read(p[n:])
		if n += more; more > 0 {
			l.use()
			empty = 0
		} else if empty++; empty == 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

func (l *lease) Commit(_ context.Context, d digest.Digest) error {
	if l.isOver() {
		return registry.ErrBlobUploadUnknown
	}
	l.use()
	if err := l.checkDigest(d); err != nil {
		return err
	}
	if err := l.syncFile(); l.isOver() {
		return registry.ErrBlobUploadUnknown
	} else if err != nil {
		// The system may have dropped bytes of the file, and report success
		// the next time.
		all := &l.s.sessions
		all.mu.Lock()
		if !l.ended.Load() {
			all.end(l.upload)
		}
		l.s.unlockSessions()
		return l.s.storeError(err)
	}
	// From here on the session can't be cancelled.
	all := &l.s.sessions
	all.mu.Lock()
	if l.ended.Load() {
		all.mu.Unlock()
		return registry.ErrBlobUploadUnknown
	}
	all.remove(l.upload)
	l.ended.Store(true)
	all.mu.Unlock()

	// From here on the file may be a blob's, so the next process must not find
	// a session that would write to it.
	l.s.files.remove(l.stateFile)
	err := l.s.heal(l.Repo, d, l.dataFile)
	if err == nil {
		err = l.s.addBlob(l.Repo, d, l.dataFile)
	}
	if err != nil {
		all.mu.Lock()
		defer all.mu.Unlock()
		if _, used := all.byKey[l.key()]; !used && l.s.linkCount(l.dataFile) <= 1 { // a blob's file must not change
			l.ended.Store(false)
			l.use()
			all.add(l.upload)
		}
	}
	return err
}

// checkDigest returns an error unless d is the digest of the session's bytes.
func (l *lease) checkDigest(d digest.Digest) error {
	h := l.hash
	if a := d.Algorithm(); a != l.Algorithm {
		if !a.Available() {
			return fmt.Errorf("%w: unsupported digest algorithm", registry.ErrDigestInvalid)
		}
		// The client announced another algorithm, or none.
		f, err := l.openFile()
		if err != nil {
			return l.fileError(err)
		}
		h = a.Hash()
		if _, err := io.Copy(h, io.NewSectionReader(f, 0, l.uploadState.Size)); err != nil {
			return l.fileError(err)
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return registry.ErrDigestInvalid
	}
	return nil
}

// syncFile truncates the data file to the session's bytes, and syncs it.
func (l *lease) syncFile() error {
	f, err := l.openFile()
	if err != nil {
		return err
	}
	if err := f.Truncate(l.uploadState.Size); err != nil {
		return err
	}
	return f.Sync()
}

func (l *lease) Rollback() error {
	if l.isOver() || l.uploadState.Size == l.startSize {
		return nil // a published file must not change
	}
	f, err := l.openFile()
	if err == nil {
		err = f.Truncate(l.startSize)
	}
	if l.ended.Load() {
		return nil
	}
	if err := l.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
		return err
	}
	l.uploadState.Size = l.startSize
	l.updateLastSize()
	return err
}

func (l *lease) Close() error {
	if l.closed {
		return nil
	}
	l.closed, l.size = true, l.uploadState.Size
	err := l.closeFile()
	if !l.ended.Load() {
		err = errors.Join(err, l.s.writeState(l.upload))
	}
	all := &l.s.sessions
	all.mu.Lock()
	defer all.mu.Unlock()
	if l.ended.Load() { // published, or ended while the state was written
		l.s.removeFiles(l.upload)
		return nil
	}
	l.leased, l.lastSize = false, l.uploadState.Size
	l.use()
	return l.s.storeError(err)
}
