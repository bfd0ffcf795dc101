// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// layout is an OCI image layout that is being made.
type layout struct {
	fstest.MapFS
	index ocispec.Index
}

func newLayout() *layout { return &layout{MapFS: make(fstest.MapFS)} }

func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.MapFS["blobs/sha256/"+d.Digest.Encoded()] = &fstest.MapFile{Data: data}
	return d
}

func (l *layout) manifest(mediaType string, doc any) ocispec.Descriptor {
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return l.blob(mediaType, data)
}

func (l *layout) image(layer string) ocispec.Descriptor {
	return l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    l.blob(ocispec.MediaTypeImageConfig, []byte("{}")),
		Layers:    []ocispec.Descriptor{l.blob(ocispec.MediaTypeImageLayer, []byte(layer))},
	})
}

func (l *layout) imageIndex(children ...ocispec.Descriptor) ocispec.Descriptor {
	return l.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
}

// tag names a manifest, and writes index.json.
func (l *layout) tag(d ocispec.Descriptor, name string) {
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	l.index.Manifests = append(l.index.Manifests, d)
	data, _ := json.Marshal(l.index)
	l.MapFS["index.json"] = &fstest.MapFile{Data: data}
}

func TestPushLayout(t *testing.T) {
	l := newLayout()
	one, two := l.image("one"), l.image("two")
	nested := l.imageIndex(two)
	l.tag(l.imageIndex(one, nested), "latest")
	l.tag(l.image("three"), "three")
	l.tag(l.image("untagged"), "")

	s := registrytest.NewServer(t)
	qt.Assert(t, qt.IsNil(registrytest.PushLayout(t.Context(), s.Store, "repo", l)))
	for _, path := range []string{
		"manifests/latest", "manifests/three",
		"manifests/" + one.Digest.String(), "manifests/" + two.Digest.String(), "manifests/" + nested.Digest.String(),
		"manifests/" + l.image("untagged").Digest.String(),
		"blobs/" + digest.FromString("one").String(), "blobs/" + digest.FromString("two").String(),
	} {
		resp, err := s.Client().Get(s.URL + "/v2/repo/" + path)
		qt.Assert(t, qt.IsNil(err))
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, 200), qt.Commentf("%s", path))
		qt.Check(t, qt.Equals(digest.FromBytes(body).String(), resp.Header.Get("Docker-Content-Digest")))
	}
}

func TestPushLayoutErrors(t *testing.T) {
	ctx := context.Background()
	push := func(l fs.FS, repo string) error {
		return registrytest.PushLayout(ctx, new(registry.MemStore), repo, l)
	}
	qt.Check(t, qt.ErrorIs(push(fstest.MapFS{}, "repo"), fs.ErrNotExist))
	qt.Check(t, qt.ErrorMatches(push(fstest.MapFS{"index.json": {Data: []byte("x")}}, "repo"), "index.json: .*"))

	l := newLayout()
	l.tag(l.image("layer"), "latest")
	qt.Check(t, qt.ErrorIs(push(l, "UPPER"), error(registry.ErrNameInvalid)))
	layer := "blobs/sha256/" + digest.FromString("layer").Encoded()
	l.MapFS[layer] = &fstest.MapFile{Data: []byte("corrupt")}
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrDigestInvalid)))
	delete(l.MapFS, layer)
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrManifestBlobUnknown)))

	l = newLayout()
	l.tag(ocispec.Descriptor{Digest: "../../etc/passwd"}, "latest")
	qt.Check(t, qt.ErrorIs(push(l, "repo"), digest.ErrDigestInvalidFormat))
	l = newLayout()
	l.tag(l.image("layer"), "not a tag")
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrNameInvalid)))
}

func TestPushRandomImage(t *testing.T) {
	ctx := context.Background()
	store := new(registry.MemStore)
	a, err := registrytest.PushRandomImage(ctx, store, "repo", "a", 1, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	again, err := registrytest.PushRandomImage(ctx, store, "other", "", 1, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	b, err := registrytest.PushRandomImage(ctx, store, "repo", "b", 2, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Digest, again.Digest))
	qt.Check(t, qt.Not(qt.Equals(a.Digest, b.Digest)))
	got, err := store.GetTag(ctx, "repo", "a")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got.Digest, a.Digest))
	_, err = registrytest.PushRandomImage(ctx, store, "UPPER", "a", 1, 1, 1)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrNameInvalid)))
}

// A store is seeded once, and forked for each test.
func ExamplePushRandomImage() {
	ctx := context.Background()
	seed := new(registry.MemStore)
	if _, err := registrytest.PushRandomImage(ctx, seed, "my/repo", "latest", 1, 2, 1000); err != nil {
		fmt.Println(err)
		return
	}
	fork := seed.Clone()
	fmt.Println(fork.DeleteTag(ctx, "my/repo", "latest", nil))
	m, err := seed.GetTag(ctx, "my/repo", "latest")
	fmt.Println(m.MediaType, err)
	// Output:
	// <nil>
	// application/vnd.oci.image.manifest.v1+json <nil>
}
