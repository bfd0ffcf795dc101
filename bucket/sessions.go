// SPDX-License-Identifier: Apache-2.0

// The state of upload sessions in the bucket.

package bucket

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// uploadState is the state of a session. It is changed by conditional writes, so
// if two processes have leases, the bytes of one are kept, in full.
type uploadState struct {
	Algorithm digest.Algorithm `json:"algorithm"`
	Size      int64            `json:"size"`
	Hash      []byte           `json:"hash,omitempty"` // state of the hash of all bytes
	Parts     []part           `json:"parts,omitempty"`
	Used      time.Time        `json:"used"`            // last use
	Ended     bool             `json:"ended,omitempty"` // published or cancelled
	// Revision is replaced by each change, except a change of Used alone: a
	// request for the size of a session uses the session, and must not disturb
	// the holder of the lease.
	Revision string `json:"revision"`

	version string // of the object
}

// part is a piece of a session's bytes, in an object of its own.
type part struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// readState returns the state of a session.
// Errors: errNotFound.
func (s *Store) readState(ctx context.Context, key string) (st uploadState, err error) {
	c, err := s.get(ctx, stateKey(key))
	if err != nil {
		return uploadState{}, err
	}
	if err := json.Unmarshal(c.data, &st); err != nil {
		return uploadState{}, fmt.Errorf("bucket: malformed upload: %w", err)
	}
	st.version = c.version
	return st, nil
}

// activeState returns the state of a session that is in progress. It ends a
// session that has been idle for too long.
// Errors: ErrBlobUploadUnknown.
func (s *Store) activeState(ctx context.Context, key string) (uploadState, error) {
	st, err := s.readState(ctx, key)
	switch {
	case err == errNotFound, err == nil && st.Ended:
		return uploadState{}, registry.ErrBlobUploadUnknown
	case err != nil:
		return uploadState{}, err
	case time.Since(st.Used) > s.opts.UploadIdle:
		if _, err := s.endUpload(ctx, key, st); err != nil {
			return uploadState{}, err
		}
		s.removeUpload(ctx, key, st.Parts)
		return uploadState{}, registry.ErrBlobUploadUnknown
	}
	return st, nil
}

// replaceState replaces the state old of a session, or creates the session if
// old has no revision.
//
// Errors: ErrBlobUploadUnknown if the session has ended, ErrUploadBusy if another
// process has changed it, ErrBlobUploadInvalid if a new session exists already.
func (s *Store) replaceState(ctx context.Context, key string, old, next uploadState) (uploadState, error) {
	next.Revision, next.version = newUUID(), ""
	b, err := json.Marshal(next)
	if err != nil {
		return uploadState{}, err
	}
	for attempt := range maxAttempts {
		backOff(attempt)
		if old.version != "" || old.Revision == "" {
			ok, err := s.swap(ctx, stateKey(key), b, old.version)
			if ok || err != nil {
				return next, err
			}
		}
		current, err := s.readState(ctx, key)
		switch {
		case err == errNotFound && old.Revision == "":
			continue
		case err == errNotFound:
			return uploadState{}, registry.ErrBlobUploadUnknown
		case err != nil:
			return uploadState{}, err
		case current.Revision == next.Revision:
			return current, nil // our own write, whose response was lost
		case old.Revision == "":
			return uploadState{}, errIDInUse
		case current.Revision == old.Revision: // only Used has changed
			old.version = current.version
		case current.Ended:
			return uploadState{}, registry.ErrBlobUploadUnknown
		default:
			return uploadState{}, registry.ErrUploadBusy
		}
	}
	return uploadState{}, registry.ErrUnavailable
}

// touch resets a session's idle timer, unless it was reset recently.
func (s *Store) touch(ctx context.Context, key string, st uploadState) error {
	if time.Since(st.Used) < s.opts.UploadIdle/4 {
		return nil
	}
	st.Used = time.Now()
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	_, err = s.swap(ctx, stateKey(key), b, st.version) // if the version has changed, another process has used the session too
	return err
}

// endUpload marks a session as ended. Only the caller for which it succeeds may
// publish the session's bytes or discard them.
func (s *Store) endUpload(ctx context.Context, key string, st uploadState) (uploadState, error) {
	next := st
	next.Ended = true
	return s.replaceState(ctx, key, st, next)
}

// reviveUpload undoes endUpload.
func (s *Store) reviveUpload(ctx context.Context, key string, ended uploadState) (uploadState, error) {
	next := ended
	next.Ended = false
	next.Used = time.Now()
	return s.replaceState(ctx, key, ended, next)
}

// removeUpload deletes the objects of a session that has ended. The state goes
// last, because it tells GC that the session has ended.
func (s *Store) removeUpload(ctx context.Context, key string, parts []part) {
	for _, p := range parts {
		s.tryRemove(ctx, partKey(key, p.Name))
	}
	s.tryRemove(ctx, stateKey(key))
}
