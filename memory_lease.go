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
	return l.currentSize()
}

func (u *memUpload) currentSize() int64 {
	u.data.Lock()
	defer u.data.Unlock()
	return u.blob.size
}

// done reports whether the lease or its session has ended.
func (l *memLease) done() bool { return l.closed || l.ended.Load() }

func (l *memLease) ReadFrom(r io.Reader) (total int64, err error) {
	defer l.hash.end()
	for err == nil {
		var n int
		n, err = l.readPart(r, total)
		total += int64(n)
	}
	switch {
	case err != io.EOF:
		return total, err
	case l.ended.Load():
		return total, ErrBlobUploadUnknown
	}
	return total, nil
}

// readPart reads the next bytes to the place where they stay: into the last
// segment, into a new one, or to the file. total is what the caller has read.
func (l *memLease) readPart(r io.Reader, total int64) (int, error) {
	l.data.Lock()
	if l.done() {
		l.data.Unlock()
		return 0, ErrBlobUploadUnknown
	}
	onDisk, last := l.blob.onDisk(), l.blob.last()
	spare := last[len(last):cap(last)]
	l.reading = len(spare) > 0
	l.data.Unlock()

	if !l.saved && l.startSize > 0 {
		l.hash.submit(hashTask{save: &l.startHash}, false)
	}
	l.saved = true
	var p []byte
	var err error
	switch {
	case onDisk:
		return l.readToFile(r)
	case len(spare) > 0:
		p, err = l.fillSegment(r, spare)
	case l.shouldSpill():
		err = l.spill()
	default:
		p, err = l.newSegment(r)
	}
	if len(p) > 0 {
		l.use()
		l.hash.submit(hashTask{piece: p}, total >= asyncHashFrom)
	}
	return len(p), err
}

// fillSegment reads into the spare capacity of the last segment.
func (l *memLease) fillSegment(r io.Reader, spare []byte) ([]byte, error) {
	n, err := readSome(r, spare)
	l.data.Lock()
	defer l.data.Unlock()
	l.reading = false
	if l.ended.Load() {
		return nil, ErrBlobUploadUnknown
	}
	l.blob.extend(n)
	return spare[:n], err
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
	size, had := int64(n), l.currentSize()
	if err != io.EOF || had > 0 { // more may follow
		size = max(2*size, min(max(had, minSegment), maxSegment))
	}
	size, full := l.store.reserve(l.memUpload, int64(n), size, false)
	if full != nil {
		return nil, full
	}
	l.data.Lock()
	defer l.data.Unlock()
	if l.ended.Load() { // which has released the reservation
		return nil, ErrBlobUploadUnknown
	}
	segment := make([]byte, size)
	l.blob.segments = append(l.blob.segments, segment[:0])
	copy(segment, first[:n])
	l.blob.extend(n)
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
	l.data.Lock()
	content := l.blob.trimmed()
	done := l.done()
	l.data.Unlock()
	if done {
		return ErrBlobUploadUnknown
	}
	if err := l.verify(content, d); err != nil {
		return err
	}
	return l.store.withSpace(func() error { return l.publish(content, d) })
}

// publish makes the session's content a blob.
func (l *memLease) publish(content memBlob, d digest.Digest) error {
	m := l.store
	m.mu.Lock()
	defer m.unlock()
	if l.ended.Load() {
		return ErrBlobUploadUnknown
	}
	l.use() // or a full store would end the session just now
	// From here on the bytes belong to the blob: they are not counted twice.
	b := newStoredBlob(content)
	had := l.reserved
	m.release(l.memUpload)
	isNew := false
	err := m.updateLocked(func(c *memContent) error {
		isNew = c.addBlob(l.repo, d, b)
		return nil
	})
	if err != nil {
		m.addReserved(l.memUpload, had.onDisk, true)
		m.addReserved(l.memUpload, had.memory(), false)
		return err
	}
	if isNew { // the file is the blob's now
		l.data.Lock()
		l.blob.discard()
		l.data.Unlock()
	}
	m.end(l.memUpload)
	return nil
}

// verify returns an error unless d is the digest of the session's content.
func (l *memLease) verify(content memBlob, d digest.Digest) error {
	l.hash.wait()
	h := l.hash.hash
	if a := d.Algorithm(); a != l.algorithm {
		if !a.Available() {
			return errBadAlgorithm
		}
		// The client announced another algorithm, or none.
		h = a.Hash()
		if _, err := (&memReader{memBlob: content}).WriteTo(h); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return ErrDigestInvalid
	}
	return nil
}

func (l *memLease) Rollback() error {
	if l.done() || l.currentSize() == l.startSize {
		return nil // published bytes must not change
	}
	l.hash.wait()
	l.hash.hash.Reset()
	if l.startSize > 0 {
		if err := l.hash.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
			return err
		}
	}
	l.data.Lock()
	if l.ended.Load() {
		l.data.Unlock()
		return nil
	}
	freed, onDisk := l.blob.truncate(l.startSize), l.blob.onDisk()
	l.data.Unlock()

	l.store.mu.Lock()
	defer l.store.unlock()
	if !l.ended.Load() {
		l.lastSize = l.startSize
		l.store.addReserved(l.memUpload, -freed, onDisk)
	}
	return nil
}

func (l *memLease) Close() error {
	m := l.store
	m.mu.Lock()
	defer m.unlock()
	if l.closed {
		return nil
	}
	l.size = l.currentSize()
	l.closed, l.leased = true, false
	if l.ended.Load() {
		m.release(l.memUpload) // the segment that bytes were read into
		return nil
	}
	l.lastSize = l.size
	l.use()
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
	if limit <= 0 || l.currentSize() < minSpilled {
		return false
	}
	m.mu.Lock()
	defer m.unlock()
	return m.load().bytes.memory()+m.reserved.memory()+maxSegment > limit/2
}

// spill moves the upload's content to a file.
func (l *memLease) spill() error {
	f, err := os.CreateTemp("", "berth-*")
	if err != nil {
		return errNoFile
	}
	os.Remove(f.Name()) // on systems that can remove an open file, it disappears when it is closed
	l.hash.wait()       // it reads the segments
	l.data.Lock()
	segments := l.blob.segments
	l.data.Unlock()
	for _, s := range segments {
		if _, err := f.Write(s); err != nil {
			f.Close()
			return errNoFile
		}
	}

	m := l.store
	m.mu.Lock()
	defer m.unlock()
	if l.ended.Load() {
		m.close(f)
		return ErrBlobUploadUnknown
	}
	l.data.Lock()
	defer l.data.Unlock()
	l.blob.segments, l.blob.file = nil, f
	m.addReserved(l.memUpload, entryOverhead-l.reserved.memory(), false)
	m.addReserved(l.memUpload, l.blob.size, true)
	return nil
}

// readToFile reads the next bytes to the upload's file.
func (l *memLease) readToFile(r io.Reader) (int, error) {
	l.hash.wait()
	buffer := spillBufferPool.Get().(*[spillBuffer]byte)
	defer spillBufferPool.Put(buffer)
	n, err := readSome(r, buffer[:])
	if n == 0 {
		return 0, err
	}
	if _, err := l.store.reserve(l.memUpload, int64(n), int64(n), true); err != nil {
		return 0, err
	}
	if err := l.writeToFile(buffer[:n]); err != nil {
		return 0, err
	}
	l.use()
	l.hash.submit(hashTask{piece: buffer[:n]}, false)
	return n, err
}

func (l *memLease) writeToFile(p []byte) error {
	l.data.Lock()
	defer l.data.Unlock()
	if l.ended.Load() {
		return ErrBlobUploadUnknown
	}
	if _, err := l.blob.file.WriteAt(p, l.blob.size); err != nil {
		return errNoFile // the reservation is released with the upload
	}
	l.blob.size += int64(len(p))
	return nil
}

// spillBuffer is the number of bytes that are written to a file at once.
const spillBuffer = 64 << 10

var spillBufferPool = sync.Pool{New: func() any { return new([spillBuffer]byte) }}
