// SPDX-License-Identifier: Apache-2.0

//go:build !unix || aix || solaris || illumos

package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lockFile makes a file, which nobody else may have open. On Windows that holds
// until it is closed or the process ends, since a file that is open can't be
// removed there; elsewhere it can't be told, and there is no lock.
func lockFile(name string) (*os.File, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, ErrInUse
	}
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// Without a count of a file's names nothing can tell when the last layout has
// given one up.
const canCountLinks = false

func links(string) int { return 0 }

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) }
