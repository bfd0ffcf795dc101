// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package ocidir

import "os"

// datasync syncs the content of a file, and its size.
func datasync(f *os.File) error { return f.Sync() }
