// SPDX-License-Identifier: Apache-2.0

// Blobs in memory, in segments, and their readers.

package registry

import (
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// memBlob is content in segments, none of which is empty, or in a file.
type memBlob struct {
	segments [][]byte
	file     *os.File // instead of segments
	size     int64
}

// storedBlob is a published blob, whose content never changes. Stores and
// readers share it; its file is closed when the last of them has released it.
//
// A reader counts itself and then looks whether the store still has the blob; a
// store gives the blob up and then looks for readers. So one of the two sees the
// other.
type storedBlob struct {
	memBlob
	readers  atomic.Int64
	released atomic.Bool // by a store

	mu      sync.Mutex // guards the fields below
	stores  int        // that have the blob; discarded clones included
	counted []func()   // for stores that count the blob until its last reader is closed

	one [1][]byte // segments, if there is one, as of most blobs: one object less for Go's collector
}

// newStoredBlob returns a blob that one store has.
func newStoredBlob(content memBlob) *storedBlob {
	b := &storedBlob{memBlob: content, stores: 1}
	if len(content.segments) == 1 {
		b.segments = append(b.one[:0], content.segments[0])
	}
	return b
}

// release is called by a store that has given the blob up. It reports whether
// readers still have it: then the store must count its bytes until forget is
// called. Otherwise the caller must close the file, if any.
func (b *storedBlob) release(forget func()) (isRead bool, unused *os.File) {
	b.released.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stores--
	if b.readers.Load() > 0 {
		b.counted = append(b.counted, forget)
		return true, nil
	}
	return false, b.unusedFile()
}

// closeReader is called when a reader is closed.
func (b *storedBlob) closeReader() {
	if b.readers.Add(-1) > 0 || !b.released.Load() {
		return
	}
	b.mu.Lock()
	var counted []func()
	var unused *os.File
	if b.readers.Load() == 0 { // no other was opened meanwhile
		counted, b.counted = b.counted, nil
		unused = b.unusedFile()
	}
	b.mu.Unlock()
	if unused != nil {
		unused.Close()
	}
	for _, forget := range counted {
		forget()
	}
}

// unusedFile returns the file of a blob that no store has, for the caller to
// close. It must be called with mu held, and after the number of readers was
// found to be 0.
func (b *storedBlob) unusedFile() *os.File {
	if b.stores > 0 {
		return nil
	}
	return b.file
}

// retain is called by a clone of a store that has the blob.
func (b *storedBlob) retain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stores++
}

// Segments start small, so that a small blob costs little, and double, so that a
// large one has few. None is ever copied to grow.
const (
	minSegment = 4 << 10
	maxSegment = 1 << 20
)

// onDisk reports whether the content is in a file.
func (b *memBlob) onDisk() bool { return b.file != nil }

// last returns the last segment.
func (b *memBlob) last() []byte {
	if len(b.segments) == 0 {
		return nil
	}
	return b.segments[len(b.segments)-1]
}

// extend makes the n bytes after the end of the last segment part of the
// content.
func (b *memBlob) extend(n int) {
	last := &b.segments[len(b.segments)-1]
	*last = (*last)[:len(*last)+n]
	b.size += int64(n)
}

// discard drops the content, and returns its file, if any, for the caller to
// close.
func (b *memBlob) discard() *os.File {
	f := b.file
	*b = memBlob{size: b.size}
	return f
}

// truncate removes the content after size, and returns the number of bytes
// freed.
func (b *memBlob) truncate(size int64) (freed int64) {
	if b.onDisk() {
		b.file.Truncate(size) // if it fails, the bytes are overwritten later
		freed, b.size = b.size-size, size
		return freed
	}
	n := 0
	for start := int64(0); start < size; n++ {
		segment := &b.segments[n]
		*segment = (*segment)[:min(int64(len(*segment)), size-start)]
		start += int64(len(*segment))
	}
	for _, segment := range b.segments[n:] {
		freed += int64(cap(segment))
	}
	clear(b.segments[n:])
	b.segments = b.segments[:n]
	b.size = size
	return freed
}

// trimmed returns b without the spare capacity of its last segment, if that is
// much.
func (b memBlob) trimmed() memBlob {
	n := len(b.segments)
	if n == 0 {
		return b
	}
	last := b.segments[n-1]
	switch waste := cap(last) - len(last); {
	case len(last) == 0:
		b.segments = b.segments[: n-1 : n-1]
	case int64(waste) > b.size/16:
		b.segments = append(b.segments[:n-1:n-1], slices.Clone(last)) // the session keeps its own until it ends
	}
	return b
}

// memReader reads a memBlob.
type memReader struct {
	memBlob
	stored  *storedBlob // that it is a reader of, until it is closed; may be nil
	offset  int64
	segment int   // the index of the one that contains offset
	start   int64 // of that segment
}

func (r *memReader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.onDisk() {
		n, err := r.file.ReadAt(p[:min(int64(len(p)), r.size-r.offset)], r.offset)
		r.offset += int64(n)
		return n, err
	}
	segment := r.segments[r.segment]
	n := copy(p, segment[r.offset-r.start:])
	r.offset += int64(n)
	if r.offset == r.start+int64(len(segment)) {
		r.start = r.offset
		r.segment++
	}
	return n, nil
}

// WriteTo writes the segments without copying them.
func (r *memReader) WriteTo(w io.Writer) (int64, error) {
	return r.WriteToN(w, max(r.size-r.offset, 0))
}

// WriteToN is WriteTo for at most n bytes.
func (r *memReader) WriteToN(w io.Writer, n int64) (written int64, err error) {
	end := r.offset + min(n, r.size-r.offset)
	if r.onDisk() {
		written, err = io.Copy(w, io.NewSectionReader(r.file, r.offset, end-r.offset))
		r.offset += written
		return written, err
	}
	for r.offset < end {
		segment := r.segments[r.segment]
		n, err := w.Write(segment[r.offset-r.start : min(int64(len(segment)), end-r.start)])
		written += int64(n)
		r.Seek(int64(n), io.SeekCurrent)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (r *memReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, errors.New("registry: invalid seek")
	}
	if offset < r.start {
		r.segment, r.start = 0, 0
	}
	r.offset = offset
	for r.segment < len(r.segments) && r.start+int64(len(r.segments[r.segment])) <= offset {
		r.start += int64(len(r.segments[r.segment]))
		r.segment++
	}
	return offset, nil
}

func (r *memReader) Close() error {
	if r.stored != nil {
		r.stored.closeReader()
		r.stored = nil
		r.memBlob = memBlob{} // a closed reader holds nothing
	}
	return nil
}
