// SPDX-License-Identifier: Apache-2.0

// Tags: small objects that move by conditional writes.

package bucket

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// allowFunc is asked before a tag moves: see registry.ManifestStore.
type allowFunc = func(tag string, current digest.Digest) error

// tag is what a tag is. Its id is another each time that it is written: so who
// did not get the answer to a write still knows its own, and a tag that went to
// and fro has not the version that it had.
type tag struct {
	digest  digest.Digest // "": there is none
	id      string
	version string // of the object
}

func (t tag) bytes() []byte {
	if t.digest == "" {
		return nil // deleted: lists tell by the size
	}
	return []byte(string(t.digest) + " " + t.id)
}

func (s *Store) tag(ctx context.Context, repo, name string) (tag, error) {
	b, version, err := s.get(ctx, tagsPrefix(repo)+name)
	if err == errMissing {
		return tag{}, nil
	}
	d, id, _ := strings.Cut(string(b), " ")
	return tag{digest.Digest(d), id, version}, err
}

// move is a tag's way to another digest.
type move struct {
	name string
	old  tag           // what it is, if asked is set
	from digest.Digest // what it was before we moved it
	id   string        // of what we have written last, or may have
	// asked: allow was asked about old.
	asked bool
}

// ask looks what the tag is, and asks allow for it, unless it is what we have
// written ourselves: in a round before, or in a write whose answer was lost.
func (s *Store) ask(ctx context.Context, repo string, m *move, allow allowFunc) error {
	old, err := s.tag(ctx, repo, m.name)
	if err != nil {
		return err
	}
	if old.id == "" || old.id != m.id {
		if err := allow(m.name, old.digest); err != nil {
			return err
		}
		m.from = old.digest
	}
	m.old, m.asked = old, true
	return nil
}

// moveTag points a tag at d, if allow allows it. Without allow, nothing is asked
// and the bucket neither.
func (s *Store) moveTag(ctx context.Context, repo string, m *move, d digest.Digest, allow allowFunc) error {
	if allow == nil {
		return s.put(ctx, tagsPrefix(repo)+m.name, tag{digest: d, id: newUUID()}.bytes())
	}
	for attempt := range attempts {
		backOff(attempt)
		if !m.asked {
			if err := s.ask(ctx, repo, m, allow); err != nil {
				return err
			}
		}
		m.id, m.asked = newUUID(), false
		ok, err := s.swap(ctx, tagsPrefix(repo)+m.name, tag{digest: d, id: m.id}.bytes(), m.old.version)
		if ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// moveBack undoes moves, where no one else has moved the tag since.
func (s *Store) moveBack(ctx context.Context, repo string, moves []move) error {
	for _, m := range moves {
		now, err := s.tag(ctx, repo, m.name)
		if err != nil {
			return err
		}
		if now.id != m.id {
			continue
		}
		if _, err := s.swap(ctx, tagsPrefix(repo)+m.name, tag{digest: m.from, id: newUUID()}.bytes(), now.version); err != nil {
			return err
		}
	}
	return nil
}

// GetTag returns the manifest that a tag points at.
func (s *Store) GetTag(ctx context.Context, repo, name string) (registry.Manifest, error) {
	var last tag
	for range attempts {
		t, err := s.tag(ctx, repo, name)
		if err != nil {
			return registry.Manifest{}, err
		}
		if t.digest == "" || t == last {
			break
		}
		m, err := s.manifest(ctx, repo, t.digest)
		if err != errMissing {
			return m, err
		}
		last = t // the manifest was deleted, or the tag moved before that
	}
	return registry.Manifest{}, s.unknown(ctx, repo, registry.ErrManifestUnknown)
}

// DeleteTag deletes a tag.
func (s *Store) DeleteTag(ctx context.Context, repo, name string, allow func(tag string, current digest.Digest) error) error {
	for attempt := range attempts {
		backOff(attempt)
		t, err := s.tag(ctx, repo, name)
		if err != nil {
			return err
		}
		if t.digest == "" {
			return s.unknown(ctx, repo, fmt.Errorf("%w: tag does not exist", registry.ErrManifestUnknown))
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
	return func(yield func(string, error) bool) {
		none := true
		for o, err := range s.list(ctx, tagsPrefix(repo), plain(after), firstPage) {
			if err == nil && (o.size == 0 || o.name <= after) {
				continue // deleted, or not asked for
			}
			if !yield(o.name, err) || err != nil {
				return
			}
			none = false
		}
		if !none {
			return
		}
		// Only where there is nothing to yield is it asked why.
		if err := s.unknown(ctx, repo, errNone); !errors.Is(err, errNone) {
			yield("", err)
		}
	}
}

// errNone says that a repository is there, and has none.
var errNone = errors.New("none")
