// SPDX-License-Identifier: Apache-2.0

// Package pulls tests that pulls from berth serve --store dir: cost the server as much
// as [http.FileServer] spends on the same file: the kernel sends it, by sendfile(2).
//
//	go test ./pulls                        counts system calls
//	go test -v -run TestCost ./pulls -cost  compares the processor time of pulls of 512 MiB
//
// It reads /proc, so it requires Linux.
package pulls
