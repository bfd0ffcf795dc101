// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Layer is the part of a layer that PushImage uses. go-containerregistry's
// v1.Layer implements it.
type Layer interface {
	// Compressed returns the layer's content as it is stored in a registry.
	Compressed() (io.ReadCloser, error)
}

// Image is the part of an image that PushImage uses. go-containerregistry's
// v1.Image implements it, with v1.Layer as L.
type Image[L Layer] interface {
	RawManifest() ([]byte, error)
	RawConfigFile() ([]byte, error)
	Layers() ([]L, error)
}

// PushImage pushes an image, such as go-containerregistry's v1.Image, to repo,
// and points tag at it unless tag is empty.
//
// Errors: those of img and its layers, of registry.PushBlob and of
// registry.PushManifest.
func PushImage[L Layer](ctx context.Context, s registry.Store, repo, tag string, img Image[L]) (registry.Manifest, error) {
	content, err := img.RawManifest()
	if err != nil {
		return registry.Manifest{}, err
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(content, &doc); err != nil {
		return registry.Manifest{}, err
	}
	setDefault(&doc.MediaType, ocispec.MediaTypeImageManifest) // the member is optional
	config, err := img.RawConfigFile()
	if err != nil {
		return registry.Manifest{}, err
	}
	if err := registry.PushBlob(ctx, s, repo, doc.Config.Digest, bytes.NewReader(config)); err != nil {
		return registry.Manifest{}, fmt.Errorf("config: %w", err)
	}
	layers, err := img.Layers()
	if err != nil {
		return registry.Manifest{}, err
	}
	if len(layers) != len(doc.Layers) {
		return registry.Manifest{}, fmt.Errorf("seed: the image has %d layers, its manifest %d", len(layers), len(doc.Layers))
	}
	for i, layer := range layers {
		if err := pushLayer(ctx, s, repo, doc.Layers[i], layer); err != nil {
			return registry.Manifest{}, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	p := registry.ManifestPush{MediaType: doc.MediaType, Content: content}
	if tag != "" {
		p.Tags = []string{tag}
	}
	return registry.PushManifest(ctx, s, repo, p)
}

func pushLayer(ctx context.Context, s registry.Store, repo string, d ocispec.Descriptor, layer Layer) error {
	content, err := layer.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	return registry.PushBlob(ctx, s, repo, d.Digest, content)
}

// Hash is the type of digests in an Index. go-containerregistry's v1.Hash
// implements it.
type Hash interface {
	~struct {
		Algorithm string
		Hex       string
	}
}

// Index is the part of an index that PushIndex uses. go-containerregistry's
// v1.ImageIndex implements it, with v1.Hash, v1.Layer, v1.Image and itself as
// type arguments.
type Index[H Hash, L Layer, I Image[L], X any] interface {
	RawManifest() ([]byte, error)
	Image(H) (I, error)
	ImageIndex(H) (X, error)
}

// PushIndex pushes an index, such as go-containerregistry's v1.ImageIndex, to
// repo with all its images and indexes, and points tag at it unless tag is
// empty. The repository must already hold manifests of other types that the
// index names.
//
// Errors: those of index and its parts, of registry.PushBlob and of
// registry.PushManifest.
func PushIndex[H Hash, L Layer, I Image[L], X Index[H, L, I, X]](ctx context.Context, s registry.Store, repo, tag string, index X) (registry.Manifest, error) {
	content, err := index.RawManifest()
	if err != nil {
		return registry.Manifest{}, err
	}
	var doc ocispec.Index
	if err := json.Unmarshal(content, &doc); err != nil {
		return registry.Manifest{}, err
	}
	setDefault(&doc.MediaType, ocispec.MediaTypeImageIndex)
	for _, d := range doc.Manifests {
		hash := H(struct{ Algorithm, Hex string }{string(d.Digest.Algorithm()), d.Digest.Encoded()})
		var err error
		switch d.MediaType {
		case ocispec.MediaTypeImageManifest, typeDockerManifest:
			var img I
			if img, err = index.Image(hash); err == nil {
				_, err = PushImage(ctx, s, repo, "", Image[L](img))
			}
		case ocispec.MediaTypeImageIndex, typeDockerList:
			var child X
			if child, err = index.ImageIndex(hash); err == nil {
				_, err = PushIndex[H, L, I, X](ctx, s, repo, "", child)
			}
		}
		if err != nil {
			return registry.Manifest{}, fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	p := registry.ManifestPush{MediaType: doc.MediaType, Content: content}
	if tag != "" {
		p.Tags = []string{tag}
	}
	return registry.PushManifest(ctx, s, repo, p)
}
