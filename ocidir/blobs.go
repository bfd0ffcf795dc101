// SPDX-License-Identifier: Apache-2.0

// Changes to blobs.

package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// FindBlob searches the repositories only if d is in the pool, like all content
// that was pushed.
func (s *Store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	if canCountLinks {
		if _, err := os.Stat(s.path(poolPath(d))); err != nil {
			return func(func(string, error) bool) {}
		}
	}
	return s.reader.FindBlob(ctx, d)
}

func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	if _, err := s.StatBlob(ctx, from, d); err != nil {
		return err
	}
	err := s.addBlob(repo, d, s.path(contentPath(repoDir(from), d)))
	if errors.Is(err, fs.ErrNotExist) {
		return registry.ErrBlobUnknown // deleted meanwhile
	}
	return err
}

// addBlob publishes a file as the blob d of a repository.
func (s *Store) addBlob(repo string, d digest.Digest, file string) error {
	return s.update(repo, func(t *txn) error {
		if err := t.addFile(d, file); err != nil {
			return err
		}
		if !t.isBlob(d) { // it is a manifest or a list, and now a blob too
			t.addUse(d, asBlob)
			t.indexChanged = true
		}
		return nil
	})
}

func (s *Store) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	return s.updateAlone(repo, func(t *txn) error {
		switch {
		case t.isNew:
			return registry.ErrNameUnknown
		case !t.isBlob(d) || !t.hasFile(d):
			return registry.ErrBlobUnknown
		case t.content[d].has(asBlob):
			t.removeUse(d, asBlob)
			t.indexChanged = true
			return nil
		}
		t.cleanup = append(t.cleanup, func() error { return t.removeFile(d) })
		t.deletes = true
		return nil
	})
}
