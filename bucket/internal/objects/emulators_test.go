// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/emulators"
	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/bucket/internal/objects/objectstest"
)

// fake-gcs-server ignores the condition of a delete, which DeleteVersion logs, and has
// no credentials, so that SignedURL is skipped.
func TestGoogle(t *testing.T) {
	server := emulators.Google(t)
	objectstest.Test(t, func(t *testing.T) objects.Bucket { return open(t, server.URL(t)) })
}

// Azurite responds to a conditional delete of a missing blob with 412, which Delete
// accepts, too.
func TestAzure(t *testing.T) {
	server := emulators.Azure(t)
	objectstest.Test(t, func(t *testing.T) objects.Bucket { return open(t, server.URL(t)) })
}

// TestNoBucketGoogle and TestNoBucketAzure check that all operations are rejected if
// there is no such bucket: a store must not believe that only an object is missing.
func TestNoBucketGoogle(t *testing.T) { testNoBucket(t, emulators.Google(t)) }
func TestNoBucketAzure(t *testing.T)  { testNoBucket(t, emulators.Azure(t)) }

func testNoBucket(t *testing.T, server *emulators.Server) {
	b := open(t, strings.Replace(server.URL(t), "bucket-", "missing-", 1))
	for kind, f := range reads(b) {
		qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
	}
	for kind, f := range writes(b) {
		qt.Check(t, qt.ErrorIs(f(), objects.ErrRejected), qt.Commentf(kind))
	}
}
