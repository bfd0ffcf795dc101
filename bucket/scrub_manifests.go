// SPDX-License-Identifier: Apache-2.0

// The part of Scrub that verifies manifests, tags and lists of referrers.

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
)

// manifest verifies the bytes of a manifest, and that it is in the list of referrers
// of its subject.
func (c *scrubber) manifest(ctx context.Context, repo string, d digest.Digest) error {
	if d.Validate() != nil {
		return nil // no client can request it
	}
	s, key := c.store, manifestKey(repo, d)
	c.count(func(stats *ScrubStats) { stats.Manifests++ })
	return c.examine(ctx, repo, key, func() (error, func() (string, error), error) {
		v, err := s.read(ctx, key)
		var m manifest
		if err == nil {
			m, err = parseManifest(d, v)
		}
		switch {
		case err == errMalformed:
			return errBadManifest, nil, nil
		case err != nil || !m.exists():
			return nil, nil, err
		case m.Incarnation == "":
			return errBadManifest, nil, nil
		case !m.isIntact():
			return errSum, nil, nil
		case m.Subject == "":
			return nil, nil, nil
		}
		entry := referrerKey(repo, m.Subject, d, m.Incarnation)
		if ok, err := s.exists(ctx, entry); ok || err != nil {
			return nil, nil, err
		}
		return errNoEntry, func() (string, error) {
			// If the manifest is deleted meanwhile, nobody believes the entry.
			if err := s.put(ctx, entry, nil); err != nil {
				return "", err
			}
			return "added", nil
		}, nil
	})
}

// tag verifies that a tag points at a manifest.
func (c *scrubber) tag(ctx context.Context, repo, name string) error {
	s, key := c.store, tagKey(repo, name)
	c.count(func(stats *ScrubStats) { stats.Tags++ })
	return c.examine(ctx, repo, key, func() (error, func() (string, error), error) {
		v, err := s.read(ctx, key)
		if err == errMalformed {
			return errBadTag, nil, nil
		}
		if err != nil || !v.exists() {
			return nil, nil, err
		}
		t := parseTag(v)
		if t.digest.Validate() != nil {
			return errBadTag, nil, nil
		}
		ok, err := c.exists(ctx, repo, t.digest, t.incarnation)
		if ok || err != nil {
			return nil, nil, err
		}
		return errDeadTag, func() (string, error) { // as a GET would
			_, ok, err := s.replace(ctx, key, t.value, newID(), nil)
			if !ok || err != nil {
				return "", err
			}
			return "deleted", nil
		}, nil
	})
}

// exists reports whether an incarnation of a manifest exists, or nobody knows.
func (c *scrubber) exists(ctx context.Context, repo string, d digest.Digest, incarnation string) (bool, error) {
	m, err := c.store.statManifest(ctx, repo, d)
	switch {
	case err == errNotFound:
		return false, nil
	case errors.Is(err, errCorrupt): // reported as a problem of the manifest
		return true, nil
	}
	return m.Incarnation == incarnation, err
}

// referrer verifies that a manifest in the list of referrers of a subject has that
// subject. Entries whose manifest does not exist are left by pushes and deletes.
func (c *scrubber) referrer(ctx context.Context, repo, name string) error {
	alg, rest, _ := strings.Cut(name, "/")
	hex, rest, _ := strings.Cut(rest, "/")
	subject := digest.Digest(alg + ":" + hex)
	e, ok := parseReferrerEntry(rest)
	if !ok || subject.Validate() != nil || e.digest.Validate() != nil {
		return nil
	}
	s, key := c.store, referrerKey(repo, subject, e.digest, e.incarnation)
	return c.examine(ctx, repo, key, func() (error, func() (string, error), error) {
		m, err := s.statManifest(ctx, repo, e.digest)
		if err == errNotFound || errors.Is(err, errCorrupt) || err == nil && (m.Incarnation != e.incarnation || m.Subject == subject) {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		return errWrongSubject, func() (string, error) {
			if err := s.remove(ctx, key); err != nil {
				return "", err
			}
			return "removed", nil
		}, nil
	})
}

// pack compares the descriptors in a pack with the manifests. A pack that can't be read
// is no problem: it is a cache.
func (c *scrubber) pack(ctx context.Context, repo, name string) error {
	s, key := c.store, contentPrefix(repo)+"packs/"+name
	return c.examine(ctx, repo, key, func() (error, func() (string, error), error) {
		data, _, err := s.get(ctx, key)
		p := make(pack)
		if err == errNotFound || err == nil && json.Unmarshal(data, &p) != nil {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		for name, packed := range p {
			d, incarnation, _ := strings.Cut(name, " ")
			m, err := s.statManifest(ctx, repo, digest.Digest(d))
			if err == errNotFound || errors.Is(err, errCorrupt) || err == nil && m.Incarnation != incarnation {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			if m.ArtifactType != packed.ArtifactType || !bytes.Equal(m.Descriptor, packed.Descriptor) {
				return errStalePack, func() (string, error) {
					if err := s.remove(ctx, key); err != nil {
						return "", err
					}
					return "removed", nil
				}, nil
			}
		}
		return nil, nil, nil
	})
}
