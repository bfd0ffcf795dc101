// SPDX-License-Identifier: Apache-2.0

//go:build unix && !aix && !solaris && !illumos

package ocidir

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// lock opens and locks a file. The lock lasts until the file is closed or the
// process ends.
func (d rootDir) lock(name string) (*os.File, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
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

// canCountLinks reports whether linkCount works.
const canCountLinks = true

// linkCount returns the number of a file's names, 0 if it is unknown.
func linkCount(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Nlink)
	}
	return 0
}

// idOf returns the ID of a file.
func idOf(info fs.FileInfo) (fileID, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{uint64(stat.Dev), uint64(stat.Ino)}, true
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
