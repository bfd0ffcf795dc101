// SPDX-License-Identifier: Apache-2.0

package ocidir

import (
	"testing"
	"time"
)

// NoFolds keeps stores from folding journals on their own until the test ends, so
// that it can copy their directories. Call it before Open.
func NoFolds(t *testing.T) {
	idle, age := foldIdle, foldAge
	foldIdle, foldAge = time.Hour, time.Hour
	t.Cleanup(func() { foldIdle, foldAge = idle, age })
}
