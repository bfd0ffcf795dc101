// SPDX-License-Identifier: Apache-2.0

// Package attack sends a registry requests that no well-behaved client sends:
// hostile names, broken framing, JSON bombs, and conditions and ranges at the
// edges of their grammar. Each case states the response that it expects, and the
// section of the distribution-spec or of an RFC that demands it. Some checks
// apply to every response: no panic, no hang, and no 5xx from the registry
// itself; errors in the spec's shape; neither the client's Host nor its body
// reflected; nothing changed by a rejected request.
//
// Run all cases from this folder, or print the table of cases, expected
// responses and sections:
//
//	go test -race .
//	go test -v -run TestAttacks . -table
//
// A case that fails today is a finding. It records the actual statuses, and the
// test reports and skips it.
//
// attack_test.go lists the chapters that hold the cases.
package attack
