// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "syscall"

// restrict does nothing: the file gets its mode after the socket is bound to it. Until
// then, it has that of the umask.
func restrict(syscall.RawConn, socketMode) error { return nil }
