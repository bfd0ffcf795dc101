// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/storetest"
)

func TestMemStore(t *testing.T) {
	storetest.RunUploadLimit(t, func(_ *testing.T, uploads int) registry.Store {
		return &registry.MemStore{Limits: registry.MemLimits{Uploads: uploads}}
	})
	storetest.Run(t, func(*testing.T) registry.Store { return new(registry.MemStore) })
}

// TestSpill runs the tests on a store with little memory, which keeps large blobs
// in temporary files.
func TestSpill(t *testing.T) {
	open := func(*testing.T) registry.Store {
		return &registry.MemStore{Limits: registry.MemLimits{MemoryBytes: 4 << 20}}
	}
	storetest.Run(t, open)
	storetest.RunHTTP(t, open)
}

// TestMemStoreClone runs the tests on the clone of a store, and checks that the
// original stays empty.
func TestMemStoreClone(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		original := new(registry.MemStore)
		clone := original.Clone()
		t.Cleanup(func() {
			for repo := range original.Repositories(t.Context(), "") {
				t.Errorf("the original has the repository %s", repo)
			}
		})
		return clone
	})
}
