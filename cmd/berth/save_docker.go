// SPDX-License-Identifier: Apache-2.0

// The platform of an image that docker load reads.

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// onePlatform returns the manifest of an image for one platform, and adds it to
// manifest.json.
func (s *saver) onePlatform(ctx context.Context, r ref, m registry.Manifest) (registry.Manifest, error) {
	for depth := 0; m.MediaType == ocispec.MediaTypeImageIndex || m.MediaType == typeDockerList; depth++ {
		const maxDepth = 10
		if depth == maxDepth {
			return m, fmt.Errorf("%v: its indexes are nested too deeply", r)
		}
		d, err := choose(m, s.platform)
		if err != nil {
			return m, fmt.Errorf("%v: %w", r, err)
		}
		if m, err = s.from.GetManifest(ctx, r.repo, d); err != nil {
			return m, fmt.Errorf("%v: manifest %s: %w", r, d, err)
		}
	}
	var doc ocispec.Manifest
	if err := json.Unmarshal(m.Content, &doc); err != nil {
		return m, fmt.Errorf("%v: %w", r, err)
	}
	if (m.MediaType != ocispec.MediaTypeImageManifest && m.MediaType != typeDockerManifest) ||
		(doc.Config.MediaType != ocispec.MediaTypeImageConfig && doc.Config.MediaType != typeDockerConfig) {
		return m, fmt.Errorf("%v is not an image that Docker can run", r)
	}
	p, err := configPlatform(ctx, s.from, r.repo, doc.Config.Digest)
	if err != nil {
		return m, fmt.Errorf("%v: %w", r, err)
	}
	if s.platform != "" && !matches(p, s.platform) {
		return m, fmt.Errorf("%v is for %s, not for %s", r, platformName(p), s.platform)
	}
	i := dockerImage{Config: blobPath(doc.Config.Digest), Layers: []string{}}
	for _, l := range doc.Layers {
		i.Layers = append(i.Layers, blobPath(l.Digest))
	}
	if r.tag != "" {
		i.RepoTags = []string{r.String()}
	}
	for n, other := range s.images {
		if other.Config == i.Config && slices.Equal(other.Layers, i.Layers) {
			s.images[n].RepoTags = slices.Compact(slices.Sorted(slices.Values(slices.Concat(other.RepoTags, i.RepoTags))))
			return m, nil
		}
	}
	s.images = append(s.images, i)
	return m, nil
}

const typeDockerConfig = "application/vnd.docker.container.image.v1+json"

// choose returns the manifest for a platform in an index, or the only one if the
// platform is "".
func choose(m registry.Manifest, platform string) (digest.Digest, error) {
	var index ocispec.Index
	if err := json.Unmarshal(m.Content, &index); err != nil {
		return "", err
	}
	var found []digest.Digest
	var names []string
	for _, d := range index.Manifests {
		p := d.Platform
		if p == nil {
			p = new(ocispec.Platform)
		}
		if p.OS == "unknown" || d.Digest.Validate() != nil {
			continue // an attestation
		}
		names = append(names, platformName(*p))
		if platform == "" || matches(*p, platform) {
			found = append(found, d.Digest)
		}
	}
	slices.Sort(names)
	switch {
	case len(found) == 0:
		return "", fmt.Errorf("it has no image for %s, only for %s", platform, strings.Join(names, ", "))
	case platform == "" && len(found) > 1:
		return "", fmt.Errorf("it has several platforms: choose one with --platform: %s", strings.Join(names, ", "))
	}
	return found[0], nil
}

// matches reports whether an image's platform is the one of --platform. A platform
// without a variant matches all variants.
func matches(p ocispec.Platform, platform string) bool {
	return platformName(p) == platform || p.OS+"/"+p.Architecture == platform
}

// platformName returns a platform as OS/ARCH[/VARIANT].
func platformName(p ocispec.Platform) string {
	name := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		name += "/" + p.Variant
	}
	return clean(name)
}

// configPlatform returns the platform in the configuration of an image.
func configPlatform(ctx context.Context, s registry.Store, repo string, d digest.Digest) (p ocispec.Platform, err error) {
	content, err := s.OpenBlob(ctx, repo, d)
	if err != nil {
		return p, fmt.Errorf("configuration %s: %w", d, err)
	}
	defer content.Close()
	if err := json.NewDecoder(io.LimitReader(content, maxManifest)).Decode(&p); err != nil {
		return p, fmt.Errorf("configuration %s: %w", d, err)
	}
	return p, nil
}
