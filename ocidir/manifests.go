// SPDX-License-Identifier: Apache-2.0

// Changes to manifests and tags.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	// Write the file before the transaction, which delays others.
	file := ""
	write := func() (err error) {
		file, err = s.writeTemp(m.Content)
		return err
	}
	defer func() {
		if file != "" {
			os.Remove(file)
		}
	}()
	if _, err := s.GetManifest(ctx, repo, m.Digest); err != nil {
		if err := write(); err != nil {
			return storeError(err)
		}
	}
	return s.update(repo, func(t *txn) error {
		if file == "" && !t.hasManifest(m.Digest) { // deleted meanwhile
			if err := write(); err != nil {
				return err
			}
		}
		return t.putManifest(ctx, m, file, tags, allow)
	})
}

// hasManifest reports whether the repository has a manifest, and its file.
func (t *txn) hasManifest(d digest.Digest) bool {
	return t.content[d].has(asManifest) && t.hasFile(d)
}

// putManifest adds a manifest, with the content of file unless the repository
// has it, and points tags at it.
func (t *txn) putManifest(ctx context.Context, m registry.Manifest, file string, tags []string, allow registry.AllowFunc) error {
	manifests := t.manifests.Clone()
	if err := (withoutContent{manifests}).PutManifest(ctx, t.name, m, tags, allow); err != nil {
		return err
	}
	if err := t.checkContent(m); err != nil {
		return err
	}
	c, known := t.content[m.Digest]
	switch {
	case !known && t.hasFile(m.Digest):
		c.use |= asBlob
	case !known:
		t.hide(m.Digest)
	}
	if err := t.addFile(m.Digest, file); err != nil {
		return err
	}
	if !c.has(asManifest) {
		c.use |= asManifest
		c.size = int64(len(m.Content))
		t.content[m.Digest] = c
		t.order = append(t.order, m.Digest)
		t.indexChanged = true
		if m.Subject != "" {
			t.subjects[m.Subject] = true
		}
	}
	t.manifests = manifests
	t.indexChanged = t.indexChanged || len(tags) > 0
	return nil
}

// checkContent returns an error if the repository has m with other content. The
// transaction's MemStore has compared the media types.
func (t *txn) checkContent(m registry.Manifest) error {
	if !t.hasManifest(m.Digest) {
		return nil
	}
	content, err := os.ReadFile(t.filePath(m.Digest))
	if err != nil {
		return err
	}
	return m.CheckSame(registry.Manifest{MediaType: m.MediaType, Content: content})
}

func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return s.updateAlone(repo, func(t *txn) error {
		m, err := t.manifests.GetManifest(ctx, repo, d)
		if err != nil {
			return t.notFound(err)
		}
		if err := t.manifests.DeleteManifest(ctx, repo, d); err != nil {
			return err
		}
		t.order = slices.DeleteFunc(slices.Clone(t.order), func(other digest.Digest) bool { return other == d })
		if m.Subject != "" {
			t.subjects[m.Subject] = true
		}
		t.endUse(d, asManifest)
		t.indexChanged = true
		t.deletes = true
		return nil
	})
}

// endUse ends a use of content. If it has no other use, its file is removed once
// the change is durable.
func (t *txn) endUse(d digest.Digest, u use) {
	last := t.content[d].use == u
	t.removeUse(d, u)
	if last {
		t.hide(d)
		t.cleanup = append(t.cleanup, func() error { return t.removeFile(d) })
	}
}

func (s *Store) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	return s.update(repo, func(t *txn) error {
		if err := t.manifests.DeleteTag(ctx, repo, tag, allow); err != nil {
			return t.notFound(err)
		}
		t.indexChanged = true
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
