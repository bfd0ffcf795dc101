// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Content describes the content of a repository. The test chooses a name for
// each blob and manifest; PushContent replaces references to a name with the
// descriptor, digest and size included.
type Content struct {
	// Blobs maps names to the content of blobs.
	Blobs map[string]string
	// Manifests maps names to images, indexes and artifacts.
	Manifests map[string]Manifest
	// Tags maps tags to the names of manifests.
	Tags map[string]string
}

// Manifest describes a manifest: an index if Manifests is not nil, otherwise an
// image or an artifact. Each field that holds names also accepts digests, whose
// content may be missing from the repository.
type Manifest struct {
	// Config is the name of a blob; if it is empty, the config is the
	// image-spec's empty JSON object. ConfigType is its media type; by default
	// that of an image config, or of the empty JSON object.
	Config, ConfigType string
	// Layers are names of blobs. LayerType is their media type; by default
	// that of an uncompressed OCI layer.
	Layers    []string
	LayerType string
	// Manifests are the names of an index's manifests.
	Manifests []string
	// Platform is this manifest's platform in an index, such as "linux/arm64".
	Platform string
	// Subject is the name of the manifest that this one refers to.
	Subject      string
	ArtifactType string
	Annotations  map[string]string
	// MediaType is the manifest's media type; by default that of an OCI index
	// or image. If it is a Docker type, ConfigType and LayerType default to
	// Docker's types.
	MediaType string
}

// PushContent pushes content to repo, and returns its descriptors by name. It
// pushes a manifest after those that it refers to.
//
// Errors: one for a name that is undefined, is both a blob and a manifest, or
// refers to itself, directly or indirectly; those of registry.PushBlob and
// registry.PushManifest.
func PushContent(ctx context.Context, s registry.Store, repo string, content Content) (map[string]ocispec.Descriptor, error) {
	p := pusher{ctx, s, repo, content, make(map[string]ocispec.Descriptor)}
	for _, name := range slices.Sorted(maps.Keys(content.Blobs)) {
		if _, ok := content.Manifests[name]; ok {
			return nil, fmt.Errorf("seed: %q is both a blob and a manifest", name)
		}
		data := content.Blobs[name]
		d := ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}
		if err := registry.PushBlob(ctx, s, repo, d.Digest, strings.NewReader(data)); err != nil {
			return nil, fmt.Errorf("blob %q: %w", name, err)
		}
		p.pushed[name] = d
	}
	for _, name := range slices.Sorted(maps.Keys(content.Manifests)) {
		if _, err := p.manifest(name, nil); err != nil {
			return nil, err
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(content.Tags)) {
		d, ok := p.pushed[content.Tags[tag]]
		if _, manifest := content.Manifests[content.Tags[tag]]; !ok || !manifest {
			return nil, fmt.Errorf("seed: tag %q: %q is not a manifest", tag, content.Tags[tag])
		}
		m, err := s.GetManifest(ctx, repo, d.Digest)
		if err == nil {
			_, err = registry.PushManifest(ctx, s, repo, registry.ManifestPush{MediaType: m.MediaType, Content: m.Content, Digest: m.Digest, Tags: []string{tag}, Sparse: true})
		}
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag, err)
		}
	}
	return p.pushed, nil
}

// pusher is the state of a call of PushContent.
type pusher struct {
	ctx     context.Context
	store   registry.Store
	repo    string
	content Content
	pushed  map[string]ocispec.Descriptor
}

// manifest pushes a manifest after those that it refers to, unless it has been
// pushed already. path holds the manifests that led to it.
func (p pusher) manifest(name string, path []string) (ocispec.Descriptor, error) {
	fail := func(err error) (ocispec.Descriptor, error) {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %q: %w", name, err)
	}
	if d, ok := p.pushed[name]; ok {
		return d, nil
	}
	m, ok := p.content.Manifests[name]
	if !ok {
		if d := digest.Digest(name); d.Validate() == nil {
			return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d}, nil
		}
		return fail(fmt.Errorf("seed: undefined name"))
	}
	if slices.Contains(path, name) {
		return fail(fmt.Errorf("seed: it refers to itself: %q", append(path, name)))
	}
	path = append(slices.Clip(path), name)

	var subject *ocispec.Descriptor
	if m.Subject != "" {
		d, err := p.manifest(m.Subject, path)
		if err != nil {
			return fail(err)
		}
		d.Annotations, d.Platform, d.ArtifactType = nil, nil, ""
		subject = &d
	}
	var doc any
	var err error
	if m.Manifests != nil {
		doc, err = p.index(&m, subject, path)
	} else {
		doc, err = p.image(&m, subject)
	}
	if err != nil {
		return fail(err)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return fail(err)
	}
	stored, err := registry.PushManifest(p.ctx, p.store, p.repo, registry.ManifestPush{MediaType: m.MediaType, Content: data, Sparse: true})
	if err != nil {
		return fail(err)
	}
	d := ocispec.Descriptor{MediaType: stored.MediaType, Digest: stored.Digest, Size: int64(len(data)), ArtifactType: m.ArtifactType}
	if os, arch, ok := strings.Cut(m.Platform, "/"); ok {
		arch, variant, _ := strings.Cut(arch, "/")
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch, Variant: variant}
	}
	p.pushed[name] = d
	return d, nil
}

func (p pusher) index(m *Manifest, subject *ocispec.Descriptor, path []string) (ocispec.Index, error) {
	setDefault(&m.MediaType, ocispec.MediaTypeImageIndex)
	doc := ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    m.MediaType,
		ArtifactType: m.ArtifactType,
		Manifests:    []ocispec.Descriptor{},
		Subject:      subject,
		Annotations:  m.Annotations,
	}
	for _, child := range m.Manifests {
		d, err := p.manifest(child, path)
		if err != nil {
			return doc, err
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	return doc, nil
}

func (p pusher) image(m *Manifest, subject *ocispec.Descriptor) (ocispec.Manifest, error) {
	setDefault(&m.MediaType, ocispec.MediaTypeImageManifest)
	if m.MediaType == typeDockerManifest {
		setDefault(&m.ConfigType, typeDockerConfig)
		setDefault(&m.LayerType, typeDockerLayer)
	}
	setDefault(&m.LayerType, ocispec.MediaTypeImageLayer)
	doc := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    m.MediaType,
		ArtifactType: m.ArtifactType,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{},
		Subject:      subject,
		Annotations:  m.Annotations,
	}
	if m.Config == "" {
		setDefault(&m.ConfigType, ocispec.MediaTypeEmptyJSON)
		doc.Config.MediaType = m.ConfigType
		if err := registry.PushBlob(p.ctx, p.store, p.repo, doc.Config.Digest, bytes.NewReader(doc.Config.Data)); err != nil {
			return doc, err
		}
	} else {
		setDefault(&m.ConfigType, ocispec.MediaTypeImageConfig)
		var err error
		if doc.Config, err = p.blob(m.Config, m.ConfigType); err != nil {
			return doc, err
		}
	}
	for _, layer := range m.Layers {
		d, err := p.blob(layer, m.LayerType)
		if err != nil {
			return doc, err
		}
		doc.Layers = append(doc.Layers, d)
	}
	return doc, nil
}

func (p pusher) blob(name, mediaType string) (ocispec.Descriptor, error) {
	d, ok := p.pushed[name]
	if _, blob := p.content.Blobs[name]; !ok || !blob {
		d = ocispec.Descriptor{Digest: digest.Digest(name)}
		if d.Digest.Validate() != nil {
			return d, fmt.Errorf("seed: undefined blob %q", name)
		}
	}
	d.MediaType = mediaType
	return d, nil
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

// PushRandomImage pushes an image with the given number of pseudorandom layers, of
// size bytes each, to repo, and points tag at it unless tag is empty. The same seed
// yields the same image.
//
// Errors: those of registry.PushBlob and registry.PushManifest.
func PushRandomImage(ctx context.Context, s registry.Store, repo, tag string, seed uint64, layers, size int) (registry.Manifest, error) {
	random := newRandom(seed)
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

// Random returns size pseudorandom bytes, for Content.Blobs. The same seed
// yields the same bytes.
func Random(seed uint64, size int) string {
	data := make([]byte, size)
	newRandom(seed).Read(data)
	return string(data)
}

// newRandom returns a source of random bytes that depend only on the seed.
func newRandom(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}
