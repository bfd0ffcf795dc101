// SPDX-License-Identifier: Apache-2.0

// Package mirrors tests module mirror as a whole: random histories with a failing
// upstream, which a model predicts; many clients that pull a large image through berth
// serve while the upstream is slow, or while the process is killed; and the speed for
// content that a mirror has.
//
// By default its tests are short. For long runs:
//
//	go test -race -timeout 30m ./mirrors -run TestModel -long 10m
//	go test -v -timeout 30m ./mirrors -run TestCold -full
//	go test -v -timeout 20m ./mirrors -run TestWarm -warm 40
package mirrors
