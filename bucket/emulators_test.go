// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/emulators"
	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/storetest"
)

// servers start servers of object storage, and return the URL of a bucket in each. Not
// to be called in parallel tests: see emulators.Google.
var servers = map[string]func(t *testing.T) string{
	"minio":  func(t *testing.T) string { return miniotest.Start(t).URL(t) },
	"google": func(t *testing.T) string { return emulators.Google(t).URL(t) },
	"azure":  func(t *testing.T) string { return emulators.Azure(t).URL(t) },
}

func TestGoogle(t *testing.T) { testEmulator(t, emulators.Google(t)) }

func TestAzure(t *testing.T) { testEmulator(t, emulators.Azure(t)) }

func testEmulator(t *testing.T, server *emulators.Server) {
	openNew := func(t *testing.T) *bucket.Store { return open(t, server.URL(t), nil) }
	t.Run("check", func(t *testing.T) {
		s := open(t, server.URL(t), nil)
		qt.Assert(t, qt.IsNil(s.Check(t.Context())))
		qt.Assert(t, qt.HasLen(s.Warnings(), 0))
	})
	t.Run("store", func(t *testing.T) { runContract(t, openNew) })
	t.Run("http", func(t *testing.T) {
		storetest.RunHTTP(t, func(t *testing.T) registry.Store { return openNew(t) })
	})
}
