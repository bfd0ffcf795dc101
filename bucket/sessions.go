// SPDX-License-Identifier: Apache-2.0

// The state of upload sessions in the bucket.

package bucket

import (
	"context"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// uploadState is the state of a session: the data of a register. If two processes
// have leases, the bytes of one are kept, in full.
type uploadState struct {
	Algorithm digest.Algorithm `json:"algorithm"`
	Size      int64            `json:"size"`
	Hash      []byte           `json:"hash,omitempty"` // state of the hash of all bytes
	CRC       uint32           `json:"crc,omitempty"`  // CRC-32C of all bytes
	Parts     []part           `json:"parts,omitempty"`

	// Phase says whether the session is in progress. A session that is being
	// published, as the blob Digest, can be published by another process too, if
	// the first has stopped.
	//
	// Link is the ID of the write of the link, which is the same in each attempt:
	// so the session is published once, even if it was deleted since.
	Phase  phase         `json:"phase,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
	Link   string        `json:"link,omitempty"`

	// Chosen is set if a client has chosen the session's ID. Then a later
	// session may have the same ID.
	Chosen bool `json:"chosen,omitempty"`

	// Revision is replaced by each change, except one that only renews the
	// session: a request for the size of a session uses the session, and must
	// not disturb the holder of the lease.
	Revision string `json:"revision"`

	value value
}

// isOpen reports whether a session exists and has not ended.
func (st uploadState) isOpen() bool {
	return st.Revision != "" && (st.Phase == active || st.Phase == publishing)
}

type phase string

const (
	active     phase = ""
	publishing phase = "publishing"
	published  phase = "published"
	cancelled  phase = "cancelled"
)

// part is a piece of a session's bytes, in an object of its own.
type part struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// readState returns the state of a session, without a revision if there is none.
func (s *Store) readState(ctx context.Context, key string) (uploadState, error) {
	v, err := s.read(ctx, stateKey(key))
	if err != nil {
		return uploadState{}, err
	}
	return parseState(v)
}

func parseState(v value) (uploadState, error) {
	st := uploadState{value: v}
	if v.exists() && json.Unmarshal(v.data, &st) != nil {
		return uploadState{}, errMalformed
	}
	return st, nil
}

// openState returns the state of a session that is in progress, or is being
// published. It ends a session that has been idle for too long.
// Errors: ErrBlobUploadUnknown.
func (s *Store) openState(ctx context.Context, key string) (uploadState, error) {
	if _, ended := s.hasEnded(key); ended {
		return uploadState{}, registry.ErrBlobUploadUnknown
	}
	st, err := s.readState(ctx, key)
	if err != nil {
		return uploadState{}, err
	}
	if !st.isOpen() {
		return uploadState{}, registry.ErrBlobUploadUnknown
	}
	idle, err := s.age(ctx, st.value.object.Time)
	if err != nil {
		return uploadState{}, err
	}
	if idle > s.opts.UploadIdle {
		if _, err := s.setPhase(ctx, key, st, cancelled, ""); err != nil {
			return uploadState{}, err
		}
		s.removeParts(ctx, key, st.Parts)
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
	next.Revision = newID()
	b, err := json.Marshal(next)
	if err != nil {
		return uploadState{}, err
	}
	for attempt := range maxAttempts {
		backOff(attempt)
		now, ok, err := s.replace(ctx, stateKey(key), old.value, next.Revision, b)
		if err != nil {
			return uploadState{}, err
		}
		if ok {
			next.value = now
			return next, nil
		}
		current, err := parseState(now)
		switch {
		case err != nil:
			return uploadState{}, err
		case current.Revision == "" && old.Revision == "": // another session has ended
		case current.Revision == old.Revision: // it was only renewed
		case old.Revision == "":
			return uploadState{}, errIDInUse
		case !current.isOpen():
			return uploadState{}, registry.ErrBlobUploadUnknown
		default:
			return uploadState{}, registry.ErrUploadBusy
		}
		old.value = now
	}
	return uploadState{}, registry.ErrUnavailable
}

// renew resets a session's idle timer, unless it was reset recently.
func (s *Store) renew(ctx context.Context, key string, st uploadState) error {
	idle, err := s.age(ctx, st.value.object.Time)
	if err != nil || idle < s.opts.UploadIdle/4 {
		return err
	}
	_, _, err = s.replace(ctx, stateKey(key), st.value, newID(), st.value.data)
	return err // if another value has won, another process has used the session too
}

// setPhase ends a session, or revives it. Only the caller for which it succeeds may
// publish the session's bytes or discard them.
func (s *Store) setPhase(ctx context.Context, key string, st uploadState, p phase, d digest.Digest) (uploadState, error) {
	next := st
	next.Phase, next.Digest = p, d
	if p == publishing && next.Link == "" {
		next.Link = newID()
	}
	return s.replaceState(ctx, key, st, next)
}

// removeParts deletes the parts of a session that has ended.
func (s *Store) removeParts(ctx context.Context, key string, parts []part) {
	s.later(func() {
		each(parts, func(p part) error { return s.remove(ctx, partKey(key, p.Name)) })
	})
}

// keepEnded is how long the state of a session that has ended stays in the bucket: a
// client that has lost the response may repeat the request. maxEnded bounds the
// memory for that.
const (
	keepEnded = 5 * time.Minute
	maxEnded  = 4096
)

// endedSessions are sessions that this process has ended, and whose state it will
// remove.
type endedSessions struct {
	byAge []endedSession
	byKey map[string]digest.Digest // that they were published as, "" if they were cancelled
}

type endedSession struct {
	key string
	at  time.Time
}

// hasEnded reports whether this process has ended a session some minutes ago at
// most, even if its state does not yet say so, and the digest that it was published
// as.
func (s *Store) hasEnded(key string) (d digest.Digest, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ended = s.endedSessions.byKey[key]
	return d, ended
}

// forget removes the state of a session that has ended after some minutes, when
// another session ends. GC removes the last ones, and those whose ID a client has
// chosen: another session may have the same.
func (s *Store) forget(ctx context.Context, key string, st uploadState, d digest.Digest) {
	if st.Chosen {
		return
	}
	now := time.Now()
	s.mu.Lock()
	ended := &s.endedSessions
	if ended.byKey == nil {
		ended.byKey = make(map[string]digest.Digest)
	}
	ended.byKey[key] = d
	ended.byAge = append(ended.byAge, endedSession{key, now})
	var due []endedSession
	for len(ended.byAge) > maxEnded || now.Sub(ended.byAge[0].at) > keepEnded {
		due = append(due, ended.byAge[0])
		delete(ended.byKey, ended.byAge[0].key)
		ended.byAge = ended.byAge[1:]
	}
	s.mu.Unlock()
	if len(due) == 0 {
		return
	}
	s.later(func() {
		each(due, func(e endedSession) error { return s.remove(ctx, stateKey(e.key)) })
	})
}
