// SPDX-License-Identifier: Apache-2.0

// Package attack sends a registry what no decent client sends: hostile names,
// broken framing, JSON bombs, conditions and ranges at the edge of their
// grammar. Each case says what the answer must be, and which section of the
// distribution-spec or of an RFC asks for it; what holds for every answer is
// checked with each: no panic and no hang, no 5xx of the registry's own, errors
// in the spec's shape, no host or body of the client's reflected, and nothing
// changed by what was refused.
//
// Go to its folder and run all of it, or show its table of cases, answers and
// sections:
//
//	go test -race .
//	go test -v -run TestAttacks . -table
//
// A case that does not hold yet is a finding: it says what is answered today, and
// is skipped with a word of it.
//
// The cases are in the chapters that attack_test.go lists.
package attack
