// SPDX-License-Identifier: Apache-2.0

//go:build unix && !aix && !solaris && !illumos

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockFolder waits until no other process has locked the folder of a file, and locks it.
// A file system that can't lock folders lets all in.
func lockFolder(name string) (unlock func(), err error) {
	f, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			return func() { f.Close() }, nil
		}
	}
}

// keepOwner gives f the owner and the group of another file.
func keepOwner(f *os.File, old fs.FileInfo) error {
	want := old.Sys().(*syscall.Stat_t)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if is := info.Sys().(*syscall.Stat_t); is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}
