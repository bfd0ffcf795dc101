// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/storetest"
)

func TestMemStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) registry.Store { return new(registry.MemStore) })
}

// TestSpill has the tests on a store whose memory is full of one large blob.
func TestSpill(t *testing.T) {
	open := func(*testing.T) registry.Store {
		return &registry.MemStore{Limits: registry.Limits{MemoryBytes: 4 << 20}}
	}
	storetest.Run(t, open)
	storetest.RunHTTP(t, open)
}

// TestMemStoreClone has the tests on the clone of a store, which must not
// touch what it was cloned from.
func TestMemStoreClone(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		parent := new(registry.MemStore)
		clone := parent.Clone()
		t.Cleanup(func() {
			for repo := range parent.Repositories(t.Context(), "") {
				t.Errorf("the parent has got %s", repo)
			}
		})
		return clone
	})
}
