// SPDX-License-Identifier: Apache-2.0

// Registers: the objects that change, and the only way in which they do.

package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// value is the value of a register at one moment. The zero value is that of a
// register which nobody has written.
//
// A register's object begins with a line that names the write: its own ID, and the
// IDs of the writes before it. So no two writes have the same bytes, and thus the
// same version, and a writer that has lost the response to its write finds out
// whether the write took effect.
type value struct {
	id     string   // of the write
	before []string // the IDs of the writes before it, the latest first
	data   []byte   // nil if the register is deleted, or was never written

	object objects.Object
}

func (v value) exists() bool { return v.data != nil }

// A deleted register remembers keptByDeleted writes before, and another one more. So
// a list, which contains only sizes, tells one from the other: each ID of a write has
// idSize bytes and is followed by one more.
const (
	kept          = 15
	keptByDeleted = 7
	idSize        = 26
	maxDeleted    = (1 + keptByDeleted) * (idSize + 1)
)

// isDeletedSize reports whether an object of this size is a deleted register.
func isDeletedSize(size int64) bool { return size <= maxDeleted }

// noID stands for a write before the first, and forgottenID for one that nobody knows
// anymore.
var (
	noID        = strings.Repeat("-", idSize)
	forgottenID = strings.Repeat("?", idSize)
)

// newID returns an ID that nobody has used.
func newID() string { return rand.Text() }

// next returns the value that a write makes of v. Data that is nil deletes the
// register.
func (v value) next(id string, data []byte) value {
	n := kept
	if data == nil {
		n = keptByDeleted
	}
	ids := append([]string{before(v)}, v.before...)
	first := noID
	if ids[len(ids)-1] != noID { // the value has forgotten those before
		first = forgottenID
	}
	for len(ids) < n {
		ids = append(ids, first)
	}
	return value{id: id, before: ids[:n], data: data}
}

// before returns the name of v in the values after it.
func before(v value) string {
	if v.id == "" {
		return noID
	}
	return v.id
}

func (v value) bytes() []byte {
	head := v.id + " " + strings.Join(v.before, " ") + "\n"
	return append([]byte(head), v.data...)
}

// parseValue is the inverse of bytes.
func parseValue(object []byte) (value, error) {
	head, data, ok := bytes.Cut(object, []byte("\n"))
	ids := strings.Split(string(head), " ")
	if !ok || len(ids) != 1+keptByDeleted && len(ids) != 1+kept {
		return value{}, errMalformed
	}
	v := value{id: ids[0], before: ids[1:]}
	if len(ids) == 1+kept {
		v.data = data
	}
	return v, nil
}

// read returns the value of a register. One that is malformed can be replaced.
// Errors: errMalformed.
func (s *Store) read(ctx context.Context, key string) (value, error) {
	object, o, err := s.get(ctx, key)
	if err == errNotFound {
		return value{}, nil
	}
	if err != nil {
		return value{}, err
	}
	v, err := parseValue(object)
	v.object = o
	return v, err
}

// replace writes a register if old is still its value. It returns the register's
// value: the new one if it has replaced the old one, even if others have been
// written since, and otherwise the one that has won.
//
// Of an attempt whose outcome is unknown, replace finds it out. If it can't, the
// write may have taken effect or, as long as nobody else writes the register, may
// do so later: the error is ErrUnavailable, the context's or that of a later attempt.
func (s *Store) replace(ctx context.Context, key string, old value, id string, data []byte) (now value, replaced bool, err error) {
	next := old.next(id, data)
	object := next.bytes()
	if old.id != "" && old.object.Version == "" { // a value that we wrote, in a bucket that does not tell the version
		now, err := s.read(ctx, key)
		if err == errMalformed || err == nil && now.id != old.id {
			return now, false, nil
		}
		if err != nil {
			return value{}, false, err
		}
		old = now
	}
	all, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	unknown := false // whether an earlier attempt took effect
	c := objects.Condition{Absent: old.object.Version == "", Version: old.object.Version}
	for attempt := 0; attempt < maxTries && all.Err() == nil; attempt++ {
		backOff(attempt)
		err = s.once(all, func(ctx context.Context) (err error) {
			next.object.Version, err = s.bucket.Put(ctx, s.opts.Prefix+key, object, c)
			return err
		})
		if err == nil {
			return next, true, nil
		}
		if errors.Is(err, objects.ErrRejected) || errors.Is(err, objects.ErrFull) {
			break
		}
		unknown = unknown || !errors.Is(err, objects.ErrCondition)
		now, readErr := s.read(all, key)
		switch {
		case readErr == errMalformed && now.object.Version != old.object.Version:
			return now, false, nil
		case readErr != nil:
			continue // the next attempt has the same condition
		case now.id == id:
			return now, true, nil
		case slices.Contains(now.before, id): // and was replaced
			return next, true, nil
		case now.id == old.id:
			c.Version = now.object.Version // of the same write
			continue
		case !unknown, now.id == "", slices.Contains(now.before, before(old)):
			return now, false, nil // another write has replaced the old value, or GC has removed it
		}
		// So many writes have followed the old value that nobody knows.
		break
	}
	if err = s.storeError(ctx, err); err == nil || err == errNotFound || errors.Is(err, objects.ErrCondition) {
		err = registry.ErrUnavailable
	}
	return value{}, false, err
}
