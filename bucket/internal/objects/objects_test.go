// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/internal/objects/objectstest"
	"github.com/berth-oci/registry/bucket/miniotest"
)

// open opens the bucket of a URL.
func open(t testing.TB, bucketURL string) objects.Bucket {
	t.Helper()
	u, err := url.Parse(bucketURL)
	qt.Assert(t, qt.IsNil(err))
	b, err := objects.Open(context.Background(), u)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { b.Close() })
	return b
}

func TestMemory(t *testing.T) {
	objectstest.Test(t, func(t *testing.T) objects.Bucket { return open(t, "mem://") })
}

func TestFile(t *testing.T) {
	objectstest.Test(t, func(t *testing.T) objects.Bucket { return open(t, "file://"+t.TempDir()) })
}

func TestMinIO(t *testing.T) {
	server := miniotest.Start(t)
	objectstest.Test(t, func(t *testing.T) objects.Bucket { return open(t, server.URL(t)) })
}
