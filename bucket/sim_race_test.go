// SPDX-License-Identifier: Apache-2.0

//go:build race

package bucket_test

// With the race detector, a simulation takes many times as long.
func init() { simShare = 5 }
