// SPDX-License-Identifier: Apache-2.0

// A reserve on the disk, so that content can be deleted when it is full.

package ocidir

import (
	"crypto/rand"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// reserveFile is a file that takes space until the disk is full. A delete needs a
// line in a journal, and then a new index.json.
const reserveFile = ownDir + "/reserve"

// minReserve is the least size of the reserve, in bytes.
const minReserve = 1 << 20

// reserve is the state of the reserve.
type reserve struct {
	mu   sync.Mutex
	size int64 // 0 if it is released
	want int64

	lastFull atomic.Int64 // when the disk was full, in nanoseconds since 1970
}

// noteFull notes that the disk is full.
func (r *reserve) noteFull() { r.lastFull.Store(time.Now().UnixNano()) }

// isNeeded reports whether the disk was full in the last minute: deletes free space
// at once then.
func (r *reserve) isNeeded() bool {
	return time.Now().UnixNano()-r.lastFull.Load() < int64(time.Minute)
}

// keepReserve makes the reserve large enough for a new version of an index.json, or
// as large as the disk allows.
func (s *Store) keepReserve(index int64) {
	r := &s.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want = max(r.want, minReserve, 2*index)
	if r.size >= r.want {
		return
	}
	f, err := s.files.root.OpenFile(reserveFile, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		r.size = info.Size()
	}
	// A file system may compress other bytes than random ones.
	chunk := make([]byte, 64<<10)
	rand.Read(chunk)
	for r.size < r.want {
		n, err := f.WriteAt(chunk, r.size)
		r.size += int64(n)
		if err != nil {
			return
		}
	}
}

// releaseReserve frees the reserve.
func (s *Store) releaseReserve() {
	r := &s.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.files.remove(reserveFile) == nil {
		r.size = 0
	}
}

// hasReserve reports whether the disk has space for the reserve.
func (s *Store) hasReserve() bool {
	r := &s.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size >= r.want
}
