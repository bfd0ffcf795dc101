// SPDX-License-Identifier: Apache-2.0

// Garbage collection.

package ocidir

import (
	"context"
	"io/fs"
)

// GC removes content that no repository has: the remains of interrupted deletes,
// and of layouts that other tools removed. It returns the number of removed blobs
// and their total size. It may run while the store is in use.
func (s *Store) GC(ctx context.Context) (blobs int, size int64, err error) {
	if !canCountLinks {
		return 0, 0, nil
	}
	s.sessions.mu.Lock()
	s.expireUploads()
	s.unlockSessions()
	err = fs.WalkDir(s.fsys, poolDir, func(name string, d fs.DirEntry, err error) error {
		if isMissing(err) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || linkCount(info) != 1 {
			return nil // deleted meanwhile, or in use
		}
		// A concurrent push that has linked to it keeps it under its own name.
		if err := s.files.remove(name); err != nil {
			return err
		}
		blobs++
		size += info.Size()
		return nil
	})
	return blobs, size, err
}
