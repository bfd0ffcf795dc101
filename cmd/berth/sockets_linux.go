// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// restrict sets the mode that a unix socket has from its start, apart from the umask:
// no other user can connect before it is set on the file.
func restrict(c syscall.RawConn, mode socketMode) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), uint32(mode)) })
	if err != nil {
		return err
	}
	return failed
}
