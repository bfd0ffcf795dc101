// SPDX-License-Identifier: Apache-2.0

// Tags: a register for each.

package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// tag is the value of a tag. It names one incarnation of a manifest: a push after a
// delete makes another, which the tag does not point at.
type tag struct {
	value
	digest      digest.Digest // "" if the tag does not exist
	incarnation string
	hint        string // the ID of the hint that the push has written
}

// tagData returns the data of a tag's register.
func tagData(d digest.Digest, incarnation, hint string) []byte {
	return []byte(string(d) + " " + incarnation + " " + hint)
}

func parseTag(v value) tag {
	d, rest, _ := strings.Cut(string(v.data), " ")
	incarnation, hint, _ := strings.Cut(rest, " ")
	return tag{value: v, digest: digest.Digest(d), incarnation: incarnation, hint: hint}
}

func (s *Store) readTag(ctx context.Context, repo, name string) (tag, error) {
	v, err := s.read(ctx, tagKey(repo, name))
	return parseTag(v), s.corrupt(err, repo, "")
}

// pointsAt reports whether t points at this incarnation of a manifest.
func (t tag) pointsAt(d digest.Digest, incarnation string) bool {
	return t.digest == d && t.incarnation == incarnation
}

// readLiveTag returns a tag and the manifest that it points at, both as they were
// at one moment of the call. The tag's digest is "" if there is none. If the manifest
// can't be read, it returns the tag with the error.
//
// A tag whose manifest was deleted does not exist. It is overwritten before the
// caller hears of that: a conditional push that has read the tag earlier must not
// succeed later.
func (s *Store) readLiveTag(ctx context.Context, repo, name string) (tag, manifest, error) {
	for attempt := range maxAttempts {
		backOff(attempt)
		t, err := s.readTag(ctx, repo, name)
		if err != nil || t.digest == "" {
			return t, manifest{}, err
		}
		m, err := s.readManifest(ctx, repo, t.digest)
		if err != nil {
			return t, manifest{}, err
		}
		if m.exists() && m.Incarnation == t.incarnation {
			return t, m, nil
		}
		now, ok, err := s.replace(ctx, tagKey(repo, name), t.value, untaggedID(t.value), nil)
		if err != nil {
			return tag{}, manifest{}, err
		}
		if ok {
			return tag{value: now}, manifest{}, nil
		}
	}
	return tag{}, manifest{}, registry.ErrUnavailable
}

// GetTag returns the manifest that a tag points at.
func (s *Store) GetTag(ctx context.Context, repo, name string) (registry.Manifest, error) {
	t, m, err := s.readLiveTag(ctx, repo, name)
	if err == nil && t.digest == "" {
		err = s.unknownError(ctx, repo, registry.ErrManifestUnknown)
	}
	if err != nil {
		return registry.Manifest{}, err
	}
	return m.checked()
}

// DeleteTag deletes a tag.
func (s *Store) DeleteTag(ctx context.Context, repo, name string, allow registry.AllowFunc) error {
	ctx = context.WithoutCancel(ctx) // all or nothing
	for attempt := range maxAttempts {
		backOff(attempt)
		t, _, err := s.readLiveTag(ctx, repo, name)
		damaged := errors.Is(err, errCorrupt) // the tag, or its manifest
		if err != nil && (!damaged || allow != nil && t.digest == "") {
			return err
		}
		if !damaged && t.digest == "" {
			return s.unknownError(ctx, repo, fmt.Errorf("%w: tag does not exist", registry.ErrManifestUnknown))
		}
		if allow != nil {
			if err := allow(name, t.digest); err != nil {
				return err
			}
		}
		_, ok, err := s.replace(ctx, tagKey(repo, name), t.value, newID(), nil)
		if ok {
			s.later(func() { s.removeHint(ctx, repo, name, t) })
		}
		if ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// untag deletes a tag if it points at a manifest that was deleted.
func (s *Store) untag(ctx context.Context, repo, name string, d digest.Digest, incarnation string) error {
	for attempt := range maxAttempts {
		backOff(attempt)
		t, err := s.readTag(ctx, repo, name)
		if errors.Is(err, errCorrupt) || err == nil && !t.pointsAt(d, incarnation) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok, err := s.replace(ctx, tagKey(repo, name), t.value, untaggedID(t.value), nil); ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// untaggedID returns the ID of the write that deletes a tag because its manifest was
// deleted: a push that moves the tag back tells this write from a DeleteTag. No two
// values of a tag have the same data, except those that fenceTag writes; processes that
// delete the tag at the same time make the same write.
func untaggedID(v value) string {
	sum := sha256.Sum256(v.data)
	return base32.StdEncoding.EncodeToString(sum[:])[:idSize]
}

// Tags yields the tags after a name.
func (s *Store) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return orNameUnknown(ctx, s, repo, func(yield func(string, error) bool) {
		for o, err := range s.list(ctx, tagsPrefix(repo), keyPart(after), firstPageSize) {
			if err == nil && (isDeletedSize(o.size) || o.name <= after) {
				continue
			}
			if !yield(o.name, err) || err != nil {
				return
			}
		}
	})
}
