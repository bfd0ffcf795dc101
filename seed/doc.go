// SPDX-License-Identifier: Apache-2.0

// Package seed fills a [registry.Store]: with an OCI image layout, an archive of
// "docker save", an image or index of go-containerregistry, content described in Go,
// or a random image. It imports nothing of package testing, so that programs can use
// it; package registrytest has the same functions for tests.
package seed

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// referrersTag returns the tag of a subject's referrers list (section "Referrers
// Tag Schema").
func referrersTag(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}
