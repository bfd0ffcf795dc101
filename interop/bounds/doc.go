// SPDX-License-Identifier: Apache-2.0

// Package bounds floods the command berth serve, and soaks it: its memory must
// stay under what its flags say, and be given back.
//
//	go test ./bounds                       a taste of each flood
//	go test -v ./bounds -full              all of them, with figures
//	go test -v -timeout 40m -run TestSoak ./bounds -soak=30m
package bounds
