// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/storetest"
)

func open(t *testing.T, dir string) *ocidir.Store {
	t.Helper()
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store { return open(t, t.TempDir()) })
}

func TestHTTP(t *testing.T) {
	storetest.RunHTTP(t, func(t *testing.T) registry.Store { return open(t, t.TempDir()) })
}
