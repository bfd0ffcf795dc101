// SPDX-License-Identifier: Apache-2.0

// PutManifest, which pushes a manifest and points tags at it.

package bucket

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// push is a push of a manifest.
type push struct {
	store *Store
	repo  string
	m     registry.Manifest
	allow registry.AllowFunc
	moves []*move

	garbage []string // keys of objects that failed attempts have left

	allowing sync.Mutex // allow is not called from several goroutines at once
}

// move is the move of a tag.
type move struct {
	name string
	old  tag    // the value to replace
	id   string // of the write
	hint string // its key
	done value  // the value written, if it was
}

// PutManifest stores m and points tags at it: see DeleteManifest for the protocol.
// If allow rejects a tag that another process has moved meanwhile, m stays in the
// repository, without tags: another client may have pushed it too, and may know of
// its success.
func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	p := &push{store: s, repo: repo, m: m, allow: allow}
	for _, name := range tags {
		p.moves = append(p.moves, &move{name: name})
	}
	if allow != nil {
		if err := each(p.moves, func(t *move) error { return p.readTag(ctx, t) }); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // all or nothing
	defer s.later(func() {
		each(p.garbage, func(key string) error { return s.remove(ctx, key) })
	})
	for attempt := range maxAttempts {
		backOff(attempt)
		done, err := p.try(ctx, attempt > 0)
		if err != nil {
			if !errors.Is(err, registry.ErrUnavailable) && p.moveBack(ctx) != nil { // the push must have changed nothing
				return registry.ErrUnavailable
			}
			return err
		}
		if done {
			if m.Subject != "" {
				s.countReferrer(ctx, repo, m.Subject)
			}
			s.later(func() {
				each(p.moves, func(t *move) error {
					s.removeHint(ctx, repo, t.name, t.old)
					return nil
				})
			})
			return nil
		}
	}
	return registry.ErrUnavailable
}

// readTag reads the tag that t moves, and makes sure that it may.
func (p *push) readTag(ctx context.Context, t *move) (err error) {
	if p.allow == nil {
		if t.old, err = p.store.readTag(ctx, p.repo, t.name); errors.Is(err, errCorrupt) {
			return nil // replace it
		}
		return err
	}
	t.old, _, err = p.store.readLiveTag(ctx, p.repo, t.name)
	if err != nil && !(errors.Is(err, errCorrupt) && t.old.digest == p.m.Digest) { // or it points at what the push repairs
		return err
	}
	p.allowing.Lock()
	defer p.allowing.Unlock()
	return p.allow(t.name, t.old.digest)
}

// left returns the moves that are not done.
func (p *push) left() []*move {
	var left []*move
	for _, t := range p.moves {
		if t.done.id == "" {
			left = append(left, t)
		}
	}
	return left
}

// try makes one attempt at a push. It reports false if other writers have
// interfered.
//
// The order matters. Each tag is read before the manifest is written, or found to
// exist; so are the hints and the entry in the list of referrers written. Then the
// tags are.
func (p *push) try(ctx context.Context, again bool) (done bool, err error) {
	s := p.store
	began, incarnation := time.Now(), newID()
	var current manifest
	err = atOnce(
		func() (err error) {
			current, err = p.readManifest(ctx)
			return err
		},
		func() error {
			if p.allow != nil && !again {
				return nil // they were read already
			}
			return each(p.left(), func(t *move) error { return p.readTag(ctx, t) })
		},
		func() error { return p.announce(ctx, incarnation) }, // a guess, most often right
		func() error { return s.addRepo(ctx, p.repo) },
	)
	if err != nil {
		return false, err
	}
	if p.allow != nil && p.hasDeadTag(current) {
		p.discard(incarnation)
		return false, nil
	}
	if current.exists() {
		p.discard(incarnation)
		if current.Incarnation != "" { // it can be read
			incarnation = current.Incarnation
		}
		if err := p.announce(ctx, incarnation); err != nil {
			return false, err
		}
	}
	if ok, err := p.write(ctx, current, incarnation); err != nil {
		return false, err
	} else if !ok {
		if incarnation == current.Incarnation {
			p.discard("")
		} else {
			p.discard(incarnation)
		}
		return false, nil
	}
	if elapsed(began) >= s.trustedFor {
		return false, nil // GC may have removed the hints
	}
	err = atOnce(
		func() error { return s.confirmRepo(ctx, p.repo) },
		func() error { return p.moveTags(ctx, incarnation) },
	)
	return len(p.left()) == 0, err
}

// hasDeadTag reports whether a tag pointed at the same manifest when allow accepted
// its move, and the manifest was deleted since. The push would take effect before that
// delete, which would delete the tag again, but the tag would stay.
func (p *push) hasDeadTag(current manifest) bool {
	for _, t := range p.left() {
		if t.old.digest == p.m.Digest && (!current.exists() || t.old.incarnation != current.Incarnation) {
			return true
		}
	}
	return false
}

// readManifest returns the manifest that the repository has under the same digest.
// One that can't be read, or has other bytes than were pushed, is like one that has
// been pushed by us: the push replaces it.
// Errors: ErrManifestInvalid.
func (p *push) readManifest(ctx context.Context) (manifest, error) {
	current, err := p.store.readManifest(ctx, p.repo, p.m.Digest)
	if errors.Is(err, errCorrupt) {
		current.data = []byte{}
		current.Incarnation, err = p.lostIncarnation(ctx)
		return current, err
	}
	if err != nil || !current.exists() || !current.isIntact() {
		return current, err
	}
	return current, p.m.CheckSame(current.unchecked())
}

// lostIncarnation returns the incarnation that tags name of a manifest that can't be
// read, or "": the push keeps it, and so the tags.
func (p *push) lostIncarnation(ctx context.Context) (incarnation string, err error) {
	var (
		mu     sync.Mutex
		latest time.Time
	)
	err = p.store.eachHint(ctx, p.repo, p.m.Digest, "", func(h hint) error {
		t, err := p.store.readTag(ctx, p.repo, h.tag)
		if errors.Is(err, errCorrupt) || err == nil && !t.pointsAt(p.m.Digest, h.incarnation) {
			return nil
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if incarnation == "" || t.object.Time.After(latest) {
			incarnation, latest = h.incarnation, t.object.Time
		}
		return nil
	})
	return incarnation, err
}

// announce writes the hints of the tags and the entry in the list of referrers.
func (p *push) announce(ctx context.Context, incarnation string) error {
	var keys []string
	for _, t := range p.left() {
		t.id = newID()
		t.hint = hint{incarnation: incarnation, id: t.id, tag: t.name}.key(p.repo, p.m.Digest)
		keys = append(keys, t.hint)
	}
	if p.m.Subject != "" {
		keys = append(keys, p.referrerKey(incarnation))
	}
	return each(keys, func(key string) error { return p.store.put(ctx, key, nil) })
}

// discard marks as garbage the hints that announce has written last and, if
// incarnation is not "", the entry in the list of referrers.
func (p *push) discard(incarnation string) {
	for _, t := range p.left() {
		p.garbage = append(p.garbage, t.hint)
	}
	if p.m.Subject != "" && incarnation != "" {
		p.garbage = append(p.garbage, p.referrerKey(incarnation))
	}
}

func (p *push) referrerKey(incarnation string) string {
	return referrerKey(p.repo, p.m.Subject, p.m.Digest, incarnation)
}

// write writes the manifest or, if it exists, writes it again, which renews its
// time and repairs it. It reports whether the manifest exists and does not leave.
func (p *push) write(ctx context.Context, current manifest, incarnation string) (bool, error) {
	s, m := p.store, p.m
	sum := sha256.Sum256(m.Content)
	next := manifest{
		manifestHeader: manifestHeader{MediaType: []byte(m.MediaType), Subject: m.Subject, Incarnation: incarnation, Sum: sum[:]},
		content:        m.Content,
	}
	if m.Subject != "" {
		next.ArtifactType, next.Descriptor = m.Referrer.ArtifactType, m.Referrer.Descriptor
	}
	data, err := next.encode()
	if err != nil {
		return false, err
	}
	now, ok, err := s.replace(ctx, manifestKey(p.repo, m.Digest), current.value, newID(), data)
	if ok || err != nil {
		return ok, err
	}
	// Another push of the same manifest does as well as ours.
	if other, err := parseManifest(m.Digest, now); err == nil && other.exists() {
		return other.Incarnation == incarnation && !other.Leaves && m.CheckSame(other.unchecked()) == nil, nil
	}
	return false, nil
}

// moveTags points the tags at an incarnation of the manifest, one after the other,
// until another writer turns out to have been faster.
func (p *push) moveTags(ctx context.Context, incarnation string) error {
	s := p.store
	for _, t := range p.left() {
		now, ok, err := s.replace(ctx, tagKey(p.repo, t.name), t.old.value, t.id, tagData(p.m.Digest, incarnation, t.id))
		if err != nil {
			return err
		}
		if !ok {
			p.discard("")
			return nil
		}
		t.done = now
	}
	return nil
}

// moveBack undoes moves, unless another writer has moved or deleted the tag since. It
// tries all of them.
func (p *push) moveBack(ctx context.Context) error {
	errs := make([]error, len(p.moves))
	for i, t := range p.moves {
		if t.done.id != "" {
			errs[i] = p.store.moveBack(ctx, p.repo, t.name, t.done, t.old)
		}
	}
	return cmp.Or(errs...)
}

// moveBack points a tag at old again, if done is still its value, or if it was only
// deleted together with the manifest that done points at. This is a write of the tag
// with a hint of its own, since GC may have removed that of old.
func (s *Store) moveBack(ctx context.Context, repo, name string, done value, old tag) error {
	current, moved := done, false
	for !moved {
		began, id := time.Now(), newID()
		var data []byte
		if old.digest != "" {
			back := hint{incarnation: old.incarnation, id: id, tag: name}
			if err := s.put(ctx, back.key(repo, old.digest), nil); err != nil {
				return err
			}
			data = tagData(old.digest, old.incarnation, id)
		}
		now, ok, err := s.replace(ctx, tagKey(repo, name), current, id, data)
		switch {
		case err != nil:
			return err
		case ok:
			done, moved = now, elapsed(began) < s.trustedFor // or GC may have removed the hint
		case !bytes.Equal(now.data, done.data) && now.id != untaggedID(done):
			return nil // it is another writer's now
		}
		current = now
	}
	if old.digest == "" {
		return nil
	}
	s.later(func() { s.removeHint(ctx, repo, name, old) })
	_, _, err := s.readLiveTag(ctx, repo, name) // deletes it if the manifest was deleted meanwhile
	if errors.Is(err, errCorrupt) {
		return nil
	}
	return err
}
