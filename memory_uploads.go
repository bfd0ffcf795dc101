// SPDX-License-Identifier: Apache-2.0

// Upload sessions in memory.

package registry

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// memUpload is an upload session.
type memUpload struct {
	repo, id  string
	algorithm digest.Algorithm

	ended atomic.Bool // cancelled, expired or published; set with the store's mu held

	// Guarded by the store's mu.
	leased   bool
	element  *list.Element // in idle, unless leased
	since    time.Time     // idle
	lastSize int64         // when it was last updated
	reserved memBytes      // the capacity of the segments, and the file

	// Owned by the holder of the lease.
	blob memBlob
	hash asyncHash
}

func (m *MemStore) CreateUpload(_ context.Context, repo string, opts UploadOptions) (Upload, error) {
	if opts.Algorithm == "" {
		opts.Algorithm = digest.Canonical
	}
	if !opts.Algorithm.Available() {
		return nil, errBadAlgorithm
	}
	if opts.ID == "" {
		opts.ID = newUUID()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	if _, ok := m.uploads[opts.ID]; ok {
		return nil, fmt.Errorf("%w: session ID in use", ErrBlobUploadInvalid)
	}
	if limit := m.Limits.Uploads; limit > 0 && len(m.uploads) >= limit {
		return nil, ErrTooManyUploads
	}
	if err := m.checkCapacity(m.load().bytes, entryOverhead, false); err != nil {
		return nil, err
	}
	u := &memUpload{
		repo:      repo,
		id:        opts.ID,
		algorithm: opts.Algorithm,
		leased:    true,
		hash:      asyncHash{hash: opts.Algorithm.Hash()},
	}
	m.addReserved(u, entryOverhead, false)
	if m.uploads == nil {
		m.uploads = make(map[string]*memUpload)
	}
	m.uploads[u.id] = u
	return &memLease{memUpload: u, store: m}, nil
}

func (m *MemStore) ResumeUpload(_ context.Context, repo, id string) (Upload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, ErrUploadBusy
	}
	u.leased = true
	m.idle.Remove(u.element)
	return &memLease{memUpload: u, store: m, startSize: u.blob.size}, nil
}

func (m *MemStore) UploadSize(_ context.Context, repo, id string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return 0, err
	}
	if !u.leased { // the client is likely to continue
		u.since = time.Now()
		m.idle.MoveToBack(u.element)
	}
	return u.lastSize, nil
}

func (m *MemStore) CancelUpload(_ context.Context, repo, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return err
	}
	m.end(u)
	return nil
}

// upload returns a session. It must be called with mu held.
// Errors: ErrBlobUploadUnknown.
func (m *MemStore) upload(repo, id string) (*memUpload, error) {
	m.expire()
	u, ok := m.uploads[id]
	if !ok || u.repo != repo {
		return nil, ErrBlobUploadUnknown
	}
	return u, nil
}

// expire ends the sessions that were idle for too long. It must be called with
// mu held.
func (m *MemStore) expire() {
	for e := m.idle.Front(); e != nil; e = m.idle.Front() {
		u := e.Value.(*memUpload)
		if time.Since(u.since) < m.Limits.uploadIdle() {
			return
		}
		m.end(u)
	}
}

// end removes a session from the store. Its bytes are released now, or when its
// lease ends. It must be called with mu held.
func (m *MemStore) end(u *memUpload) {
	u.ended.Store(true)
	delete(m.uploads, u.id)
	if !u.leased {
		m.idle.Remove(u.element)
		m.release(u)
	}
}

// release releases the bytes that an upload has reserved. It must be called
// with mu held.
func (m *MemStore) release(u *memUpload) {
	m.reserved.all -= u.reserved.all
	m.reserved.onDisk -= u.reserved.onDisk
	u.reserved = memBytes{}
}

// addReserved reserves n further bytes for an upload. It must be called with mu
// held.
func (m *MemStore) addReserved(u *memUpload, n int64, onDisk bool) {
	u.reserved = u.reserved.plus(n, onDisk)
	m.reserved = m.reserved.plus(n, onDisk)
}

// reserve reserves up to size further bytes, in memory or in a file, and at
// least least, for an upload whose lease the caller has. It returns how many.
func (m *MemStore) reserve(u *memUpload, least, size int64, onDisk bool) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire()
	content := m.load().bytes
	if err := m.checkCapacity(content, least, onDisk); err != nil {
		return 0, err
	}
	if limit := m.Limits.TotalBytes; limit > 0 {
		size = min(size, limit-content.all-m.reserved.all)
	}
	if limit := m.Limits.MemoryBytes; limit > 0 && !onDisk {
		size = min(size, limit-content.memory()-m.reserved.memory())
	}
	u.lastSize = u.blob.size
	m.addReserved(u, size, onDisk)
	return size, nil
}

// newUUID returns a random UUID (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	for i, field := range [...][3]int{{0, 0, 4}, {9, 4, 6}, {14, 6, 8}, {19, 8, 10}, {24, 10, 16}} {
		if i > 0 {
			s[field[0]-1] = '-'
		}
		hex.Encode(s[field[0]:], b[field[1]:field[2]])
	}
	return string(s[:])
}
