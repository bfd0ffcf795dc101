// SPDX-License-Identifier: Apache-2.0

// Upload sessions. Each has a data file and a state file.

package ocidir

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding"
	"encoding/json"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// sessions are the upload sessions of a store.
type sessions struct {
	mu   sync.Mutex         // guards the fields below, and those of upload that say so
	byID map[string]*upload // without those that are being published
	idle list.List          // of the *upload without a lease, the longest idle first
}

// upload is an upload session.
type upload struct {
	uploadState
	dataFile, stateFile string // their paths

	// Guarded by sessions.mu.
	ended     bool // cancelled, expired or published
	leased    bool
	element   *list.Element // in idle, unless leased
	idleSince time.Time
	lastSize  int64 // the size that others see

	hash hash.Hash // belongs to the holder of the lease
}

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
	defer all.mu.Unlock()
	s.expireUploads()
	if _, ok := all.byID[opts.ID]; ok {
		return nil, fmt.Errorf("%w: session ID in use", registry.ErrBlobUploadInvalid)
	}
	if limit := s.opts.Uploads; limit > 0 && len(all.byID) >= limit {
		return nil, registry.ErrTooManyUploads
	}
	u := s.newUpload(uploadState{ID: opts.ID, Repo: repo, Algorithm: opts.Algorithm}, rand.Text())
	u.leased = true
	all.add(u)
	return s.newLease(u)
}

// newUpload returns an upload whose files are named base, not by its ID: an ID
// may be too long for the name of a file, differ from another ID only in case, or
// be reused while the session is being published.
func (s *Store) newUpload(state uploadState, base string) *upload {
	base = filepath.Join(s.path(uploadsDir), base)
	return &upload{uploadState: state, dataFile: base + ".data", stateFile: base + ".json", lastSize: state.Size, hash: state.Algorithm.Hash()}
}

func (s *Store) ResumeUpload(_ context.Context, repo, id string) (registry.Upload, error) {
	all := &s.sessions
	all.mu.Lock()
	defer all.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return nil, err
	}
	if u.leased {
		return nil, registry.ErrUploadBusy
	}
	u.leased = true
	all.idle.Remove(u.element)
	return s.newLease(u)
}

func (s *Store) UploadSize(_ context.Context, repo, id string) (int64, error) {
	all := &s.sessions
	all.mu.Lock()
	defer all.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return 0, err
	}
	if !u.leased { // the client is about to continue
		u.idleSince = time.Now()
		all.idle.MoveToBack(u.element)
	}
	return u.lastSize, nil
}

func (s *Store) CancelUpload(_ context.Context, repo, id string) error {
	all := &s.sessions
	all.mu.Lock()
	defer all.mu.Unlock()
	u, err := s.upload(repo, id)
	if err != nil {
		return err
	}
	all.end(u)
	return nil
}

// upload returns a session. It must be called with sessions.mu held.
func (s *Store) upload(repo, id string) (*upload, error) {
	s.expireUploads()
	u, ok := s.sessions.byID[id]
	if !ok || u.Repo != repo {
		return nil, registry.ErrBlobUploadUnknown
	}
	return u, nil
}

// expireUploads ends the sessions that have been idle for too long. It must be
// called with sessions.mu held.
func (s *Store) expireUploads() {
	all := &s.sessions
	for e := all.idle.Front(); e != nil; e = all.idle.Front() {
		u := e.Value.(*upload)
		if time.Since(u.idleSince) < s.opts.UploadIdle {
			return
		}
		all.end(u)
	}
}

// add adds a session. It must be called with mu held.
func (all *sessions) add(u *upload) {
	if all.byID == nil {
		all.byID = make(map[string]*upload)
	}
	all.byID[u.ID] = u
}

// addIdle adds a session without a lease to the idle ones. It must be called
// with mu held.
func (all *sessions) addIdle(u *upload, since time.Time) {
	u.leased, u.lastSize, u.idleSince = false, u.uploadState.Size, since
	u.element = all.idle.PushBack(u)
}

// end removes a session. Its files are removed now, or when its lease ends. It
// must be called with mu held.
func (all *sessions) end(u *upload) {
	u.ended = true
	delete(all.byID, u.ID)
	if !u.leased {
		all.idle.Remove(u.element)
		u.removeFiles()
	}
}

func (u *upload) removeFiles() {
	os.Remove(u.stateFile) // first: recoverUploads removes data without a state
	os.Remove(u.dataFile)
}

// writeState writes the state file. It does not sync it: after a crash of the
// machine, clients start over.
func (u *upload) writeState() (err error) {
	if u.uploadState.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return err
	}
	data, err := json.Marshal(u.uploadState)
	if err != nil {
		return err
	}
	tmp := u.stateFile + ".tmp"
	if err := os.WriteFile(tmp, data, 0o666); err != nil {
		return err
	}
	return os.Rename(tmp, u.stateFile)
}

// recoverUploads recovers the sessions of the previous process, each with its
// acknowledged bytes, and removes all other files of uploads.
func (s *Store) recoverUploads() error {
	dir := s.path(uploadsDir)
	entries, err := os.ReadDir(dir)
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
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if u := s.recoverUpload(base, data); u != nil {
			s.sessions.add(u)
			s.sessions.addIdle(u, info.ModTime())
			kept[u.stateFile], kept[u.dataFile] = true, true
		}
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
	if linkCount(u.dataFile) > 1 {
		return nil // the machine crashed while it was being published
	}
	if info, err := os.Stat(u.dataFile); state.Size > 0 && (err != nil || info.Size() < state.Size) {
		return nil // the machine crashed before the bytes were on disk
	}
	return u
}
