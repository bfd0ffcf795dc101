// SPDX-License-Identifier: Apache-2.0

// The images in an archive of docker save without an OCI image layout.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// dockerManifestFile is the file that lists the images.
const dockerManifestFile = "manifest.json"

// dockerImage is an element of manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// maxMade bounds the bytes of the manifests that are made for an archive.
const maxMade = 64 << 20

// readDocker returns the images in the manifest.json of an archive, with an OCI
// manifest for each. Blobs are the files as they are: layers are not compressed, and
// the digest of a configuration is Docker's image ID. The names are ignored if rename
// is set.
func (s *archiveSource) readDocker(ctx context.Context, maxSize int64, rename bool) ([]image, error) {
	data, err := s.readIndex(dockerManifestFile)
	if err != nil {
		return nil, err
	}
	var list []dockerImage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", dockerManifestFile, err)
	}
	s.made = make(map[digest.Digest]registry.Manifest)
	s.files = make(map[digest.Digest]string)
	layers := layerReader{s: s, maxSize: maxSize, seen: make(map[string]dockerLayer)}
	made := 0
	var images []image
	for _, i := range list {
		m, err := layers.manifest(ctx, i)
		if err != nil {
			return nil, err
		}
		if made += len(m.Content); made > maxMade {
			return nil, fmt.Errorf("%s has too many layers", dockerManifestFile)
		}
		s.made[m.Digest] = m
		root := reference{MediaType: m.MediaType, Digest: m.Digest}
		if len(i.RepoTags) == 0 || rename {
			images = append(images, image{root: root})
			continue
		}
		for _, name := range i.RepoTags {
			r, err := imageName(name)
			if err != nil {
				return nil, err
			}
			images = append(images, image{ref: r, root: root})
		}
	}
	return images, nil
}

// layerReader makes manifests of images in Docker's format.
type layerReader struct {
	s       *archiveSource
	maxSize int64
	seen    map[string]dockerLayer // by file
}

// dockerLayer is a layer in a file.
type dockerLayer struct {
	ocispec.Descriptor
	diffID digest.Digest
}

// manifest returns the manifest of an image.
func (l *layerReader) manifest(ctx context.Context, i dockerImage) (registry.Manifest, error) {
	if err := ctx.Err(); err != nil {
		return registry.Manifest{}, err
	}
	data, err := l.s.read(i.Config, maxManifest)
	if err != nil {
		return registry.Manifest{}, fmt.Errorf("the configuration %q of an image: %w", clean(i.Config), missing(err))
	}
	var config struct {
		Rootfs struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return registry.Manifest{}, fmt.Errorf("the configuration %q of an image: %w", clean(i.Config), err)
	}
	if len(config.Rootfs.DiffIDs) != len(i.Layers) {
		return registry.Manifest{}, fmt.Errorf("an image has %d layers, but its configuration %q has %d", len(i.Layers), clean(i.Config), len(config.Rootfs.DiffIDs))
	}
	doc := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Layers:    []ocispec.Descriptor{},
	}
	l.s.files[doc.Config.Digest] = i.Config
	for n, name := range i.Layers {
		layer, err := l.layer(ctx, name)
		if err != nil {
			return registry.Manifest{}, fmt.Errorf("the layer %q: %w", clean(name), missing(err))
		}
		if want := config.Rootfs.DiffIDs[n]; layer.diffID != want {
			return registry.Manifest{}, fmt.Errorf("the layer %q is corrupt: its content has the digest %s instead of %s", clean(name), layer.diffID, clean(want.String()))
		}
		doc.Layers = append(doc.Layers, layer.Descriptor)
	}
	m := registry.Manifest{MediaType: doc.MediaType}
	m.Content, err = json.Marshal(doc)
	m.Digest = digest.FromBytes(m.Content)
	return m, err
}

// missing returns a short error for a file that does not exist.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the archive does not contain it")
	}
	return err
}

// layer reads a layer.
func (l *layerReader) layer(ctx context.Context, name string) (layer dockerLayer, err error) {
	name = l.s.resolve(name)
	if layer, ok := l.seen[name]; ok {
		return layer, nil
	}
	f, size, err := l.s.open(name)
	if err != nil {
		return layer, err
	}
	defer f.Close()
	magic := make([]byte, 4)
	n, err := io.ReadFull(f, magic)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return layer, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return layer, err
	}
	whole := digest.Canonical.Digester()
	layer.MediaType, layer.Size = ocispec.MediaTypeImageLayer, size
	raw := io.TeeReader(&contextReader{ctx, f}, whole.Hash())
	if compressed(magic[:n]) {
		layer.MediaType = ocispec.MediaTypeImageLayerGzip
		if bytes.HasPrefix(magic, zstdMagic) {
			layer.MediaType = ocispec.MediaTypeImageLayerZstd
		}
		content, err := decompress(raw)
		if err != nil {
			return layer, err
		}
		defer content.Close()
		diff := digest.Canonical.Digester()
		n, err := io.Copy(diff.Hash(), io.LimitReader(content, l.maxSize+1))
		if err != nil {
			return layer, err
		}
		if n > l.maxSize {
			return layer, fmt.Errorf("it has more than %s when decompressed: raise --max-size to load it", units.BytesSize(float64(l.maxSize)))
		}
		layer.diffID = diff.Digest()
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return layer, err
	}
	layer.Digest = whole.Digest()
	if layer.diffID == "" {
		layer.diffID = layer.Digest
	}
	l.seen[name] = layer
	l.s.files[layer.Digest] = name
	return layer, nil
}
