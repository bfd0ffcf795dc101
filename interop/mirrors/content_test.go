// SPDX-License-Identifier: Apache-2.0

// The content that the model's upstreams and clients have.

package mirrors

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/registrytest"
)

// blob is content that layers and configurations name.
type blob struct {
	data   string
	digest digest.Digest
}

// image is a manifest.
type image struct {
	content []byte
	digest  digest.Digest
	blobs   []int // of blobPool
	subject digest.Digest
}

// heldBack is the number of bytes at the end of a blob that mirrors send only after they
// have verified it, and far the distance from which a range has a request of its own.
const (
	heldBack = 64 << 10
	far      = 1 << 20
)

// blobPool has a size on each side of the mirror's limits. The last one has bytes that
// are far from the first.
var blobPool = func() (pool []blob) {
	for i, size := range []int{2, 0, heldBack, heldBack + 1, 300 << 10, 2560 << 10} {
		data := registrytest.Random(uint64(i+1), size)
		pool = append(pool, blob{data, digest.FromString(data)})
	}
	return pool
}()

// images are four images and two manifests that refer to the first.
var images = []image{
	newImage(0, "", 0),
	newImage(1, "", 0, 2, 3),
	newImage(2, "", 0, 4),
	newImage(3, "", 0, 5, 2),
	newImage(4, newImage(0, "", 0).digest, 0),
	newImage(5, newImage(0, "", 0).digest, 0, 2),
}

// newImage returns an image with a configuration and layers of blobPool.
func newImage(n int, subject digest.Digest, config int, layers ...int) image {
	descriptor := func(mediaType string, i int) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: blobPool[i].digest, Size: int64(len(blobPool[i].data))}
	}
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      descriptor(ocispec.MediaTypeImageConfig, config),
		Layers:      []ocispec.Descriptor{},
		Annotations: map[string]string{"number": fmt.Sprint(n)},
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, descriptor(ocispec.MediaTypeImageLayerGzip, l))
	}
	if subject != "" {
		m.ArtifactType = "application/vnd.example.signature"
		m.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: int64(len(newImage(0, "", 0).content))}
	}
	content, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return image{content: content, digest: digest.FromBytes(content), blobs: append([]int{config}, layers...), subject: subject}
}

// imageOf returns the image with a digest, or nil.
func imageOf(d digest.Digest) *image {
	for i := range images {
		if images[i].digest == d {
			return &images[i]
		}
	}
	return nil
}

var tagPool = []string{"1", "2", "latest"}

// naming is a way in which clients name a repository.
type naming struct {
	path, ns string // in requests

	upstream  int    // in world.origins
	name      string // at the upstream
	local     string // where pushes go
	cache     string // where fetched content goes
	byDefault bool
}

var namings = []naming{
	{path: "docker.io/library/app", name: "library/app", local: "docker.io/library/app"},
	{path: "docker.io/app", name: "library/app", local: "docker.io/library/app"},
	{path: "index.docker.io/app", name: "library/app", local: "docker.io/library/app"},
	{path: "library/app", ns: "docker.io", name: "library/app", local: "docker.io/library/app"},
	{path: "app", ns: "registry-1.docker.io", name: "library/app", local: "docker.io/library/app"},
	{path: "library/app", name: "library/app", local: "library/app", byDefault: true},
	{path: "app", name: "library/app", local: "app", byDefault: true},
	{path: "docker.io/team/app", name: "team/app", local: "docker.io/team/app"},
	{path: "team/app", ns: "docker.io", name: "team/app", local: "docker.io/team/app"},
	{path: "team/app", name: "team/app", local: "team/app", byDefault: true},
	{path: "ghcr.test/team/app", upstream: 1, name: "team/app", local: "ghcr.test/team/app"},
	{path: "team/app", ns: "ghcr.test", upstream: 1, name: "team/app", local: "ghcr.test/team/app"},
	{path: "docker.io/ghost/app", name: "ghost/app", local: "docker.io/ghost/app"}, // not at the upstream
}

func init() {
	for i := range namings {
		n := &namings[i]
		n.cache = "mirror.cache/" + upstreamNames[n.upstream] + "/" + n.name
	}
}

// url returns the path and query of a request.
func (n naming) url(rest string) string {
	url := "/v2/" + n.path + "/" + rest
	if n.ns == "" {
		return url
	}
	separator := "?"
	for _, c := range rest {
		if c == '?' {
			separator = "&"
		}
	}
	return url + separator + "ns=" + n.ns
}

func (n naming) String() string { return n.url("") }
