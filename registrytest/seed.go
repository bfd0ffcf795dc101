// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"io"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/seed"
)

// Types of package seed.
type (
	Content      = seed.Content
	Manifest     = seed.Manifest
	LayoutOption = seed.LayoutOption
	Layer        = seed.Layer
	Hash         = seed.Hash

	Image[L Layer]                            = seed.Image[L]
	Index[H Hash, L Layer, I Image[L], X any] = seed.Index[H, L, I, X]
)

// PushContent is [seed.PushContent].
func PushContent(ctx context.Context, s registry.Store, repo string, content Content) (map[string]ocispec.Descriptor, error) {
	return seed.PushContent(ctx, s, repo, content)
}

// PushRandomImage is [seed.PushRandomImage].
func PushRandomImage(ctx context.Context, s registry.Store, repo, tag string, random uint64, layers, size int) (registry.Manifest, error) {
	return seed.PushRandomImage(ctx, s, repo, tag, random, layers, size)
}

// Random is [seed.Random].
func Random(random uint64, size int) string { return seed.Random(random, size) }

// PushLayout is [seed.PushLayout].
func PushLayout(ctx context.Context, s registry.Store, repo string, layout fs.FS, opts ...LayoutOption) error {
	return seed.PushLayout(ctx, s, repo, layout, opts...)
}

// KeepReferrersTags is [seed.KeepReferrersTags].
func KeepReferrersTags() LayoutOption { return seed.KeepReferrersTags() }

// PushDockerArchive is [seed.PushDockerArchive].
func PushDockerArchive(ctx context.Context, s registry.Store, repo string, r io.Reader) ([]registry.Manifest, error) {
	return seed.PushDockerArchive(ctx, s, repo, r)
}

// PushImage is [seed.PushImage].
func PushImage[L Layer](ctx context.Context, s registry.Store, repo, tag string, img Image[L]) (registry.Manifest, error) {
	return seed.PushImage(ctx, s, repo, tag, img)
}

// PushIndex is [seed.PushIndex].
func PushIndex[H Hash, L Layer, I Image[L], X Index[H, L, I, X]](ctx context.Context, s registry.Store, repo, tag string, index X) (registry.Manifest, error) {
	return seed.PushIndex[H, L, I, X](ctx, s, repo, tag, index)
}
