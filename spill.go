// SPDX-License-Identifier: Apache-2.0

// Content that does not fit in memory: in temporary files without a name.

package registry

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// A blob of less than a whole segment stays in memory: a file would cost more
// than it spares.
const minSpilled = maxSegment

// errNoFile is what a client is told: why, is nothing for it.
var errNoFile = fmt.Errorf("%w: the registry's memory and its temporary files are full", ErrTooLarge)

// spills reports whether the next segment is to be in a file: large blobs may
// take half of the memory, and leave the rest for all that is small.
func (l *memLease) spills() bool {
	m := l.store
	limit := m.Limits.MemoryBytes
	if limit <= 0 || l.blob.size < minSpilled {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load().bytes.memory()+m.reserved.memory()+maxSegment > limit/2
}

// readToFile reads to the upload's file until the end of r.
func (l *memLease) readToFile(r io.Reader) (total int64, err error) {
	l.hash.wait()
	b := &l.blob
	buffer := spillBuffers.Get().(*[spillBuffer]byte)
	defer spillBuffers.Put(buffer)
	for {
		n, err := readSome(r, buffer[:])
		if n > 0 {
			if l.ended() {
				return total, ErrBlobUploadUnknown
			}
			if _, err := l.store.reserve(l.memUpload, int64(n), int64(n), true); err != nil {
				return total, err
			}
			if _, err := b.file.WriteAt(buffer[:n], b.size); err != nil {
				return total, errNoFile // what was reserved for it is given back with the upload
			}
			l.hash.take(hashOp{piece: buffer[:n]}, false)
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

// spillBuffer is how much is read before it is written to a file, in bytes.
const spillBuffer = 64 << 10

var spillBuffers = sync.Pool{New: func() any { return new([spillBuffer]byte) }}

// spill moves what the upload has to a file.
func (l *memLease) spill() error {
	f, err := os.CreateTemp("", "berth-*")
	if err != nil {
		return errNoFile
	}
	os.Remove(f.Name()) // it is gone with the last who reads it, where an open file can be removed
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
	freed := l.reserved.memory() - memEntry
	l.reserved = l.reserved.plus(-freed, false).plus(b.size, true)
	m.reserved = m.reserved.plus(-freed, false).plus(b.size, true)
	return nil
}
