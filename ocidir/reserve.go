// SPDX-License-Identifier: Apache-2.0

// A reserve on the disk, so that content can be deleted when it is full.

package ocidir

import (
	"crypto/rand"
	"errors"
	"os"
	"sync"
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
}

// keepReserve makes the reserve large enough for a new version of an index.json,
// if the disk has space.
func (s *Store) keepReserve(index int64) {
	r := &s.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want = max(r.want, minReserve, 2*index)
	if r.size >= r.want {
		return
	}
	if info, err := s.files.Stat(reserveFile); err == nil && info.Mode().IsRegular() && info.Size() >= r.want {
		r.size = info.Size()
		return
	}
	f, err := s.files.root.OpenFile(reserveFile, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return
	}
	// A file system may compress other bytes than random ones.
	chunk := make([]byte, 256<<10)
	rand.Read(chunk)
	for at := int64(0); at < r.want && err == nil; at += int64(len(chunk)) {
		_, err = f.WriteAt(chunk, at)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.files.remove(reserveFile)
		r.size = 0
		return
	}
	r.size = r.want
}

// releaseReserve frees the reserve, and reports whether there was one.
func (s *Store) releaseReserve() bool {
	r := &s.reserve
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.size > 0
	r.size = 0
	return s.files.remove(reserveFile) == nil && had
}

// hasReserve reports whether the disk has space for the reserve.
func (s *Store) hasReserve() bool {
	s.reserve.mu.Lock()
	defer s.reserve.mu.Unlock()
	return s.reserve.size > 0
}
