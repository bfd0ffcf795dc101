// SPDX-License-Identifier: Apache-2.0

// Changes to manifests and tags.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

func (s *Store) PutManifest(_ context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	wasDamaged := false
	err := s.update(repo, func(t *txn) (err error) {
		wasDamaged, err = t.put(m, tags, allow)
		return err
	})
	if err != nil || !wasDamaged {
		return err
	}
	// The file of another repository may be the same.
	source, err := s.files.writeTemp(m.Content)
	if err != nil {
		return s.storeError(err)
	}
	defer s.files.remove(source)
	return s.replaceDamaged(m.Digest, &comparer{files: s.files, digest: m.Digest, source: source})
}

// put adds a manifest, and points tags at it. It reports whether the repository had
// its file, damaged or missing.
func (t *txn) put(m registry.Manifest, tags []string, allow registry.AllowFunc) (wasDamaged bool, err error) {
	if err := t.useChildren(m); err != nil {
		return false, err
	}
	now := time.Now()
	r := record{Op: opPush, Digest: m.Digest, MediaType: m.MediaType, Size: int64(len(m.Content)), Tags: tags, Time: now}
	known := t.uses(m.Digest).has(asManifest)
	if known {
		if wasDamaged, err = t.checkContent(m); err != nil {
			return false, err
		}
	}
	if !known || wasDamaged {
		if r.Content = m.Content; r.Content == nil {
			r.Content = []byte{}
		}
		r.Blob = t.uses(m.Digest) == 0 && t.isBlob(m.Digest) && t.hasFile(m.Digest)
	}
	if err := t.putManifest(m, r.Size, r.Content, tags, allow, now); err != nil {
		return false, err
	}
	if r.Blob {
		t.addUse(m.Digest, asBlob)
	}
	_, isPending := t.pending.Get(string(m.Digest))
	if !isPending {
		if err := t.repo.s.touch(t.file(m.Digest)); err != nil {
			return false, err
		}
	}
	if isPending || len(tags) > 0 { // without a record nothing of t becomes visible
		t.record(r)
	}
	return wasDamaged, nil
}

// checkContent returns an error if the repository has m with other content. It
// reports whether the content is damaged or missing. The transaction's MemStore
// compares the media types.
func (t *txn) checkContent(m registry.Manifest) (isDamaged bool, err error) {
	stored, err := t.manifests.GetManifest(context.Background(), t.name, m.Digest)
	if err != nil {
		return false, err
	}
	content, err := t.repo.s.manifestContent(t.layout, stored)
	if isMissing(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, m.CheckSame(registry.Manifest{MediaType: m.MediaType, Content: content})
}

func (s *Store) DeleteManifest(_ context.Context, repo string, d digest.Digest) error {
	return s.update(repo, func(t *txn) error {
		r := record{Op: opDelete, Digest: d, Blob: t.uses(d).has(asBlob)}
		if err := t.deleteManifest(d); err != nil {
			return t.notFound(err)
		}
		t.record(r)
		t.deletes = true
		return nil
	})
}

func (s *Store) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	return s.update(repo, func(t *txn) error {
		if err := t.manifests.DeleteTag(ctx, repo, tag, allow); err != nil {
			return t.notFound(err)
		}
		t.record(record{Op: opUntag, Tags: []string{tag}})
		return nil
	})
}

// notFound returns err with the right code: a repository that has only blobs is
// known.
func (t *txn) notFound(err error) error {
	if errors.Is(err, registry.ErrNameUnknown) && !t.isNew {
		return fmt.Errorf("%w", registry.ErrManifestUnknown)
	}
	return err
}
