// SPDX-License-Identifier: Apache-2.0

// Hints: by a manifest, the tags that may point at it.

package bucket

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// hint says that a write may point a tag at an incarnation of a manifest. Each
// write of a tag has a hint of its own, which is written before the tag and removed
// after the tag has moved on.
type hint struct {
	incarnation string
	id          string // of the write
	tag         string
	time        time.Time
}

func (h hint) key(repo string, d digest.Digest) string {
	return hintsPrefix(repo, d) + h.incarnation + "/" + h.id + "/" + h.tag
}

// parseHint is the inverse of key, without the prefix.
func parseHint(o object) (h hint, ok bool) {
	h.time = o.time
	var rest string
	h.incarnation, rest, _ = strings.Cut(o.name, "/")
	h.id, h.tag, ok = strings.Cut(rest, "/")
	return h, ok
}

// eachHint calls a function for each hint of an incarnation of a manifest, "" for
// all, several at once.
func (s *Store) eachHint(ctx context.Context, repo string, d digest.Digest, incarnation string, f func(hint) error) error {
	var hints []hint
	prefix := hintsPrefix(repo, d)
	if incarnation != "" {
		prefix += incarnation + "/"
	}
	for o, err := range s.list(ctx, prefix, "", firstPageSize) {
		if err != nil {
			return err
		}
		o.name = prefix[len(hintsPrefix(repo, d)):] + o.name
		if h, ok := parseHint(o); ok {
			hints = append(hints, h)
		}
	}
	return each(hints, f)
}

// fenceTag changes a tag, but not its meaning, if a push that has written the hint
// could otherwise still write the tag. If another write is faster, that has the same
// effect. A tag that can't be read has no meaning, and is deleted.
func (s *Store) fenceTag(ctx context.Context, repo string, d digest.Digest, h hint) error {
	t, err := s.readTag(ctx, repo, h.tag)
	if err != nil && !errors.Is(err, errCorrupt) || t.pointsAt(d, h.incarnation) {
		return err
	}
	_, _, err = s.replace(ctx, tagKey(repo, h.tag), t.value, newID(), t.data)
	return err
}

// isNeeded reports whether the tag of a manifest's hint points at the manifest, or may
// return: it was written since a time, and before that by the write of the hint, so the
// push that has moved it may be rejected. A tag that can't be read may point there, too.
func (s *Store) isNeeded(ctx context.Context, repo string, d digest.Digest, h hint, since time.Time) (bool, error) {
	t, err := s.readTag(ctx, repo, h.tag)
	if errors.Is(err, errCorrupt) {
		return true, nil
	}
	mayReturn := !t.object.Time.Before(since) && slices.Contains(t.before, h.id)
	return err == nil && (t.pointsAt(d, h.incarnation) || mayReturn), err
}

// removeHint removes the hint of a tag's former value.
func (s *Store) removeHint(ctx context.Context, repo, name string, former tag) {
	if former.digest != "" {
		s.remove(ctx, hint{incarnation: former.incarnation, id: former.hint, tag: name}.key(repo, former.digest))
	}
}
