// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"bytes"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/seed"
)

// TestSeedIsHandedOn checks that this package's functions are those of package seed.
func TestSeedIsHandedOn(t *testing.T) {
	ctx := t.Context()
	s := new(registry.MemStore)
	content := registrytest.Content{Blobs: map[string]string{"b": registrytest.Random(1, 10)}}
	got, err := registrytest.PushContent(ctx, s, "a", content)
	qt.Assert(t, qt.IsNil(err))
	want, err := seed.PushContent(ctx, s, "a", seed.Content{Blobs: map[string]string{"b": seed.Random(1, 10)}})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(got, want))

	a, err := registrytest.PushRandomImage(ctx, s, "a", "v1", 7, 2, 100)
	qt.Assert(t, qt.IsNil(err))
	b, err := seed.PushRandomImage(ctx, s, "a", "v1", 7, 2, 100)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Digest, b.Digest))

	layout := fstest.MapFS{"index.json": {Data: []byte(`{}`)}}
	qt.Check(t, qt.IsNil(registrytest.PushLayout(ctx, s, "a", layout, registrytest.KeepReferrersTags())))
	_, err = registrytest.PushDockerArchive(ctx, s, "a", new(bytes.Buffer))
	qt.Check(t, qt.ErrorMatches(err, "seed: no manifest.json in the archive"))

	m, err := registrytest.PushImage(ctx, s, "a", "v2", imageStub{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m.MediaType, "application/vnd.oci.image.manifest.v1+json"))
	m, err = registrytest.PushIndex(ctx, s, "a", "v3", indexStub{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m.MediaType, "application/vnd.oci.image.index.v1+json"))
}

// imageStub and indexStub have the methods of go-containerregistry's types.
type (
	imageStub struct{}
	indexStub struct{}
	hashStub  struct{ Algorithm, Hex string }
)

func (imageStub) RawManifest() ([]byte, error) {
	return []byte(`{"config":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}`), nil
}
func (imageStub) RawConfigFile() ([]byte, error)         { return []byte("{}"), nil }
func (imageStub) Layers() ([]registrytest.Layer, error)  { return nil, nil }
func (indexStub) RawManifest() ([]byte, error)           { return []byte(`{"manifests":[]}`), nil }
func (indexStub) Image(hashStub) (imageStub, error)      { return imageStub{}, nil }
func (indexStub) ImageIndex(hashStub) (indexStub, error) { return indexStub{}, nil }
