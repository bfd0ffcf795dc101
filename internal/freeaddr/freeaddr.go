// SPDX-License-Identifier: Apache-2.0

// Package freeaddr finds addresses for servers that tests start.
package freeaddr

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// New returns a loopback address that is free. Its port is less than those that systems
// choose for connections and for listeners, so that no other test gets it meanwhile.
func New(t testing.TB) string {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}
