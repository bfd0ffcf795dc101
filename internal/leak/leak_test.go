// SPDX-License-Identifier: Apache-2.0

package leak

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

func TestMain(m *testing.M) { Main(m) }

func TestWait(t *testing.T) {
	done := make(chan struct{})
	go func() { <-done }()
	qt.Assert(t, qt.StringContains(wait(0), "leak.TestWait"))
	close(done)
	qt.Assert(t, qt.Equals(wait(5*time.Second), ""))
}
