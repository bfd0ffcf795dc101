// SPDX-License-Identifier: Apache-2.0

// Upload sessions. Each has a data file and a state file.

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
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// sessions are the upload sessions of a store.
type sessions struct {
	mu    sync.Mutex            // guards the fields below, and those of upload that say so; see unlockSessions
	byKey map[uploadKey]*upload // without those that are being published
	byUse list.List             // of the *upload in byKey, the longest idle first
	ended []*upload             // to be discarded by unlockSessions
}

// uploadKey names a session: an ID that a client chose names nothing in another
// repository.
type uploadKey struct{ repo, id string }

// upload is an upload session.
type upload struct {
	uploadState
	dataFile, stateFile string // their paths

	ended   atomic.Bool  // cancelled, expired or published; set with sessions.mu held
	lastUse atomic.Int64 // in nanoseconds since 1970

	// Guarded by sessions.mu.
	leased   bool
	element  *list.Element // in byUse
	since    int64         // lastUse when the element got its place
	lastSize int64         // the size that others see

	hash hash.Hash // belongs to the holder of the lease

	data sync.Mutex // guards file; not held while bytes arrive
	file *os.File   // the data file, nil until it is needed, and when no lease uses it
}

func (u *upload) key() uploadKey { return uploadKey{u.Repo, u.uploadState.ID} }

// use resets the idle timer.
func (u *upload) use() { u.lastUse.Store(time.Now().UnixNano()) }

// uploadState is the content of a state file, from which the next process
// recovers the session.
type uploadState struct {
	ID        string           `json:"id"`
	Repo      string           `json:"repository"`
	Algorithm digest.Algorithm `json:"algorithm"`
	Size      int64            `json:"size"`
	Hash      []byte           `json:"hash"` // its internal state
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
	all := &s.sessions
	all.mu.Lock()
	defer s.unlockSessions()
	s.expireUploads()
	if _, ok := all.byKey[uploadKey{repo, opts.ID}]; ok {
		return nil, fmt.Errorf("%w: session ID in use", registry.ErrBlobUploadInvalid)
	}
	if limit := s.opts.Uploads; limit > 0 && len(all.byKey) >= limit {
		return nil, registry.ErrTooManyUploads
	}
	u := s.newUpload(uploadState{ID: opts.ID, Repo: repo, Algorithm: opts.Algorithm}, rand.Text())
	l, err := s.newLease(u)
	if err != nil {
		return nil, err
	}
	u.use()
	all.add(u)
	return l, nil
}

// newUpload returns an upload whose files are named base, not by its ID: an ID may
// be too long for the name of a file, differ from another ID only in case, be used in
// another repository too, or be reused while the session is being published.
func (s *Store) newUpload(state uploadState, base string) *upload {
	base = path.Join(uploadsDir, base)
	return &upload{uploadState: state, dataFile: base + ".data", stateFile: base + ".json", lastSize: state.Size, hash: state.Algorithm.Hash()}
}

func (s *Store) ResumeUpload(_ context.Context, repo, id string) (registry.Upload, error) {
	all := &s.sessions
	all.mu.Lock()
	defer s.unlockSessions()
	u, err := s.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, registry.ErrUploadBusy
	}
	u.use()
	return s.newLease(u)
}

func (s *Store) UploadSize(_ context.Context, repo, id string) (int64, error) {
	all := &s.sessions
	all.mu.Lock()
	defer s.unlockSessions()
	u, err := s.upload(repo, id)
	if err != nil {
		return 0, err
	}
	u.use() // a client that asks will continue
	return u.lastSize, nil
}

func (s *Store) CancelUpload(_ context.Context, repo, id string) error {
	all := &s.sessions
	all.mu.Lock()
	defer s.unlockSessions()
	u, err := s.upload(repo, id)
	if err != nil {
		return err
	}
	all.end(u)
	return nil
}

// PublishedUpload returns ErrBlobUploadUnknown: the store forgets a session at once.
func (s *Store) PublishedUpload(context.Context, string, string) (digest.Digest, error) {
	return "", registry.ErrBlobUploadUnknown
}

// upload returns a session. It must be called with sessions.mu held.
func (s *Store) upload(repo, id string) (*upload, error) {
	s.expireUploads()
	u, ok := s.sessions.byKey[uploadKey{repo, id}]
	if !ok {
		return nil, registry.ErrBlobUploadUnknown
	}
	return u, nil
}

// expireUploads ends the sessions that were idle for too long, leased or not: a
// stalled client must not keep one for ever. It must be called with
// sessions.mu held.
func (s *Store) expireUploads() {
	all := &s.sessions
	limit := time.Now().Add(-s.opts.UploadIdle).UnixNano()
	for e := all.byUse.Front(); e != nil; e = all.byUse.Front() {
		u := e.Value.(*upload)
		lastUse := u.lastUse.Load()
		switch {
		case u.since > limit:
			return
		case lastUse <= limit:
			all.end(u)
		default: // it was used since it got its place
			all.remove(u)
			all.add(u)
		}
	}
}

// add adds a session, at its place in byUse. It must be called with mu held.
func (all *sessions) add(u *upload) {
	if all.byKey == nil {
		all.byKey = make(map[uploadKey]*upload)
	}
	all.byKey[u.key()] = u
	u.since = u.lastUse.Load()
	at := all.byUse.Back()
	for at != nil && at.Value.(*upload).since > u.since {
		at = at.Prev()
	}
	if at == nil {
		u.element = all.byUse.PushFront(u)
		return
	}
	u.element = all.byUse.InsertAfter(u, at)
}

// remove removes a session. It must be called with mu held.
func (all *sessions) remove(u *upload) {
	delete(all.byKey, u.key())
	all.byUse.Remove(u.element)
}

// end ends a session, whose files unlockSessions removes. It must be called with mu held.
func (all *sessions) end(u *upload) {
	u.ended.Store(true)
	all.remove(u)
	all.ended = append(all.ended, u)
}

// unlockSessions unlocks the sessions' mu, and then removes the files of the sessions that have ended:
// that takes time if they are large.
func (s *Store) unlockSessions() {
	all := &s.sessions
	ended := all.ended
	all.ended = nil
	all.mu.Unlock()
	for _, u := range ended {
		u.closeFile()
		s.removeFiles(u)
	}
}

// closeFile closes the data file, if it is open. Once its names are removed too,
// it takes no space.
func (u *upload) closeFile() error {
	u.data.Lock()
	defer u.data.Unlock()
	if u.file == nil {
		return nil
	}
	f := u.file
	u.file = nil
	return f.Close()
}

func (s *Store) removeFiles(u *upload) {
	s.files.remove(u.stateFile) // first: recoverUploads removes data without a state
	s.files.remove(u.dataFile)
}

// writeState writes the state file. It does not sync it: after a crash of the
// machine, clients start over.
func (s *Store) writeState(u *upload) (err error) {
	if u.uploadState.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(u.uploadState)
	if err != nil {
		return err
	}
	tmp := tempName()
	f, err := s.files.create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		return s.files.moveTemp(tmp, u.stateFile)
	}
	s.files.remove(tmp)
	return err
}

// recoverUploads recovers the sessions of the previous process, each with its
// acknowledged bytes, and removes all other files of uploads.
func (s *Store) recoverUploads() error {
	entries, err := s.files.ReadDir(uploadsDir)
	if err != nil {
		return err
	}
	kept := make(map[string]bool)
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		data, err := readFile(s.fsys, path.Join(uploadsDir, e.Name()))
		if err != nil {
			continue
		}
		if u := s.recoverUpload(base, data); u != nil && s.sessions.byKey[u.key()] == nil {
			u.lastUse.Store(info.ModTime().UnixNano())
			s.sessions.add(u)
			kept[u.stateFile], kept[u.dataFile] = true, true
		}
	}
	for _, e := range entries {
		if name := path.Join(uploadsDir, e.Name()); !kept[name] {
			if err := s.files.root.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// recoverUpload returns the session of a state file, nil if it can't be
// continued.
func (s *Store) recoverUpload(base string, data []byte) *upload {
	var state uploadState
	if json.Unmarshal(data, &state) != nil || !state.Algorithm.Available() {
		return nil
	}
	u := s.newUpload(state, base)
	if u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state.Hash) != nil {
		return nil
	}
	if s.linkCount(u.dataFile) > 1 {
		return nil // the machine crashed while it was being published
	}
	if info, err := s.files.Stat(u.dataFile); state.Size > 0 && (err != nil || info.Size() < state.Size) {
		return nil // the machine crashed before the bytes were on disk
	}
	return u
}
