// SPDX-License-Identifier: Apache-2.0

//go:build !unix || aix || solaris || illumos

package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lock creates and opens a file that no other process has open. On Windows
// an open file can't be removed, which makes it a lock until it is closed or the
// process ends. Elsewhere there is no lock.
func (d rootDir) lock(name string) (*os.File, error) {
	if d.remove(name) != nil {
		return nil, ErrInUse
	}
	return d.create(name)
}

// Without link counts the store can't tell when the last layout with a file is
// gone, so it has no pool.
const canCountLinks = false

func linkCount(fs.FileInfo) int { return 0 }

func idOf(fs.FileInfo) (fileID, bool) { return fileID{}, false }

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
