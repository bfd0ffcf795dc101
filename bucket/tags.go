// SPDX-License-Identifier: Apache-2.0

// Tags: small objects, changed by conditional writes unless their value does not
// matter.

package bucket

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// tag is the value of a tag. Each write has a new id. So a writer that has lost
// the response to its write recognizes the write, and a tag that has moved away
// and back has a different version.
type tag struct {
	digest  digest.Digest // "" if the tag does not exist
	id      string
	version string // of the object
}

func (t tag) bytes() []byte {
	if t.digest == "" {
		return nil // deleted: lists recognize it by the size
	}
	return []byte(string(t.digest) + " " + t.id)
}

func (s *Store) readTag(ctx context.Context, repo, name string) (tag, error) {
	c, err := s.get(ctx, tagsPrefix(repo)+name)
	if err == errNotFound {
		return tag{}, nil
	}
	d, id, _ := strings.Cut(string(c.data), " ")
	return tag{digest.Digest(d), id, c.version}, err
}

// move is the move of a tag to another digest.
type move struct {
	name     string
	id       string        // of our last write, whether it succeeded or not
	previous digest.Digest // before our first successful write

	checked bool // allow accepts a move from current
	current tag  // the value to replace, if checked is set
}

// checkAllowed reads the tag, and calls allow unless the value is our own: of an
// earlier attempt, or of a write whose response was lost.
func (s *Store) checkAllowed(ctx context.Context, repo string, m *move, allow registry.AllowFunc) error {
	current, err := s.readTag(ctx, repo, m.name)
	if err != nil {
		return err
	}
	if current.id == "" || current.id != m.id {
		if err := allow(m.name, current.digest); err != nil {
			return err
		}
		m.previous = current.digest
	}
	m.current, m.checked = current, true
	return nil
}

// moveTag points a tag at d if allow accepts the move. If allow is nil, it writes
// the tag without a condition, which saves reading it.
func (s *Store) moveTag(ctx context.Context, repo string, m *move, d digest.Digest, allow registry.AllowFunc) error {
	if allow == nil {
		m.id = newUUID()
		return s.put(ctx, tagsPrefix(repo)+m.name, tag{digest: d, id: m.id}.bytes())
	}
	for attempt := range maxAttempts {
		backOff(attempt)
		if !m.checked {
			if err := s.checkAllowed(ctx, repo, m, allow); err != nil {
				return err
			}
		}
		m.id, m.checked = newUUID(), false
		ok, err := s.swap(ctx, tagsPrefix(repo)+m.name, tag{digest: d, id: m.id}.bytes(), m.current.version)
		if ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// moveBack undoes moves, unless another writer has moved the tag since.
func (s *Store) moveBack(ctx context.Context, repo string, moves []move) error {
	for _, m := range moves {
		current, err := s.readTag(ctx, repo, m.name)
		if err != nil {
			return err
		}
		if current.id != m.id {
			continue
		}
		if _, err := s.swap(ctx, tagsPrefix(repo)+m.name, tag{digest: m.previous, id: newUUID()}.bytes(), current.version); err != nil {
			return err
		}
	}
	return nil
}

// GetTag returns the manifest that a tag points at.
func (s *Store) GetTag(ctx context.Context, repo, name string) (registry.Manifest, error) {
	var last tag
	for range maxAttempts {
		t, err := s.readTag(ctx, repo, name)
		if err != nil {
			return registry.Manifest{}, err
		}
		if t.digest == "" || t == last {
			break
		}
		m, err := s.readManifest(ctx, repo, t.digest)
		if err != errNotFound {
			return m, err
		}
		last = t // the manifest was deleted, perhaps after the tag had moved
	}
	return registry.Manifest{}, s.unknownError(ctx, repo, registry.ErrManifestUnknown)
}

// DeleteTag deletes a tag.
func (s *Store) DeleteTag(ctx context.Context, repo, name string, allow registry.AllowFunc) error {
	for attempt := range maxAttempts {
		backOff(attempt)
		t, err := s.readTag(ctx, repo, name)
		if err != nil {
			return err
		}
		if t.digest == "" {
			return s.unknownError(ctx, repo, fmt.Errorf("%w: tag does not exist", registry.ErrManifestUnknown))
		}
		if allow != nil {
			if err := allow(name, t.digest); err != nil {
				return err
			}
		}
		ok, err := s.swap(ctx, tagsPrefix(repo)+name, nil, t.version)
		if ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// Tags yields the tags after a name.
func (s *Store) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return orNameUnknown(ctx, s, repo, func(yield func(string, error) bool) {
		for o, err := range s.list(ctx, tagsPrefix(repo), keyPart(after), firstPageSize) {
			if err == nil && (o.size == 0 || o.name <= after) {
				continue // deleted, or not after the name
			}
			if !yield(o.name, err) || err != nil {
				return
			}
		}
	})
}
