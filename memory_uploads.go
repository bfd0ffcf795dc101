// SPDX-License-Identifier: Apache-2.0

// Upload sessions in memory.

package registry

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
)

// uploadKey names a session: an ID that a client chose names nothing in another
// repository.
type uploadKey struct{ repo, id string }

// memUpload is an upload session.
type memUpload struct {
	uploadKey
	algorithm digest.Algorithm

	ended   atomic.Bool  // cancelled, expired or published; set with the store's mu held
	lastUse atomic.Int64 // in nanoseconds since 1970

	// Guarded by the store's mu.
	leased   bool
	element  *list.Element // in byUse
	since    int64         // lastUse when the element got its place
	lastSize int64         // when it was last updated
	reserved memBytes      // the capacity of the segments, and the file

	// The holder of the lease alone changes these, but that the store takes the
	// content of a session that it ends.
	data    sync.Mutex // guards blob and reading; not held while bytes move
	blob    memBlob
	reading bool // bytes are being read into the last segment
	hash    asyncHash
}

// use resets the idle timer.
func (u *memUpload) use() { u.lastUse.Store(time.Now().UnixNano()) }

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
	var u Upload
	err := m.withSpace(func() (err error) {
		u, err = m.createUpload(uploadKey{repo, opts.ID}, opts.Algorithm)
		return err
	})
	return u, err
}

func (m *MemStore) createUpload(key uploadKey, algorithm digest.Algorithm) (Upload, error) {
	m.mu.Lock()
	defer m.unlock()
	m.expire()
	if _, ok := m.uploads[key]; ok {
		return nil, fmt.Errorf("%w: session ID in use", ErrBlobUploadInvalid)
	}
	if limit := m.Limits.Uploads; limit > 0 && len(m.uploads) >= limit {
		return nil, ErrTooManyUploads
	}
	if err := m.checkCapacity(m.load().bytes, entryOverhead, false); err != nil {
		return nil, err
	}
	u := &memUpload{
		uploadKey: key,
		algorithm: algorithm,
		leased:    true,
		hash:      asyncHash{hash: algorithm.Hash()},
	}
	m.addReserved(u, entryOverhead, false)
	if m.uploads == nil {
		m.uploads = make(map[uploadKey]*memUpload)
	}
	m.uploads[key] = u
	u.use()
	u.since = u.lastUse.Load()
	u.element = m.byUse.PushBack(u)
	return &memLease{memUpload: u, store: m}, nil
}

func (m *MemStore) ResumeUpload(_ context.Context, repo, id string) (Upload, error) {
	m.mu.Lock()
	defer m.unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, ErrUploadBusy
	}
	u.leased = true
	u.use()
	return &memLease{memUpload: u, store: m, startSize: u.blob.size}, nil
}

func (m *MemStore) UploadSize(_ context.Context, repo, id string) (int64, error) {
	m.mu.Lock()
	defer m.unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return 0, err
	}
	u.use() // a client that asks will continue
	return u.lastSize, nil
}

func (m *MemStore) CancelUpload(_ context.Context, repo, id string) error {
	m.mu.Lock()
	defer m.unlock()
	u, err := m.upload(repo, id)
	if err != nil {
		return err
	}
	m.end(u)
	return nil
}

// PublishedUpload returns ErrBlobUploadUnknown: the store forgets a session at once.
func (m *MemStore) PublishedUpload(context.Context, string, string) (digest.Digest, error) {
	return "", ErrBlobUploadUnknown
}

// upload returns a session. It must be called with mu held.
// Errors: ErrBlobUploadUnknown.
func (m *MemStore) upload(repo, id string) (*memUpload, error) {
	m.expire()
	u, ok := m.uploads[uploadKey{repo, id}]
	if !ok {
		return nil, ErrBlobUploadUnknown
	}
	return u, nil
}

// expire ends the sessions that were idle for too long, leased or not: a stalled
// client must not keep one for ever. It must be called with mu held.
func (m *MemStore) expire() {
	limit := time.Now().Add(-m.Limits.uploadIdle()).UnixNano()
	for e := m.byUse.Front(); e != nil; e = m.byUse.Front() {
		u := e.Value.(*memUpload)
		lastUse := u.lastUse.Load()
		switch {
		case u.since > limit:
			return
		case lastUse <= limit:
			m.end(u)
		default: // it was used since it got its place
			u.since = lastUse
			at := m.byUse.Back()
			for at.Value.(*memUpload).since > lastUse {
				at = at.Prev()
			}
			m.byUse.MoveAfter(e, at)
		}
	}
}

// end removes a session from the store, and releases its bytes. If bytes are
// being read into its last segment, that one is released when the lease ends. It
// must be called with mu held.
func (m *MemStore) end(u *memUpload) {
	u.ended.Store(true)
	delete(m.uploads, u.uploadKey)
	m.byUse.Remove(u.element)
	u.data.Lock()
	inUse := int64(0)
	if u.reading && u.leased {
		inUse = int64(cap(u.blob.last()))
	}
	m.close(u.blob.discard())
	u.data.Unlock()
	m.release(u)
	m.addReserved(u, inUse, false)
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
func (m *MemStore) reserve(u *memUpload, least, size int64, onDisk bool) (reserved int64, err error) {
	err = m.withSpace(func() error {
		reserved, err = m.tryReserve(u, least, size, onDisk)
		return err
	})
	return reserved, err
}

func (m *MemStore) tryReserve(u *memUpload, least, size int64, onDisk bool) (int64, error) {
	m.mu.Lock()
	defer m.unlock()
	m.expire()
	if u.ended.Load() {
		return 0, ErrBlobUploadUnknown
	}
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
