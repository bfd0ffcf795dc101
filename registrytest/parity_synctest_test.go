// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package registrytest_test

import (
	"testing"
	"testing/synctest"

	"github.com/berth-oci/registry/registrytest"
)

// TestParityInBubbles runs each row of TestParity in process in synctest's fake time.
// It hangs, or panics, if a goroutine remains, waits for something outside the bubble,
// or sleeps when the test has ended and time stands still.
func TestParityInBubbles(t *testing.T) {
	discardLog(t)
	for _, row := range parityRows() {
		t.Run(row.name, func(t *testing.T) {
			x := &parityExchange{row: &row}
			rt := registrytest.Transport(x) // made outside
			synctest.Test(t, func(t *testing.T) { x.run(t, rt, "http://registry.example") })
		})
	}
}
