// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berth-oci/registry/registrytest"
)

// TestSeedFromGoContainerRegistry pushes go-containerregistry's images and
// indexes to a store, and pulls them with its client.
func TestSeedFromGoContainerRegistry(t *testing.T) {
	s := registrytest.NewServer(t)
	ref := func(tag string) name.Reference {
		r, err := name.ParseReference(s.Host + "/seeded:" + tag)
		qt.Assert(t, qt.IsNil(err))
		return r
	}

	img, err := random.Image(1000, 3)
	qt.Assert(t, qt.IsNil(err))
	m, err := registrytest.PushImage(t.Context(), s.Store, "seeded", "image", img)
	qt.Assert(t, qt.IsNil(err))
	want, err := img.Digest()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(m.Digest.String(), want.String()))
	got, err := remote.Image(ref("image"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Image(got)))

	inner, err := random.Index(500, 2, 3)
	qt.Assert(t, qt.IsNil(err))
	var index v1.ImageIndex = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner}, mutate.IndexAddendum{Add: img})
	_, err = registrytest.PushIndex(t.Context(), s.Store, "seeded", "index", index)
	qt.Assert(t, qt.IsNil(err))
	gotIndex, err := remote.Index(ref("index"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Index(gotIndex)))
}
