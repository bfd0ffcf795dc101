// SPDX-License-Identifier: Apache-2.0

//go:build !unix || aix || solaris || illumos

package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lockFile creates and opens a file that no other process has open. On Windows
// an open file can't be removed, which makes it a lock until it is closed or the
// process ends. Elsewhere there is no lock.
func lockFile(name string) (*os.File, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, ErrInUse
	}
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// Without link counts the store can't tell when the last layout with a file is
// gone, so it has no pool.
const canCountLinks = false

func linkCount(string) int { return 0 }

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
