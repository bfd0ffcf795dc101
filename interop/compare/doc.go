// SPDX-License-Identifier: Apache-2.0

// Package compare measures Berth, other registries, and raw: a bare handler that
// hashes the bytes it reads and serves fixed bytes, as a bound on the speed of any
// Go server. Each server runs in its own process, and a client with little overhead
// connects to it over loopback. In each round all servers take turns, so that
// fluctuations of the machine affect all of them alike. Each response is checked.
//
//	go test ./compare                                      a short run, as a test of the benchmarks
//	go test -v -timeout 60m -run TestTable ./compare -table -write ../../docs/benchmarks.md
//	go test -v -run TestTable ./compare -table -rows pull  only some rows, logged
//	BERTH_COMPARE_PROFILES=/tmp go test -run TestTable ./compare -table -rows HEAD   writes raw.pprof, berth.pprof, ...
//	go test -run '^$' -bench . ./compare                   for benchstat
//
// TestGrowth measures servers that keep their content in a directory: the time and
// the bytes written of serial changes to repositories of increasing sizes, starts,
// and memory. Only one of the servers runs at a time.
//
//	go test -v -timeout 120m -run TestGrowth ./compare -growth -write ../../docs/benchmarks.md
//
// It reads /proc, so it requires Linux.
package compare
