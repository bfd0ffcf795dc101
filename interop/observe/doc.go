// SPDX-License-Identifier: Apache-2.0

// Package observe tests module observe with the programs that it is for: Prometheus,
// a receiver of OTLP, and distribution's types of notifications.
//
//	go test ./observe
//	go test -v -timeout 20m -run TestKilled ./observe -kills=100
package observe
