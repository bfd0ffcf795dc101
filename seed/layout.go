// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// PushLayout pushes an OCI image layout to repo: each manifest in its index.json,
// with everything that it refers to, and the manifest's reference name as its tag.
// The layout may be a directory ([os.DirFS]), an embed.FS, the reader of a zip file,
// or any other fs.FS.
//
// For a list of referrers under the referrers tag schema (section "Referrers Tag
// Schema"), PushLayout pushes the entries, which become referrers, but neither the
// list nor its tag. An index with such a tag is a list if it has entries and each is
// a manifest in the layout with that subject. Otherwise it is pushed with its tag.
// With [KeepReferrersTags], lists are pushed with their tags too.
//
// Errors: those of reading layout, of registry.PushBlob and
// registry.PushManifest, in particular registry.ErrManifestBlobUnknown if layout
// lacks content.
func PushLayout(ctx context.Context, s registry.Store, repo string, layout fs.FS, opts ...LayoutOption) error {
	var o layoutOptions
	for _, opt := range opts {
		opt(&o)
	}
	data, err := fs.ReadFile(layout, ocispec.ImageIndexFile)
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	for _, d := range index.Manifests {
		roots, tags := []ocispec.Descriptor{d}, []string(nil)
		if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
			tags = []string{tag}
		}
		if !o.keepReferrersTags {
			if referrers, ok := referrersList(layout, d); ok {
				roots, tags = referrers, nil
			}
		}
		for _, root := range roots {
			if err := pushTree(ctx, s, repo, layout, root, tags); err != nil {
				return err
			}
		}
	}
	return nil
}

// LayoutOption is an option of PushLayout.
type LayoutOption func(*layoutOptions)

type layoutOptions struct {
	keepReferrersTags bool
}

// KeepReferrersTags pushes lists of referrers under the referrers tag schema with
// their tags. It is for a registry with registry.WithReferrersSupport(false), whose
// clients read these tags.
func KeepReferrersTags() LayoutOption {
	return func(o *layoutOptions) { o.keepReferrersTags = true }
}

// layoutManifest holds the members of a manifest of any type that PushLayout
// reads.
type layoutManifest struct {
	MediaType string
	Config    *ocispec.Descriptor
	Layers    []ocispec.Descriptor
	Manifests []ocispec.Descriptor
	Subject   *ocispec.Descriptor
}

// These annotations are ocidir's: a list of referrers that it wrote, and a tag of
// the form of a list's tag that a client pushed.
const (
	annotationList = "io.github.berth-oci.referrers"
	annotationTag  = "io.github.berth-oci.tag"
)

// referrersList returns the entries of a list under the referrers tag schema that
// are in the layout, and reports whether the manifest d is such a list.
func referrersList(layout fs.FS, d ocispec.Descriptor) (entries []ocispec.Descriptor, ok bool) {
	list, ok := readManifest(layout, d, ocispec.MediaTypeImageIndex)
	if !ok || d.Annotations[annotationTag] != "" {
		return nil, false
	}
	for _, entry := range list.Manifests {
		// The types whose subject counts.
		m, ok := readManifest(layout, entry, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList)
		if d.Annotations[annotationList] != "" {
			if ok {
				entries = append(entries, entry)
			}
			continue
		}
		if !ok || m.Subject == nil || m.Subject.Digest.Validate() != nil || referrersTag(m.Subject.Digest) != d.Annotations[ocispec.AnnotationRefName] {
			return nil, false
		}
		entries = append(entries, entry)
	}
	return entries, len(entries) > 0 || d.Annotations[annotationList] != ""
}

// readManifest reads a manifest, and reports whether it can be read and is of one
// of the given types.
func readManifest(layout fs.FS, d ocispec.Descriptor, mediaTypes ...string) (m layoutManifest, ok bool) {
	content, err := readContent(layout, d.Digest)
	if err != nil || json.Unmarshal(content, &m) != nil {
		return m, false
	}
	setDefault(&d.MediaType, m.MediaType) // as PushManifest does
	return m, slices.Contains(mediaTypes, d.MediaType)
}

// pushTree pushes a manifest after everything that it refers to.
func pushTree(ctx context.Context, s registry.Store, repo string, layout fs.FS, d ocispec.Descriptor, tags []string) error {
	content, err := readContent(layout, d.Digest)
	if err != nil {
		return err
	}
	var m layoutManifest
	json.Unmarshal(content, &m) // PushManifest decides whether it is valid
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, blob := range m.Layers {
		data, err := readContent(layout, blob.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			continue // PushManifest decides whether it may be missing
		}
		if err != nil {
			return err
		}
		if err := registry.PushBlob(ctx, s, repo, blob.Digest, bytes.NewReader(data)); err != nil {
			return fmt.Errorf("blob %s: %w", blob.Digest, err)
		}
	}
	for _, child := range m.Manifests {
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

// readContent reads a blob or manifest of an OCI image layout.
func readContent(layout fs.FS, d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%q: %w", d, err)
	}
	return fs.ReadFile(layout, path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
}
