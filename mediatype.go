// SPDX-License-Identifier: Apache-2.0

// The media types of manifests and layers.

package registry

import (
	"mime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The types of Docker's manifests.
const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// usualTypes holds the media types of most descriptors, each under its own name.
var usualTypes = func() map[string]string {
	all := make(map[string]string)
	for _, t := range []string{
		ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageConfig,
		ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		ocispec.MediaTypeEmptyJSON, typeDockerManifest, typeDockerList,
		"application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip",
	} {
		all[t] = t
	}
	return all
}()

// isManifest reports whether manifests of a type are parsed. Manifests of other
// types are opaque.
func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned:
		return true
	}
	return false
}

// nonDistributable reports whether layers of a type may be missing from a
// registry: the image-spec's non-distributable layers and Docker's foreign
// layers.
func nonDistributable(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// maxMediaType is the length of the longest media type: RFC 6838 section 4.2.
const maxMediaType = 127 + 1 + 127

// parseMediaType returns a media type in lower case, without its parameters (RFC
// 9110 section 8.3.1).
func parseMediaType(s string) (string, bool) {
	if usual, ok := usualTypes[s]; ok {
		return usual, true
	}
	s, _, _ = strings.Cut(s, ";") // "The client SHOULD NOT include parameters": ignore them
	t, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(t, "/") || len(t) > maxMediaType {
		return "", false
	}
	return strings.Clone(t), true // a store keeps it, and must not keep a long header with it
}
