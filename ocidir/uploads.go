// SPDX-License-Identifier: Apache-2.0

// Upload sessions: a file each.

package ocidir

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// uploads is the book of sessions.
type uploads struct {
	mu   sync.Mutex         // guards what follows, and what sessions say that it does
	byID map[string]*upload // but those that are being published
	idle list.List          // of the *upload that no one leases, the longest idle first
}

// upload is an upload session.
type upload struct {
	session
	data, book string // its files' paths

	// Guarded by the book's mu.
	gone    bool // cancelled, expired or published
	leased  bool
	element *list.Element // in idle, unless leased
	since   time.Time     // idle
	known   int64         // the size, as of the last look

	hash hash.Hash // whoever has the lease has it
}

// session is what is written of an upload, to be found by the next process.
type session struct {
	ID        string           `json:"id"`
	Repo      string           `json:"repository"`
	Algorithm digest.Algorithm `json:"algorithm"`
	Size      int64            `json:"size"`
	Hash      []byte           `json:"hash"` // its state
}

// lease is a registry.Upload.
type lease struct {
	*upload
	s      *Store
	file   *os.File // nil until it is needed
	closed bool
	size   int64 // when it was closed

	startSize int64
	startHash []byte
}

func (s *Store) CreateUpload(_ context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	if opts.Algorithm == "" {
		opts.Algorithm = digest.Canonical
	}
	if !opts.Algorithm.Available() {
		return nil, fmt.Errorf("%w: unsupported digest algorithm", registry.ErrDigestInvalid)
	}
	if opts.ID == "" {
		opts.ID = rand.Text()
	}
	b := &s.uploads
	b.mu.Lock()
	defer b.mu.Unlock()
	s.expire()
	if _, ok := b.byID[opts.ID]; ok {
		return nil, fmt.Errorf("%w: session ID in use", registry.ErrBlobUploadInvalid)
	}
	if limit := s.opts.Uploads; limit > 0 && len(b.byID) >= limit {
		return nil, fmt.Errorf("%w: too many uploads in progress", registry.ErrTooManyRequests)
	}
	u := s.newUpload(session{ID: opts.ID, Repo: repo, Algorithm: opts.Algorithm}, rand.Text())
	u.leased = true
	b.add(u)
	return s.lease(u)
}

// newUpload makes an upload whose files have a name of their own: an ID may be
// as long as a file's name, differ from another in case alone, or come again
// while what it named is being published.
func (s *Store) newUpload(session session, base string) *upload {
	base = filepath.Join(s.path(uploadsDir), base)
	return &upload{session: session, data: base + ".data", book: base + ".json", known: session.Size, hash: session.Algorithm.Hash()}
}

func (b *uploads) add(u *upload) {
	if b.byID == nil {
		b.byID = make(map[string]*upload)
	}
	b.byID[u.ID] = u
}

func (s *Store) lease(u *upload) (*lease, error) {
	state, err := u.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &lease{upload: u, s: s, startSize: u.session.Size, startHash: state}, nil
}

func (s *Store) ResumeUpload(_ context.Context, repo, id string) (registry.Upload, error) {
	b := &s.uploads
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, registry.ErrUploadBusy
	}
	u.leased = true
	b.idle.Remove(u.element)
	return s.lease(u)
}

func (s *Store) UploadSize(_ context.Context, repo, id string) (int64, error) {
	b := &s.uploads
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return 0, err
	}
	if !u.leased { // a client that asks will go on
		u.since = time.Now()
		b.idle.MoveToBack(u.element)
	}
	return u.known, nil
}

func (s *Store) CancelUpload(_ context.Context, repo, id string) error {
	b := &s.uploads
	b.mu.Lock()
	defer b.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return err
	}
	b.end(u)
	return nil
}

// upload finds a session. It must be called with the book's mu held.
func (s *Store) upload(repo, id string) (*upload, error) {
	s.expire()
	u, ok := s.uploads.byID[id]
	if !ok || u.Repo != repo {
		return nil, registry.ErrBlobUploadUnknown
	}
	return u, nil
}

// expire ends the sessions that were idle for too long. It must be called with
// the book's mu held.
func (s *Store) expire() {
	b := &s.uploads
	for e := b.idle.Front(); e != nil; e = b.idle.Front() {
		u := e.Value.(*upload)
		if time.Since(u.since) < s.opts.UploadIdle {
			return
		}
		b.end(u)
	}
}

// end takes a session out of the book. Its files go now, or when its lease
// ends. It must be called with mu held.
func (b *uploads) end(u *upload) {
	u.gone = true
	delete(b.byID, u.ID)
	if !u.leased {
		b.idle.Remove(u.element)
		u.removeFiles()
	}
}

// rest puts a session that no one leases into the book of idle ones. It must be
// called with mu held.
func (b *uploads) rest(u *upload, since time.Time) {
	u.leased, u.known, u.since = false, u.session.Size, since
	u.element = b.idle.PushBack(u)
}

func (u *upload) removeFiles() {
	os.Remove(u.book) // first: data without it is nobody's
	os.Remove(u.data)
}

func (l *lease) ID() string { return l.upload.ID }

func (l *lease) Size() int64 {
	if l.closed {
		return l.size
	}
	return l.session.Size
}

// ended reports whether there is nothing left to do for this lease.
func (l *lease) ended() bool {
	if l.closed {
		return true
	}
	l.s.uploads.mu.Lock()
	defer l.s.uploads.mu.Unlock()
	return l.gone
}

// open opens the session's file, with the bytes that it has.
func (l *lease) open() error {
	if l.file != nil {
		return nil
	}
	f, err := os.OpenFile(l.data, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	l.file = f
	return nil
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (l *lease) ReadFrom(r io.Reader) (total int64, err error) {
	if l.ended() {
		return 0, registry.ErrBlobUploadUnknown
	}
	if err := l.open(); err != nil {
		return 0, failed(err)
	}
	buffer := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buffer)
	for {
		n, err := readSome(r, buffer[:])
		if n > 0 && l.ended() {
			return total, registry.ErrBlobUploadUnknown
		}
		// What can't be written is not counted: the next writes there again.
		if _, err := l.file.WriteAt(buffer[:n], l.session.Size); err != nil {
			return total, failed(err)
		}
		l.hash.Write(buffer[:n])
		l.session.Size += int64(n)
		total += int64(n)
		l.note()
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// note tells others how far the session is.
func (l *lease) note() {
	l.s.uploads.mu.Lock()
	l.known = l.session.Size
	l.s.uploads.mu.Unlock()
}

// readSome fills p as far as one who waits for it may wish: with all that there
// is, or a large piece.
func readSome(r io.Reader, p []byte) (n int, err error) {
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
	if l.ended() {
		return registry.ErrBlobUploadUnknown
	}
	if err := l.verify(d); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return failed(err)
	}
	// From here on nobody can cancel it.
	b := &l.s.uploads
	b.mu.Lock()
	if l.gone {
		b.mu.Unlock()
		return registry.ErrBlobUploadUnknown
	}
	delete(b.byID, l.upload.ID)
	l.gone = true
	b.mu.Unlock()

	// The bytes are the blob's from here on, so no later process may find a
	// session that has them.
	os.Remove(l.book)
	err := l.s.linkBlob(l.Repo, d, l.data)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, taken := b.byID[l.upload.ID]; !taken {
			l.gone = false
			b.add(l.upload)
		}
	}
	return err
}

// verify compares the digest of the session's bytes with d.
func (l *lease) verify(d digest.Digest) error {
	h := l.hash
	if a := d.Algorithm(); a != l.Algorithm {
		if !a.Available() {
			return fmt.Errorf("%w: unsupported digest algorithm", registry.ErrDigestInvalid)
		}
		// The client chose another algorithm than it had announced, if any.
		if err := l.open(); err != nil {
			return failed(err)
		}
		h = a.Hash()
		if _, err := io.Copy(h, io.NewSectionReader(l.file, 0, l.session.Size)); err != nil {
			return err
		}
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return registry.ErrDigestInvalid
	}
	return nil
}

// sync makes the session's bytes, and no others, be its file's.
func (l *lease) sync() error {
	if err := l.open(); err != nil {
		return err
	}
	if err := l.file.Truncate(l.session.Size); err != nil {
		return err
	}
	return l.file.Sync()
}

func (l *lease) Rollback() error {
	if l.ended() || l.session.Size == l.startSize {
		return nil // what was published is not to be touched
	}
	if err := l.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(l.startHash); err != nil {
		return err
	}
	l.session.Size = l.startSize
	l.note()
	return l.file.Truncate(l.startSize)
}

func (l *lease) Close() error {
	if l.closed {
		return nil
	}
	l.closed, l.size = true, l.session.Size
	var err error
	if l.file != nil {
		err = l.file.Close()
	}
	b := &l.s.uploads
	b.mu.Lock()
	gone := l.gone
	b.mu.Unlock()
	if !gone {
		err = errors.Join(err, l.write())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.gone {
		l.leased = false
		l.removeFiles()
		return nil
	}
	b.rest(l.upload, time.Now())
	return failed(err)
}

// write writes down what the next process has to know. It is not synced: a
// client whose registry's machine went down begins anew.
func (u *upload) write() (err error) {
	if u.session.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(u.session)
	if err != nil {
		return err
	}
	tmp := u.book + ".tmp"
	if err := os.WriteFile(tmp, data, 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, u.book)
}

// recoverUploads takes up the sessions of the process before, each with what
// was acknowledged, and removes what has come to nothing.
func (s *Store) recoverUploads() error {
	dir := s.path(uploadsDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	kept := make(map[string]bool)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		name := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var found session
		if json.Unmarshal(data, &found) != nil || !found.Algorithm.Available() {
			continue
		}
		u := s.newUpload(found, strings.TrimSuffix(e.Name(), ".json"))
		if u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(found.Hash) != nil {
			continue
		}
		if links(u.data) > 1 {
			continue // it was published, and the machine went down
		}
		if size, err := os.Stat(u.data); found.Size > 0 && (err != nil || size.Size() < found.Size) {
			continue // the machine went down
		}
		s.uploads.add(u)
		s.uploads.rest(u, info.ModTime())
		kept[u.book], kept[u.data] = true, true
	}
	for _, e := range entries {
		if name := filepath.Join(dir, e.Name()); !kept[name] {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}
