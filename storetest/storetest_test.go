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
