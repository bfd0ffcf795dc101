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
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// lease is a registry.Upload.
type lease struct {
	*upload
	s      *Store
	file   *os.File // the data file, nil until it is needed
	closed bool
	size   int64 // when it was closed

	// The session when the lease began, for Rollback.
	startSize int64
	startHash []byte
}

func (s *Store) newLease(u *upload) (*lease, error) {
	state, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
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
func (l *lease) isOver() bool {
	if l.closed {
		return true
	}
	l.s.sessions.mu.Lock()
	defer l.s.sessions.mu.Unlock()
	return l.ended
}

// openFile opens the data file.
func (l *lease) openFile() error {
	if l.file != nil {
		return nil
	}
	f, err := os.OpenFile(l.dataFile, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	l.file = f
	return nil
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	if l.isOver() {
		return 0, registry.ErrBlobUploadUnknown
	}
	if err := l.openFile(); err != nil {
		return 0, storeError(err)
	}
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, err := readHalf(r, buffer[:])
		if n > 0 && l.isOver() {
			return total, registry.ErrBlobUploadUnknown
		}
		// After an error the bytes are not counted, and the next ones
		// overwrite them.
		if _, err := l.file.WriteAt(buffer[:n], l.uploadState.Size); err != nil {
			return total, storeError(err)
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
// small writes.
func readHalf(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p)/2 && err == nil; {
		var more int
		more, err = r.Read(p[n:])
		if n += more; more > 0 {
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
	if err := l.checkDigest(d); err != nil {
		return err
	}
	if err := l.syncFile(); err != nil {
		return storeError(err)
	}
	// From here on the session can't be cancelled.
	all := &l.s.sessions
	all.mu.Lock()
	if l.ended {
		all.mu.Unlock()
		return registry.ErrBlobUploadUnknown
	}
	delete(all.byID, l.upload.ID)
	l.ended = true
	all.mu.Unlock()

	// From here on the file may be a blob's, so the next process must not find
	// a session that would write to it.
	os.Remove(l.stateFile)
	err := l.s.addBlob(l.Repo, d, l.dataFile)
	if err != nil {
		all.mu.Lock()
		defer all.mu.Unlock()
		if _, used := all.byID[l.upload.ID]; !used {
			l.ended = false
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
		if err := l.openFile(); err != nil {
			return storeError(err)
		}
		h = a.Hash()
		if _, err := io.Copy(h, io.NewSectionReader(l.file, 0, l.uploadState.Size)); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return registry.ErrDigestInvalid
	}
	return nil
}

// syncFile truncates the data file to the session's bytes, and syncs it.
func (l *lease) syncFile() error {
	if err := l.openFile(); err != nil {
		return err
	}
	if err := l.file.Truncate(l.uploadState.Size); err != nil {
		return err
	}
	return l.file.Sync()
}

func (l *lease) Rollback() error {
	if l.isOver() || l.uploadState.Size == l.startSize {
		return nil // a published file must not change
	}
	if err := l.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
		return err
	}
	l.uploadState.Size = l.startSize
	l.updateLastSize()
	return l.file.Truncate(l.startSize)
}

func (l *lease) Close() error {
	if l.closed {
		return nil
	}
	l.closed, l.size = true, l.uploadState.Size
	var err error
	if l.file != nil {
		err = l.file.Close()
	}
	all := &l.s.sessions
	all.mu.Lock()
	ended := l.ended
	all.mu.Unlock()
	if !ended {
		err = errors.Join(err, l.writeState())
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if l.ended {
		l.leased = false
		l.removeFiles()
		return nil
	}
	all.addIdle(l.upload, time.Now())
	return storeError(err)
}
