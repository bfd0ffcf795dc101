// SPDX-License-Identifier: Apache-2.0

// The content that a manifest leads to.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berth-oci/registry"
)

// reference is what the walk needs of a descriptor.
type reference struct {
	MediaType string
	Digest    digest.Digest
	Size      int64
}

// document holds the references in a manifest of any type.
type document struct {
	MediaType    string
	ArtifactType string
	Config       *reference
	Layers       []reference
	Blobs        []reference
	Manifests    []reference
	Subject      *reference
}

// contentSource is where a walk reads manifests.
type contentSource interface {
	// manifest returns a manifest. mediaType is that of the reference, or "".
	// Errors: isUnknown reports true for a manifest that does not exist.
	manifest(ctx context.Context, mediaType string, d digest.Digest) (registry.Manifest, error)

	// referrers returns the manifests whose subject is d.
	referrers(ctx context.Context, d digest.Digest) ([]reference, error)
}

// closure is content that a walk has found.
type closure struct {
	manifests map[digest.Digest]reference
	referrers map[digest.Digest]bool // the manifests found as referrers
	blobs     map[digest.Digest]blobRef
	missing   map[digest.Digest]digest.Digest // manifests that do not exist, and one that names each
	repeated  map[digest.Digest]bool          // manifests that others name
}

// blobRef is a blob that a manifest names.
type blobRef struct {
	size     int64 // as the manifest says
	optional bool  // such as a layer that is not distributable
}

// walkJobs is the number of manifests that a walk reads at once.
const walkJobs = 8

// maxWalk bounds the content that a walk finds: registries and archives, which nobody
// needs to trust, could lead to ever more.
var maxWalk = 1_000_000 // lower in tests

// walk finds the content that roots lead to, and, if withReferrers is set, the
// referrers of all manifests in it. A root that does not exist is an error; other
// manifests may be missing.
func walk(ctx context.Context, src contentSource, roots []reference, withReferrers bool) (*closure, error) {
	c := &closure{
		manifests: make(map[digest.Digest]reference),
		referrers: make(map[digest.Digest]bool),
		blobs:     make(map[digest.Digest]blobRef),
		missing:   make(map[digest.Digest]digest.Digest),
		repeated:  make(map[digest.Digest]bool),
	}
	seen := make(map[digest.Digest]bool)
	var level []reference
	for _, r := range roots {
		if !seen[r.Digest] {
			seen[r.Digest] = true
			level = append(level, r)
		}
	}
	parent := make(map[digest.Digest]digest.Digest)
	for len(level) > 0 {
		var mu sync.Mutex // guards c, seen, parent and next
		var next []reference
		g, running := errgroup.WithContext(ctx)
		g.SetLimit(walkJobs)
		for _, ref := range level {
			g.Go(func() error {
				if err := running.Err(); err != nil {
					return err
				}
				m, err := src.manifest(running, ref.MediaType, ref.Digest)
				mu.Lock()
				by, isChild := parent[ref.Digest]
				mu.Unlock()
				switch {
				case isUnknown(err) && isChild:
					mu.Lock()
					defer mu.Unlock()
					c.missing[ref.Digest] = by
					return nil
				case err != nil:
					return fmt.Errorf("manifest %s: %w", ref.Digest, err)
				}
				var referrers []reference
				if withReferrers {
					if referrers, err = src.referrers(running, ref.Digest); err != nil {
						return fmt.Errorf("referrers of %s: %w", ref.Digest, err)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				children := c.add(m)
				if len(seen)+len(c.blobs)+len(children)+len(referrers) > maxWalk {
					return fmt.Errorf("it leads to more than %d manifests and blobs", maxWalk)
				}
				for i, child := range slices.Concat(children, referrers) {
					isReferrer := i >= len(children)
					if isReferrer {
						c.referrers[child.Digest] = true
					} else {
						c.repeated[child.Digest] = true
					}
					if !seen[child.Digest] {
						seen[child.Digest] = true
						parent[child.Digest] = m.Digest
						next = append(next, child)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		level = next
	}
	return c, nil
}

// add adds a manifest and its blobs, and returns its children.
func (c *closure) add(m registry.Manifest) []reference {
	c.manifests[m.Digest] = reference{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Content))}
	parsed, err := registry.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return nil // opaque bytes
	}
	for _, d := range parsed.Blobs {
		c.addBlob(d, blobRef{size: -1})
	}
	if len(parsed.Blobs) == 0 && len(parsed.Manifests) == 0 && !describes(m.MediaType) {
		return nil
	}
	var doc document
	json.Unmarshal(m.Content, &doc)
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, b := range slices.Concat(doc.Layers, doc.Blobs) {
		c.addBlob(b.Digest, blobRef{size: b.Size, optional: true})
	}
	return slices.DeleteFunc(doc.Manifests, func(r reference) bool { return r.Digest.Validate() != nil })
}

// describes reports whether manifests of a type name other content.
func describes(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == ocispec.MediaTypeImageIndex ||
		mediaType == typeDockerManifest || mediaType == typeDockerList
}

const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// addBlob adds a blob. A size and being required are kept from other mentions of it.
func (c *closure) addBlob(d digest.Digest, b blobRef) {
	if d.Validate() != nil {
		return
	}
	if old, ok := c.blobs[d]; ok {
		b.optional = b.optional && old.optional
		if old.size >= 0 {
			b.size = old.size
		}
	}
	c.blobs[d] = b
}

// sortedKeys returns the keys of a map in order.
func sortedKeys[V any](m map[digest.Digest]V) []digest.Digest {
	return slices.Sorted(maps.Keys(m))
}

// repoSource is a contentSource that reads a repository of a store.
type repoSource struct {
	store registry.Store
	repo  string
}

func (s repoSource) manifest(ctx context.Context, _ string, d digest.Digest) (registry.Manifest, error) {
	return s.store.GetManifest(ctx, s.repo, d)
}

func (s repoSource) referrers(ctx context.Context, d digest.Digest) (list []reference, err error) {
	for r, err := range s.store.Referrers(ctx, s.repo, d, "") {
		if errors.Is(err, registry.ErrUnsupported) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, reference{Digest: r.Digest})
	}
	return list, nil
}
