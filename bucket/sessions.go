// SPDX-License-Identifier: Apache-2.0

// Upload sessions as they are in the bucket.

package bucket

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// state is what a session has. It moves by conditional writes, so of two leases
// in two processes one is kept, whole.
type state struct {
	Repo      string           `json:"repo"`
	Algorithm digest.Algorithm `json:"algorithm"`
	Size      int64            `json:"size"`
	Hash      []byte           `json:"hash,omitempty"` // of all that it has, to go on from
	Parts     []part           `json:"parts,omitempty"`
	Used      time.Time        `json:"used"`            // when last
	Ended     bool             `json:"ended,omitempty"` // published or cancelled
	// Revision is another after each change but that of Used: to ask for the
	// size of a session is to use it, and must not disturb who has the lease.
	Revision string `json:"revision"`

	version string // of the object
}

// part is a piece of a session's bytes, an object of its own.
type part struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

func (s *Store) state(ctx context.Context, id string) (st state, err error) {
	b, version, err := s.get(ctx, stateKey(id))
	if err != nil {
		return state{}, err
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return state{}, fmt.Errorf("bucket: malformed upload: %w", err)
	}
	st.version = version
	return st, nil
}

// session returns the state of a session that can be used. One that was idle
// for too long it ends.
// Errors: ErrBlobUploadUnknown.
func (s *Store) session(ctx context.Context, repo, id string) (state, error) {
	if !validID(id) {
		return state{}, registry.ErrBlobUploadUnknown
	}
	st, err := s.state(ctx, id)
	switch {
	case err == errMissing, err == nil && (st.Ended || st.Repo != repo):
		return state{}, registry.ErrBlobUploadUnknown
	case err != nil:
		return state{}, err
	case time.Since(st.Used) > s.opts.UploadIdle:
		if _, err := s.end(ctx, id, st); err != nil {
			return state{}, err
		}
		s.clear(ctx, id, st.Parts)
		return state{}, registry.ErrBlobUploadUnknown
	}
	return st, nil
}

// change replaces the state of a session, which was old, or which is not there
// yet if old has no revision.
//
// Errors: ErrBlobUploadUnknown where the session has ended, ErrUploadBusy where
// another has changed it, ErrBlobUploadInvalid where there is one already.
func (s *Store) change(ctx context.Context, id string, old, next state) (state, error) {
	next.Revision, next.version = newUUID(), ""
	b, err := json.Marshal(next)
	if err != nil {
		return state{}, err
	}
	for attempt := range attempts {
		backOff(attempt)
		if old.version != "" || old.Revision == "" {
			ok, err := s.swap(ctx, stateKey(id), b, old.version)
			if ok || err != nil {
				return next, err
			}
		}
		now, err := s.state(ctx, id)
		switch {
		case err == errMissing && old.Revision == "":
			continue
		case err == errMissing:
			return state{}, registry.ErrBlobUploadUnknown
		case err != nil:
			return state{}, err
		case now.Revision == next.Revision:
			return now, nil // it was ours: the answer was lost
		case old.Revision == "":
			return state{}, errIDInUse
		case now.Revision == old.Revision: // only Used has changed
			old.version = now.version
		case now.Ended:
			return state{}, registry.ErrBlobUploadUnknown
		default:
			return state{}, registry.ErrUploadBusy
		}
	}
	return state{}, registry.ErrUnavailable
}

var errIDInUse = fmt.Errorf("%w: session ID in use", registry.ErrBlobUploadInvalid)

// use notes that a session is in use, if that is not known well enough.
func (s *Store) use(ctx context.Context, id string, st state) error {
	if time.Since(st.Used) < s.opts.UploadIdle/4 {
		return nil
	}
	st.Used = time.Now()
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	_, err = s.swap(ctx, stateKey(id), b, st.version) // whoever was faster has used it too
	return err
}

// end marks a session as ended: who succeeds, and no one else, may publish its
// bytes or drop them.
func (s *Store) end(ctx context.Context, id string, st state) (state, error) {
	next := st
	next.Ended = true
	return s.change(ctx, id, st, next)
}

// revive undoes end.
func (s *Store) revive(ctx context.Context, id string, ended state) (state, error) {
	next := ended
	next.Ended = false
	next.Used = time.Now()
	return s.change(ctx, id, ended, next)
}

// clear deletes the objects of a session that has ended, its state last: GC
// finds what is left of it by that.
func (s *Store) clear(ctx context.Context, id string, parts []part) {
	for _, p := range parts {
		s.discard(ctx, partKey(id, p.Name))
	}
	s.discard(ctx, stateKey(id))
}

// UploadSize returns the number of bytes that an upload session has.
func (s *Store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	if size, ok := s.leasedSize(repo, id); ok {
		return size, nil
	}
	st, err := s.session(ctx, repo, id)
	if err != nil {
		return 0, err
	}
	return st.Size, s.use(ctx, id, st)
}

// CancelUpload ends an upload session, and drops its bytes.
func (s *Store) CancelUpload(ctx context.Context, repo, id string) error {
	if s.cancelUnsaved(repo, id) {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	for range attempts {
		st, err := s.session(ctx, repo, id)
		if err != nil {
			return err
		}
		_, err = s.end(ctx, id, st)
		if err == registry.ErrUploadBusy {
			continue // it moved: that does not save it
		}
		if err != nil {
			return err
		}
		s.cancelLease(id)
		s.clear(ctx, id, st.Parts)
		return nil
	}
	return registry.ErrUnavailable
}
