// SPDX-License-Identifier: Apache-2.0

// Package memlimit floods the berth serve command, and puts it under sustained
// load. Its memory must stay within the limits that its flags set, and must be
// returned to the system when content is deleted.
//
//	go test ./memlimit                       a fraction of each flood
//	go test -v ./memlimit -full              the full floods, with figures
//	go test -v -timeout 40m -run TestSoak ./memlimit -soak=30m
package memlimit
