// SPDX-License-Identifier: Apache-2.0

// Package crash tests that a registry with a directory still has everything that it
// acknowledged after it is killed, after the power fails, and after the disk fails to
// store data.
//
//	go test ./crash                                          a few of each
//	go test -v -timeout 40m -run TestKill ./crash -kills=500
//	go test -v -timeout 20m -run TestPowerLoss ./crash -cuts=200
//
// TestPowerLoss and TestFailedSync mount file systems: they need Linux and root, and
// otherwise are skipped. Their mounts are in a namespace of their own, so that none
// outlives the test, however it ends.
package crash
