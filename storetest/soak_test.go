// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"flag"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/storetest"
)

var soak = flag.Duration("soak", time.Second, "how long each soak of collections takes")

// TestSoak collects without pause, or with -soak every second, with and without a
// grace period.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	interval := time.Duration(0)
	if *soak > time.Minute {
		interval = time.Second
	}
	for name, open := range map[string]func(t *testing.T) registry.Store{
		"memory": func(*testing.T) registry.Store { return new(registry.MemStore) },
		"spill": func(*testing.T) registry.Store {
			return &registry.MemStore{Limits: registry.MemLimits{MemoryBytes: 64 << 20}}
		},
		"directory": func(t *testing.T) registry.Store {
			s, err := ocidir.Open(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for grace, name := range map[time.Duration]string{0: "no_grace", time.Second: "grace"} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					storetest.Soak(t, *soak, interval, grace, open(t))
				})
			}
		})
	}
}
