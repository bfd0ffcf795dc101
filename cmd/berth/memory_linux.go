// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// unmapStart unmaps the pages of the binary that the start has used: the initialization of
// all packages reads half of it, of which an idle server needs little. What is needed again
// is mapped again from the page cache.
func unmapStart() {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for line := range bytes.Lines(maps) {
		var from, to uintptr
		var mode string
		if _, err := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &mode); err != nil || mode[1] == 'w' || !bytes.HasSuffix(bytes.TrimSpace(line), []byte(" "+program)) {
			continue // a page that can be written may have been
		}
		syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
	}
}
