// SPDX-License-Identifier: Apache-2.0

//go:build unix && !aix && !solaris && !illumos

package ocidir

import (
	"errors"
	"os"
	"syscall"
)

// lockFile makes and locks a file, until it is closed or the process ends.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// canCountLinks tells whether links can.
const canCountLinks = true

// links returns how many names a file has, 0 if it can't tell.
func links(name string) int {
	info, err := os.Lstat(name)
	if err != nil {
		return 0
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Nlink)
	}
	return 0
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
