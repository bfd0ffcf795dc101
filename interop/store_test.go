// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/miniotest"
	"github.com/berth-oci/registry/ocidir"
)

var storeFlag = flag.String("store", "mem", "test the clients against this store: mem, spill, dir, file or minio")

var minio *miniotest.Server // nil unless -store is minio

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	if *storeFlag == "minio" {
		dir, err := os.MkdirTemp("", "minio")
		if err == nil {
			defer os.RemoveAll(dir)
			minio, err = miniotest.Run(dir, 1)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer minio.Close()
	}
	return m.Run()
}

// newRegistry returns a registry with an empty store of the kind that -store
// selects.
func newRegistry(t *testing.T, opts ...registry.Option) http.Handler {
	t.Helper()
	return registry.New(append([]registry.Option{registry.WithStore(newStore(t))}, opts...)...)
}

func newStore(t *testing.T) registry.Store {
	t.Helper()
	switch *storeFlag {
	case "mem":
		return new(registry.MemStore)
	case "spill":
		return &registry.MemStore{Limits: registry.MemLimits{MemoryBytes: 16 << 20}}
	case "dir":
		s, err := ocidir.Open(t.TempDir(), nil)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { s.Close() })
		return s
	case "file":
		return openBucket(t, "file://"+t.TempDir())
	case "minio":
		return openBucket(t, minio.URL(t))
	}
	t.Fatalf("unknown store %q", *storeFlag)
	panic("unreachable")
}

func openBucket(t *testing.T, url string) registry.Store {
	t.Helper()
	s, err := bucket.Open(t.Context(), url, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { s.Close() })
	return s
}
