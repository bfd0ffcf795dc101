// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// GC removes what no repository has any more: bytes of which the process that
// deleted them did not live to see the end, or of which the layout was removed
// by other tools. It returns how many blobs that were, and their bytes. It may
// run while the store is in use.
func (s *Store) GC(ctx context.Context) (blobs int, size int64, err error) {
	if !canCountLinks {
		return 0, 0, nil
	}
	s.uploads.mu.Lock()
	s.expire()
	s.uploads.mu.Unlock()
	err = filepath.WalkDir(s.path(poolDir), func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || links(name) != 1 {
			return nil // deleted since, or in use
		}
		// A push that takes it at this moment has a name of its own for it.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		blobs++
		size += info.Size()
		return nil
	})
	return blobs, size, err
}
