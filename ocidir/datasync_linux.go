// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"os"
	"syscall"
)

// datasync syncs the content of a file, and its size.
func datasync(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	if err := conn.Control(func(fd uintptr) {
		for syncErr = syscall.EINTR; syncErr == syscall.EINTR; {
			syncErr = syscall.Fdatasync(int(fd))
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("fdatasync", syncErr)
}
