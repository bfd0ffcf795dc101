// SPDX-License-Identifier: Apache-2.0

// The part of Scrub that verifies links, and repairs them.

package bucket

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// link verifies that the data of a link exists and is intact.
func (c *scrubber) link(ctx context.Context, repo string, d digest.Digest) error {
	if d.Validate() != nil {
		return nil // no client can request it
	}
	return c.examine(ctx, repo, linkKey(repo, d), func() (error, func() (string, error), error) {
		l, problem, err := c.examineLink(ctx, repo, d)
		return problem, func() (string, error) { return c.repairLink(ctx, repo, d, l) }, err
	})
}

func (c *scrubber) examineLink(ctx context.Context, repo string, d digest.Digest) (l link, problem, err error) {
	s := c.store
	v, err := s.read(ctx, linkKey(repo, d))
	if err == nil {
		l, err = parseLink(v)
	}
	switch {
	case err == errMalformed:
		return link{value: v}, errMalformedLink, nil
	case err != nil || !l.exists():
		return l, nil, err
	}
	data, err := s.stat(ctx, dataKey(d, l.Data))
	switch {
	case err == errNotFound:
		return l, errMissingData, nil
	case err != nil:
		return l, nil, err
	case c.isDamaged(dataKey(d, l.Data)):
		return l, errDamagedData, nil
	case data.Size != l.Size:
		return l, errLinkSize, nil
	}
	if ok, err := s.exists(ctx, inverseKey(d, l, repo)); ok || err != nil {
		return l, nil, err
	}
	return l, errNoInverse, nil
}

// repairLink points a link at intact data, or deletes it.
func (c *scrubber) repairLink(ctx context.Context, repo string, d digest.Digest, l link) (string, error) {
	s := c.store
	for o, err := range s.list(ctx, blobsPrefix+digestPath(d)+"/data/", "", firstPageSize) {
		if err != nil {
			return "", err
		}
		err := s.verifyData(ctx, d, o.name, o.size)
		if err == errDamaged || err == errNotFound {
			continue
		}
		if err != nil {
			return "", err
		}
		if ok, err := s.relink(ctx, repo, d, l, o.name, o.size); !ok || err != nil {
			return "", err
		}
		return "linked to intact data", nil
	}
	if ok, err := s.unlink(context.WithoutCancel(ctx), repo, d, l); !ok || err != nil {
		return "", err
	}
	return "deleted, until a client pushes the blob again", nil
}

// relink points a link at other data, which is intact, unless another writer has
// replaced the link. The order of its steps is that of publish. Data that is condemned
// is copied: GC may delete it at any moment.
func (s *Store) relink(ctx context.Context, repo string, d digest.Digest, old link, data string, size int64) (bool, error) {
	ctx = context.WithoutCancel(ctx) // all or nothing
	for attempt := range maxAttempts {
		backOff(attempt)
		began := time.Now()
		usable, err := s.isUsable(ctx, d, data)
		if err != nil {
			return false, err
		}
		l := link{ID: newID(), Data: data, Size: size, CRC: old.CRC}
		if !usable {
			l.Data = newID()
		}
		err = atOnce(
			func() error { return s.put(ctx, inverseKey(d, l, repo), nil) },
			func() error {
				if usable {
					return nil
				}
				return s.copy(ctx, dataKey(d, l.Data), dataKey(d, data), size)
			},
		)
		if err != nil {
			return false, err
		}
		if elapsed(began) >= s.trustedFor {
			continue // GC may have removed the inverse
		}
		b, err := marshal(l)
		if err != nil {
			return false, err
		}
		now, ok, err := s.replace(ctx, linkKey(repo, d), old.value, newID(), b)
		if err != nil {
			return false, err // the link may be there
		}
		if !ok {
			return false, s.remove(ctx, inverseKey(d, l, repo))
		}
		if former := old; former.exists() {
			s.later(func() { s.remove(ctx, inverseKey(d, former, repo)) })
		}
		l.value = now
		old = l
		if elapsed(began) >= s.trustedFor {
			continue
		}
		if !usable { // it is new
			return true, s.confirmRepo(ctx, repo)
		}
		if usable, err = s.isUsable(ctx, d, l.Data); usable || err != nil {
			return err == nil, atOnce(func() error { return err }, func() error { return s.confirmRepo(ctx, repo) })
		}
	}
	return false, registry.ErrUnavailable
}
