// SPDX-License-Identifier: Apache-2.0

// Uses of content, and the store's registry.Collector.

package bucket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// A use of content is the time of its register, to within usePrecision: content that
// was used that short a time ago is not written again.
const usePrecision = 10 * time.Minute

// precision returns usePrecision, or less in tests with a short grace period.
func (s *Store) precision() time.Duration { return min(usePrecision, s.minGrace) }

// Now returns the time by the bucket's clock, to within some seconds.
func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.bucketNow(ctx) }

// usedRecently reports whether a register was written so short a time ago that a use
// need not be noted.
func (s *Store) usedRecently(ctx context.Context, v value) (bool, error) {
	age, err := s.age(ctx, v.object.Time)
	return age < s.precision(), err
}

// noteUse writes a register again, so that CollectBlobs and CollectManifests leave it
// alone. It reports false if another writer has replaced the value.
func (s *Store) noteUse(ctx context.Context, key string, v value) (bool, error) {
	_, ok, err := s.replace(context.WithoutCancel(ctx), key, v, newID(), v.data)
	return ok, err
}

// StatBlob returns the size and time of a blob. It costs one call, or two if the blob
// has not been used for some minutes.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	for attempt := range maxAttempts {
		backOff(attempt)
		l, err := s.blobLink(ctx, repo, d)
		if err != nil {
			return registry.Info{}, err
		}
		if recent, err := s.usedRecently(ctx, l.value); recent || err != nil {
			return l.info(d), err
		}
		if ok, err := s.noteUse(ctx, linkKey(repo, d), l.value); ok || err != nil {
			return l.info(d), err
		}
	}
	return registry.Info{}, registry.ErrUnavailable
}

// StatManifest returns the size and time of a manifest. It costs as much as StatBlob,
// or a call more.
func (s *Store) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	for attempt := range maxAttempts {
		backOff(attempt)
		m, err := s.statManifest(ctx, repo, d)
		if err == errNotFound {
			err = s.unknownError(ctx, repo, registry.ErrManifestUnknown)
		}
		if err != nil {
			return registry.Info{}, err
		}
		info := registry.Info{Digest: d, Size: m.size, Time: m.object.Time}
		if recent, err := s.usedRecently(ctx, m.value); recent || m.Leaves || err != nil {
			return info, err
		}
		whole, err := s.readManifest(ctx, repo, d)
		if err != nil {
			return registry.Info{}, err
		}
		if whole.id != m.id || whole.Leaves {
			continue
		}
		if ok, err := s.noteUse(ctx, manifestKey(repo, d), whole.value); ok || err != nil {
			return info, err
		}
	}
	return registry.Info{}, registry.ErrUnavailable
}

// CollectBlobs is a method of registry.Collector. The time must be at least half an
// hour ago, so that no push in progress loses content.
func (s *Store) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	return s.collect(ctx, blobs, since, func(ctx context.Context, d digest.Digest, since time.Time) (registry.Info, bool, error) {
		l, err := s.readLink(ctx, repo, d)
		if err != nil || !l.exists() || !l.value.object.Time.Before(since) {
			return registry.Info{}, false, err
		}
		ok, err := s.unlink(ctx, repo, d, l)
		return l.info(d), ok, err
	})
}

// CollectManifests is a method of registry.Collector, with the same condition as
// CollectBlobs. The manifests are collected several at once.
//
// A push of a tag writes the manifest before the tag: so if nobody has written the
// manifest since that time, each tag that points at it can be read.
func (s *Store) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	return s.collect(ctx, manifests, since, func(ctx context.Context, d digest.Digest, since time.Time) (registry.Info, bool, error) {
		m, err := s.readManifest(ctx, repo, d)
		if err != nil || !m.exists() || !m.object.Time.Before(since) {
			return registry.Info{}, false, err
		}
		tagged, err := s.isTagged(ctx, repo, m, since)
		if tagged || err != nil {
			return registry.Info{}, false, err
		}
		ok, err := s.tryDelete(ctx, repo, m)
		if ok && err == nil {
			err = s.removeTraces(ctx, repo, m)
		}
		return registry.Info{Digest: d, Size: int64(len(m.content)), Time: m.object.Time}, ok, err
	})
}

// isTagged reports whether a tag points at a manifest, or may return: see isNeeded.
func (s *Store) isTagged(ctx context.Context, repo string, m manifest, since time.Time) (bool, error) {
	errTagged := errors.New("tagged")
	err := s.eachHint(ctx, repo, m.digest, m.Incarnation, func(h hint) error {
		needed, err := s.isNeeded(ctx, repo, m.digest, h, since)
		if needed {
			return errTagged
		}
		return err
	})
	if errors.Is(err, errTagged) {
		return true, nil
	}
	return false, err
}

// collect calls a function that deletes content unless it was used since a time, for
// several at once. It returns the content that was deleted; content that can't be read
// stays, since Check reports it.
func (s *Store) collect(ctx context.Context, content []digest.Digest, since time.Time, delete func(context.Context, digest.Digest, time.Time) (registry.Info, bool, error)) ([]registry.Info, error) {
	now, err := s.bucketNow(ctx)
	if err != nil {
		return nil, err
	}
	if now.Sub(since) < s.minGrace {
		return nil, fmt.Errorf("bucket: content that was unused for only %v can't be collected: pushes in progress would lose it; the minimum is %v", now.Sub(since).Round(time.Second), s.minGrace)
	}
	var (
		mu      sync.Mutex
		deleted []registry.Info
	)
	err = each(content, func(d digest.Digest) error {
		info, ok, err := delete(context.WithoutCancel(ctx), d, since.Add(-s.precision()))
		if errors.Is(err, errCorrupt) {
			return nil
		}
		if ok {
			mu.Lock()
			defer mu.Unlock()
			deleted = append(deleted, info)
		}
		return err
	})
	return deleted, err
}

// CollectRest is GC with a grace period that begins at a time.
func (s *Store) CollectRest(ctx context.Context, since time.Time) (registry.Collected, error) {
	now, err := s.bucketNow(ctx)
	if err != nil {
		return registry.Collected{}, err
	}
	stats, err := s.GC(ctx, GCOptions{Grace: now.Sub(since)})
	return registry.Collected{Blobs: stats.Deleted, Bytes: stats.Bytes, Uploads: stats.Uploads}, err
}
