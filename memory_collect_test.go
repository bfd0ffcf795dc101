// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// TestUsesDoNotGoBack notes a use that began before another one was noted.
func TestUsesDoNotGoBack(t *testing.T) {
	var u lastUse
	later := time.Now().Add(time.Hour)
	u.Store(later.UnixNano())
	u.touch()
	qt.Check(t, qt.IsTrue(u.since(later)))
}
