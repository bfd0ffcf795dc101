// SPDX-License-Identifier: Apache-2.0

// Random histories of a mirror, whose upstreams fail, compared with a model.

package mirrors

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var long = flag.Duration("long", 0, "how long TestModel runs")

// TestModel sends random requests to a mirror while its upstreams fail in all ways, and
// compares each response with a model: its status, content and Warning, and the number
// of requests upstream. Time is fake, so that a mirror that waits forever fails the test.
func TestModel(t *testing.T) {
	// The logged seed is enough to reproduce a failure.
	for name, value := range map[string]string{"rapid.nofailfile": "true", "rapid.steps": "60", "rapid.checks": "30"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := time.Now().Add(*long)
	histories, operations := 0, 0
	for first := true; first || time.Now().Before(end); first = false {
		rapid.Check(t, func(t *rapid.T) {
			rapid.SyncTest(t, func(t *rapid.T) {
				m := newMachine(t)
				defer synctest.Wait()
				defer m.close()
				all := rapid.StateMachineActions(m)
				for name, action := range all {
					if name != "" {
						all[name] = func(t *rapid.T) {
							action(t)
							operations++
						}
					}
				}
				t.Repeat(all)
			})
			histories++
		})
	}
	t.Logf("%d histories, %d operations", histories, operations)
}
