// SPDX-License-Identifier: Apache-2.0

// Changes to blobs.

package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// FindBlob searches the repositories only if d is in the pool, like all blobs that
// were pushed.
func (s *Store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	if canCountLinks && !s.files.exists(poolPath(d)) {
		return func(func(string, error) bool) {}
	}
	return s.reader.FindBlob(ctx, d)
}

func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	if _, err := s.StatBlob(ctx, from, d); err != nil {
		return err
	}
	err := s.addBlob(repo, d, contentPath(repoDir(from), d))
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
		if !t.isBlob(d) { // it was deleted just now, or it is a manifest or a list too
			t.keepBlob(d)
			t.record(record{Op: opKeepBlob, Digest: d})
		}
		return nil
	})
}

func (s *Store) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	return s.update(repo, func(t *txn) error {
		switch {
		case t.isNew:
			return registry.ErrNameUnknown
		case !t.isBlob(d) || !t.hasFile(d):
			return registry.ErrBlobUnknown
		}
		t.deleteBlob(d)
		t.record(record{Op: opDeleteBlob, Digest: d})
		t.deletes = true
		return nil
	})
}

// poolPath returns the path of the link in .berth/blobs, the pool, to content
// with the digest d.
func poolPath(d digest.Digest) string {
	return path.Join(poolDir, d.Algorithm().String(), d.Encoded())
}

// linkContent links name to the content with the digest d: to the file source, which
// keeps its name, or to the one in the pool if source is an upload.
// Errors: fs.ErrExist if name exists.
func (s *Store) linkContent(d digest.Digest, source, name string) error {
	pool := poolPath(d)
	if !canCountLinks {
		return s.files.linkOrCopy(source, name)
	}
	pooled := fs.ErrNotExist
	isUpload := strings.HasPrefix(source, uploadsDir+"/") // and was compared with the pool
	if isUpload && s.files.exists(pool) {
		pooled = s.files.link(pool, name)
	}
	if pooled == nil || errors.Is(pooled, fs.ErrExist) {
		return pooled
	}
	if err := s.files.linkOrCopy(source, name); err != nil {
		return err
	}
	// Without a link in the pool, a later push of the same bytes is stored
	// separately, which only wastes space.
	if !errors.Is(pooled, fs.ErrNotExist) {
		s.files.remove(pool) // the file has as many names as the file system allows
	}
	s.files.mkdirAll(path.Dir(pool))
	s.files.link(name, pool)
	return nil
}

// unpool removes content from the pool if no layout has it. A concurrent push
// that has linked to the content keeps it under its own name.
func (s *Store) unpool(d digest.Digest) {
	if pool := poolPath(d); canCountLinks && s.linkCount(pool) == 1 {
		s.files.remove(pool)
	}
}

// linkCount returns the number of a file's names, 0 if it is unknown.
func (s *Store) linkCount(name string) int {
	info, err := s.files.Stat(name)
	if err != nil {
		return 0
	}
	return linkCount(info)
}

// touch sets the modification time of a file of content to now.
func (s *Store) touch(name string) error { return s.files.setTime(name, time.Now()) }

// setTime sets the modification time of a file of content.
func (d rootDir) setTime(name string, t time.Time) error {
	if err := d.chtimes(name, t); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // only the owner of a file can do so; another user may have put the layout there
}
