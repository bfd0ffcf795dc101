// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"testing"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/minio"
	"github.com/berth-oci/registry/storetest"
)

func open(t testing.TB, url string, opts *bucket.Options) *bucket.Store {
	t.Helper()
	s, err := bucket.Open(context.Background(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store { return open(t, "mem://", nil) })
}

func TestDirectory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) registry.Store {
		return open(t, "file://"+t.TempDir(), nil)
	})
}

func TestMinIO(t *testing.T) {
	server := minio.Start(t)
	storetest.Run(t, func(t *testing.T) registry.Store { return open(t, server.URL(t), nil) })
}
