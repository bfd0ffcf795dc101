// SPDX-License-Identifier: Apache-2.0

// Package peers measures Berth beside other registries and beside raw, a bare
// handler that hashes what it reads and serves fixed bytes: what a Go server can
// do at all. Each is a process of its own, reached over loopback by a client that
// costs little; in each round all take their turn, so that the machine's moods
// hit all alike; each answer is checked.
//
//	go test ./peers                                     a short round, which shows that it works
//	go test -timeout 60m -run TestTable ./peers -table  the whole, written to BENCHMARKS.md
//	go test -v -run TestTable ./peers -table -rows pull some of it, printed
//	BERTH_PEERS_PROFILES=/tmp go test -run TestTable ./peers -table -rows HEAD   writes raw.pprof, berth.pprof, ...
//	go test -run '^$' -bench . ./peers                  for benchstat
//
// It reads /proc, so it is for Linux alone.
package peers
