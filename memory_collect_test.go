// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// TestUsesDoNotGoBack notes uses at the same time: no use is earlier than one that
// has been noted before it began.
func TestUsesDoNotGoBack(t *testing.T) {
	u := usedNow()
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 20_000 {
				before := time.Now()
				u.touch()
				qt.Assert(t, qt.IsTrue(u.since(before)))
			}
		}()
	}
	wg.Wait()
}
