// SPDX-License-Identifier: Apache-2.0

package registrytest

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

// Content describes what a repository is to have, by names of the test's own
// choosing: digests and sizes are filled in where a name stands for what has
// them.
type Content struct {
	// Blobs are blobs by name.
	Blobs map[string]string
	// Manifests are images, indexes and artifacts by name.
	Manifests map[string]Manifest
	// Tags are the names of manifests by tag.
	Tags map[string]string
}

// Manifest describes a manifest: an index where it has Manifests, else an image
// or an artifact. Where a name of a blob or of a manifest is asked for, a
// digest does too, of something that need not be there.
type Manifest struct {
	// Config is the name of a blob; empty for the image-spec's empty JSON
	// object. ConfigType is its media type: by default that of an image's
	// config, or of the empty JSON object.
	Config, ConfigType string
	// Layers are names of blobs; LayerType is their media type, an OCI layer
	// that is a plain tar by default.
	Layers    []string
	LayerType string
	// Manifests are names of manifests.
	Manifests []string
	// Platform is what an index says of this manifest, such as "linux/arm64".
	Platform string
	// Subject is the name of the manifest that this one refers to.
	Subject      string
	ArtifactType string
	Annotations  map[string]string
	// MediaType is the manifest's: that of an OCI index or image by default.
	// With Docker's types, those of configs and layers are Docker's.
	MediaType string
}

// PushContent pushes what content describes to repo, and returns its
// descriptors by name. A manifest that refers to one, or is in an index, is
// pushed after it.
//
// Errors: one for a name that stands for nothing, for two things or, in the end,
// for itself; those of registry.PushBlob and registry.PushManifest.
func PushContent(ctx context.Context, s registry.Store, repo string, content Content) (map[string]ocispec.Descriptor, error) {
	p := pusher{ctx, s, repo, content, make(map[string]ocispec.Descriptor)}
	for _, name := range slices.Sorted(maps.Keys(content.Blobs)) {
		if _, ok := content.Manifests[name]; ok {
			return nil, fmt.Errorf("registrytest: %q is both a blob and a manifest", name)
		}
		data := content.Blobs[name]
		d := ocispec.Descriptor{Digest: digest.FromString(data), Size: int64(len(data))}
		if err := registry.PushBlob(ctx, s, repo, d.Digest, strings.NewReader(data)); err != nil {
			return nil, fmt.Errorf("blob %q: %w", name, err)
		}
		p.done[name] = d
	}
	for _, name := range slices.Sorted(maps.Keys(content.Manifests)) {
		if _, err := p.manifest(name, nil); err != nil {
			return nil, err
		}
	}
	for _, tag := range slices.Sorted(maps.Keys(content.Tags)) {
		d, ok := p.done[content.Tags[tag]]
		if _, manifest := content.Manifests[content.Tags[tag]]; !ok || !manifest {
			return nil, fmt.Errorf("registrytest: the tag %q is of %q, which is no manifest", tag, content.Tags[tag])
		}
		m, err := s.GetManifest(ctx, repo, d.Digest)
		if err == nil {
			_, err = registry.PushManifest(ctx, s, repo, registry.ManifestPush{MediaType: m.MediaType, Content: m.Content, Digest: m.Digest, Tags: []string{tag}, Sparse: true})
		}
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag, err)
		}
	}
	return p.done, nil
}

// pusher is a PushContent under way.
type pusher struct {
	ctx     context.Context
	store   registry.Store
	repo    string
	content Content
	done    map[string]ocispec.Descriptor
}

// manifest pushes a manifest, unless that has been done, after those that it
// names. within are those that name it.
func (p pusher) manifest(name string, within []string) (ocispec.Descriptor, error) {
	fail := func(err error) (ocispec.Descriptor, error) {
		return ocispec.Descriptor{}, fmt.Errorf("manifest %q: %w", name, err)
	}
	if d, ok := p.done[name]; ok {
		return d, nil
	}
	m, ok := p.content.Manifests[name]
	if !ok {
		if d := digest.Digest(name); d.Validate() == nil {
			return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d}, nil
		}
		return fail(fmt.Errorf("registrytest: no such name"))
	}
	if slices.Contains(within, name) {
		return fail(fmt.Errorf("registrytest: it names itself, by %q", within))
	}
	within = append(slices.Clip(within), name)

	var subject *ocispec.Descriptor
	if m.Subject != "" {
		d, err := p.manifest(m.Subject, within)
		if err != nil {
			return fail(err)
		}
		d.Annotations, d.Platform, d.ArtifactType = nil, nil, ""
		subject = &d
	}
	var doc any
	var err error
	if m.Manifests != nil {
		doc, err = p.index(&m, subject, within)
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
	p.done[name] = d
	return d, nil
}

func (p pusher) index(m *Manifest, subject *ocispec.Descriptor, within []string) (ocispec.Index, error) {
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
		d, err := p.manifest(child, within)
		if err != nil {
			return doc, err
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	return doc, nil
}

func (p pusher) image(m *Manifest, subject *ocispec.Descriptor) (ocispec.Manifest, error) {
	setDefault(&m.MediaType, ocispec.MediaTypeImageManifest)
	if m.MediaType == "application/vnd.docker.distribution.manifest.v2+json" {
		setDefault(&m.ConfigType, "application/vnd.docker.container.image.v1+json")
		setDefault(&m.LayerType, "application/vnd.docker.image.rootfs.diff.tar")
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
	d, ok := p.done[name]
	if _, blob := p.content.Blobs[name]; !ok || !blob {
		d = ocispec.Descriptor{Digest: digest.Digest(name)}
		if d.Digest.Validate() != nil {
			return d, fmt.Errorf("registrytest: no blob is called %q", name)
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

// Random returns size bytes that look random, for a Content's Blobs: always the
// same for the same seed.
func Random(seed uint64, size int) string {
	data := make([]byte, size)
	random(seed).Read(data)
	return string(data)
}

func random(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}
