// SPDX-License-Identifier: Apache-2.0

// The lease of an upload session in memory, and the temporary files for content
// that does not fit into memory.

package registry

import (
	"context"
	"encoding"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// memLease is an Upload.
type memLease struct {
	*memUpload
	store  *MemStore
	closed bool  // another caller may have the session now
	size   int64 // when it was closed

	// The state at the start of the lease, for Rollback. The hash's is saved
	// when the first bytes arrive, after all before them are hashed.
	startSize int64
	startHash []byte
	saved     bool // startHash is requested
}

func (l *memLease) ID() string { return l.id }

func (l *memLease) Size() int64 {
	if l.closed {
		return l.size
	}
	return l.blob.size
}

// done reports whether the lease or its session has ended.
func (l *memLease) done() bool { return l.closed || l.ended.Load() }

func (l *memLease) ReadFrom(r io.Reader) (total int64, err error) {
	defer l.hash.end()
	for {
		if l.done() {
			return total, ErrBlobUploadUnknown
		}
		if !l.saved && l.startSize > 0 {
			l.hash.submit(hashTask{save: &l.startHash}, false)
		}
		l.saved = true
		if l.blob.onDisk() {
			n, err := l.readToFile(r)
			return total + n, err
		}
		read := l.newSegment
		if last := l.blob.last(); len(last) < cap(last) {
			read = l.fillSegment
		} else if l.shouldSpill() {
			if err := l.spill(); err != nil {
				return total, err
			}
			continue
		}
		p, err := read(r)
		if len(p) > 0 {
			l.blob.extend(len(p))
			l.hash.submit(hashTask{piece: p}, total >= asyncHashFrom)
		}
		total += int64(len(p))
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// fillSegment reads into the spare capacity of the last segment.
func (l *memLease) fillSegment(r io.Reader) ([]byte, error) {
	last := l.blob.last()
	p := last[len(last):cap(last)]
	n, err := readSome(r, p)
	return p[:n], err
}

// newSegment reads into a new segment, which it allocates after the first bytes
// have arrived, and of exactly their size if they are the entire content.
func (l *memLease) newSegment(r io.Reader) ([]byte, error) {
	first := firstReadPool.Get().(*[firstRead]byte)
	defer firstReadPool.Put(first)
	n := 0
	var err error
	for n < len(first) && err == nil {
		var more int
		more, err = readSome(r, first[n:])
		n += more
	}
	if n == 0 {
		return nil, err
	}
	b := &l.blob
	size := int64(n)
	if err != io.EOF || b.size > 0 { // more may follow
		size = max(2*size, min(max(b.size, minSegment), maxSegment))
	}
	size, full := l.store.reserve(l.memUpload, int64(n), size, false)
	if full != nil {
		return nil, full
	}
	segment := make([]byte, size)
	b.segments = append(b.segments, segment[:0])
	copy(segment, first[:n])
	return segment[:n], err
}

// firstRead is the number of bytes that are read before a segment is allocated.
const firstRead = 16 << 10

var firstReadPool = sync.Pool{New: func() any { return new([firstRead]byte) }}

// readSome reads at least one byte, unless r returns none for too long.
func readSome(r io.Reader, p []byte) (n int, err error) {
	for range 100 {
		if n, err = r.Read(p); n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func (l *memLease) Commit(_ context.Context, d digest.Digest) error {
	if l.done() {
		return ErrBlobUploadUnknown
	}
	if err := l.verify(d); err != nil {
		return err
	}
	b := l.blob.trimmed()
	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.ended.Load() {
		return ErrBlobUploadUnknown
	}
	// From here on the bytes belong to the blob: they are not counted twice.
	had := l.reserved
	m.release(l.memUpload)
	err := m.updateLocked(func(c *memContent) error {
		c.addBlob(l.repo, d, b)
		return nil
	})
	if err != nil {
		m.addReserved(l.memUpload, had.onDisk, true)
		m.addReserved(l.memUpload, had.memory(), false)
		return err
	}
	m.end(l.memUpload)
	return nil
}

// verify returns an error unless d is the digest of the session's bytes.
func (l *memLease) verify(d digest.Digest) error {
	l.hash.wait()
	h := l.hash.hash
	if a := d.Algorithm(); a != l.algorithm {
		if !a.Available() {
			return errBadAlgorithm
		}
		// The client announced another algorithm, or none.
		h = a.Hash()
		if _, err := (&memReader{memBlob: &l.blob}).WriteTo(h); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return ErrDigestInvalid
	}
	return nil
}

func (l *memLease) Rollback() error {
	if l.done() || l.blob.size == l.startSize {
		return nil // published bytes must not change
	}
	l.hash.wait()
	l.hash.hash.Reset()
	if l.startSize > 0 {
		if err := l.hash.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
			return err
		}
	}
	freed := l.blob.truncate(l.startSize)

	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.lastSize = l.blob.size
	l.store.addReserved(l.memUpload, -freed, l.blob.onDisk())
	return nil
}

func (l *memLease) Close() error {
	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed, l.leased, l.size = true, false, l.blob.size
	if l.ended.Load() {
		m.release(l.memUpload)
		return nil
	}
	l.lastSize = l.blob.size
	l.since = time.Now()
	l.element = m.idle.PushBack(l.memUpload)
	return nil
}

// A blob smaller than a segment of the maximum size stays in memory: a file
// would cost more than it saves.
const minSpilled = maxSegment

// errNoFile hides the operating system's error from clients.
var errNoFile = fmt.Errorf("%w: the registry's memory and its temporary files are full", ErrTooLarge)

// shouldSpill reports whether the next segment goes to a file: large blobs may
// use half of the memory, and leave the rest to everything small.
func (l *memLease) shouldSpill() bool {
	m := l.store
	limit := m.Limits.MemoryBytes
	if limit <= 0 || l.blob.size < minSpilled {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load().bytes.memory()+m.reserved.memory()+maxSegment > limit/2
}

// spill moves the upload's content to a file.
func (l *memLease) spill() error {
	f, err := os.CreateTemp("", "berth-*")
	if err != nil {
		return errNoFile
	}
	os.Remove(f.Name()) // on systems that can remove an open file, it disappears with its last reader
	l.hash.wait()       // it reads the segments
	b := &l.blob
	for _, s := range b.segments {
		if _, err := f.Write(s); err != nil {
			f.Close()
			return errNoFile
		}
	}
	b.segments, b.file = nil, f

	m := l.store
	m.mu.Lock()
	defer m.mu.Unlock()
	m.addReserved(l.memUpload, entryOverhead-l.reserved.memory(), false)
	m.addReserved(l.memUpload, b.size, true)
	return nil
}

// readToFile reads to the upload's file until the end of r.
func (l *memLease) readToFile(r io.Reader) (total int64, err error) {
	l.hash.wait()
	b := &l.blob
	buffer := spillBufferPool.Get().(*[spillBuffer]byte)
	defer spillBufferPool.Put(buffer)
	for {
		n, err := readSome(r, buffer[:])
		if n > 0 {
			if l.done() {
				return total, ErrBlobUploadUnknown
			}
			if _, err := l.store.reserve(l.memUpload, int64(n), int64(n), true); err != nil {
				return total, err
			}
			if _, err := b.file.WriteAt(buffer[:n], b.size); err != nil {
				return total, errNoFile // the reservation is released with the upload
			}
			l.hash.submit(hashTask{piece: buffer[:n]}, false)
			b.size += int64(n)
			total += int64(n)
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// spillBuffer is the number of bytes that are written to a file at once.
const spillBuffer = 64 << 10

var spillBufferPool = sync.Pool{New: func() any { return new([spillBuffer]byte) }}
