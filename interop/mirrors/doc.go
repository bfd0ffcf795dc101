// SPDX-License-Identifier: Apache-2.0

// Package mirrors tests module mirror as a whole: random histories with a failing
// upstream, which a model predicts, and many clients that pull a large image through
// berth serve while it is slow, and while the process is killed.
//
// By default its tests are short. For long runs:
//
//	go test -race -timeout 20m ./mirrors -run TestModel -long 10m
//	go test -v -timeout 30m ./mirrors -run TestCold -full
//	go test -v ./mirrors -run TestWarm -warm
package mirrors
