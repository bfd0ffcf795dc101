// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// PushLayout pushes what an OCI image layout has to repo: each manifest that
// its index.json names, with all that belongs to it, and as a tag the name that
// index.json gives it. [os.DirFS] makes an fs.FS of a directory, embed.FS is
// one, and so is a zip file's reader.
//
// Errors: those of reading layout, of registry.PushBlob and of
// registry.PushManifest; in particular registry.ErrManifestBlobUnknown where
// layout lacks something.
func PushLayout(ctx context.Context, s registry.Store, repo string, layout fs.FS) error {
	data, err := fs.ReadFile(layout, ocispec.ImageIndexFile)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	for _, d := range index.Manifests {
		var tags []string
		if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
			tags = append(tags, tag)
		}
		if err := pushTree(ctx, s, repo, layout, d, tags); err != nil {
			return err
		}
	}
	return nil
}

// pushTree pushes a manifest after all that it names.
func pushTree(ctx context.Context, s registry.Store, repo string, layout fs.FS, d ocispec.Descriptor, tags []string) error {
	content, err := readContent(layout, d.Digest)
	if err != nil {
		return err
	}
	var doc struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	// One that is no JSON is not for us to judge: PushManifest does.
	json.Unmarshal(content, &doc)
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, blob := range doc.Layers {
		data, err := readContent(layout, blob.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // which matters only if PushManifest says so
		}
		if err != nil {
			return err
		}
		if err := registry.PushBlob(ctx, s, repo, blob.Digest, bytes.NewReader(data)); err != nil {
			return fmt.Errorf("blob %s: %w", blob.Digest, err)
		}
	}
	for _, child := range doc.Manifests {
		err := pushTree(ctx, s, repo, layout, child, nil)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_, err = registry.PushManifest(ctx, s, repo, registry.ManifestPush{
		MediaType: d.MediaType,
		Content:   content,
		Digest:    d.Digest,
		Tags:      tags,
	})
	if err != nil {
		return fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	return nil
}

// readContent reads a blob of an OCI image layout.
func readContent(layout fs.FS, d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%q: %w", d, err)
	}
	return fs.ReadFile(layout, path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
}

// PushRandomImage pushes an image of random layers, of size bytes each, to
// repo, and points tag at it unless tag is empty. The same seed gives the same
// image.
//
// Errors: those of registry.PushBlob and registry.PushManifest.
func PushRandomImage(ctx context.Context, s registry.Store, repo, tag string, seed uint64, layers, size int) (registry.Manifest, error) {
	random := random(seed)
	push := func(mediaType string, data []byte) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
		return d, registry.PushBlob(ctx, s, repo, d.Digest, bytes.NewReader(data))
	}

	image := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{},
	}
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}},
	}
	for range layers {
		data := make([]byte, size)
		random.Read(data)
		d, err := push(ocispec.MediaTypeImageLayer, data)
		if err != nil {
			return registry.Manifest{}, err
		}
		image.Layers = append(image.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
	}
	data, err := json.Marshal(config)
	if err != nil {
		return registry.Manifest{}, err
	}
	if image.Config, err = push(ocispec.MediaTypeImageConfig, data); err != nil {
		return registry.Manifest{}, err
	}
	content, err := json.Marshal(image)
	if err != nil {
		return registry.Manifest{}, err
	}
	p := registry.ManifestPush{MediaType: image.MediaType, Content: content}
	if tag != "" {
		p.Tags = []string{tag}
	}
	return registry.PushManifest(ctx, s, repo, p)
}
