// SPDX-License-Identifier: Apache-2.0

// The blobs, manifests and tags of the models. There are only a few, so that
// operations often collide.

package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type blob struct {
	data, digest string
}

func (b blob) descriptor(mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(b.digest), Size: int64(len(b.data))}
}

type manifest struct {
	mediaTypes []string // the media types to push it with
	content    string
	digest     string
	blobs      []int // the indexes of the blobs that it names
	children   []int // the indexes of the manifests that it names
	subject    string
	listed     ocispec.Descriptor // its entry in the list of referrers
}

var (
	blobPool     = makeBlobs()
	manifestPool = makeManifests()
	tagPool      = []string{"t0", "t1", "t2", "t3"}

	// absentDigest is the digest of content that is never pushed.
	absentDigest = sha("nowhere")
	// subjects lists the subjects whose referrers are requested.
	subjects = []string{manifestPool[0].digest, manifestPool[3].digest, absentDigest}
)

func makeBlobs() []blob {
	pattern := func(n int) string { return strings.Repeat(fmt.Sprintf("%06d,", n), n/7+1)[:n] }
	// Empty, small, and large enough for several segments of a store.
	var all []blob
	for _, data := range []string{"", "{}", pattern(100), pattern(5_000), pattern(70_000)} {
		all = append(all, blob{data, sha(data)})
	}
	// The same bytes with another digest are another blob.
	return append(all, blob{all[3].data, digest.SHA512.FromString(all[3].data).String()})
}

func makeManifests() []manifest {
	const config, layer = "application/vnd.oci.empty.v1+json", "application/vnd.oci.image.layer.v1.tar"
	var all []manifest
	add := func(mediaType string, doc any, m manifest) {
		content, err := json.Marshal(doc)
		if err != nil {
			panic(err)
		}
		m.mediaTypes, m.content, m.digest = []string{mediaType}, string(content), sha(string(content))
		m.listed.MediaType, m.listed.Digest, m.listed.Size = mediaType, digest.Digest(m.digest), int64(len(content))
		all = append(all, m)
	}
	image := func(m manifest, doc ocispec.Manifest) {
		doc.SchemaVersion, doc.MediaType = 2, ocispec.MediaTypeImageManifest
		doc.Config = blobPool[m.blobs[0]].descriptor(config)
		doc.Layers = []ocispec.Descriptor{}
		for _, i := range m.blobs[1:] {
			doc.Layers = append(doc.Layers, blobPool[i].descriptor(layer))
		}
		if m.subject != "" {
			doc.Subject = &ocispec.Descriptor{MediaType: "text/plain", Digest: digest.Digest(m.subject), Size: 1}
			m.listed.Annotations = doc.Annotations
			m.listed.ArtifactType = doc.ArtifactType
			if doc.ArtifactType == "" {
				m.listed.ArtifactType = config
			}
		}
		add(doc.MediaType, doc, m)
	}
	index := func(m manifest, doc ocispec.Index) {
		doc.SchemaVersion, doc.MediaType = 2, ocispec.MediaTypeImageIndex
		doc.Manifests = []ocispec.Descriptor{}
		for _, j := range m.children {
			doc.Manifests = append(doc.Manifests, all[j].listed)
		}
		if m.subject != "" {
			doc.Subject = &ocispec.Descriptor{MediaType: "text/plain", Digest: digest.Digest(m.subject), Size: 1}
			m.listed.Annotations, m.listed.ArtifactType = doc.Annotations, doc.ArtifactType
		}
		add(doc.MediaType, doc, m)
	}
	image(manifest{blobs: []int{1}}, ocispec.Manifest{})                               // 0
	image(manifest{blobs: []int{1, 3, 4}, subject: all[0].digest}, ocispec.Manifest{}) // 1
	index(manifest{children: []int{0, 1}}, ocispec.Index{})                            // 2
	const opaque = "not even JSON"
	all = append(all, manifest{mediaTypes: []string{"text/plain", "application/x-other"}, content: opaque, digest: sha(opaque)}) // 3
	image(manifest{blobs: []int{1, 0}, subject: sha(opaque)}, ocispec.Manifest{                                                  // 4
		ArtifactType: "application/vnd.example.one", Annotations: map[string]string{"a": "<&>\"é"}})
	index(manifest{subject: all[0].digest}, ocispec.Index{ArtifactType: "application/vnd.example.two"}) // 5
	same := all[0]                                                                                      // the same content with another digest
	same.digest = digest.SHA512.FromString(same.content).String()
	all = append(all, same)                                                          // 6
	image(manifest{blobs: []int{2, 5}, subject: sha("nowhere")}, ocispec.Manifest{}) // 7
	return all
}

// pushableByTag reports whether a push by tag stores m: it computes the SHA-256
// digest.
func (m manifest) pushableByTag() bool { return strings.HasPrefix(m.digest, "sha256:") }

// indexOf returns the index of the manifest with a digest, -1 if there is none.
func indexOf(d string) int {
	return slices.IndexFunc(manifestPool, func(m manifest) bool { return m.digest == d })
}

// same reports whether two descriptors are equal.
func same(a, b ocispec.Descriptor) bool {
	return a.MediaType == b.MediaType && a.Digest == b.Digest && a.Size == b.Size &&
		a.ArtifactType == b.ArtifactType && maps.Equal(a.Annotations, b.Annotations)
}

// referrers reads all pages of a list of referrers. It returns the indexes of the
// manifests in it, and the responses.
func (c *client) referrers(t reporter, repo, subject, query string) (listed []int, pages []response) {
	t.Helper()
	last := ""
	for url := "/v2/" + repo + "/referrers/" + subject + query; url != ""; {
		a := c.get(t, url)
		pages = append(pages, a)
		if !a.hasStatus(t, 200) {
			return listed, pages
		}
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.Manifests == nil || index.MediaType != a.header.Get("Content-Type") {
			t.Errorf("%s: %v: %v %s", url, err, a.header, a.body)
		}
		for _, d := range index.Manifests {
			j := indexOf(d.Digest.String())
			if j < 0 || manifestPool[j].subject != subject || !same(d, manifestPool[j].listed) {
				t.Errorf("%s: unexpected entry %+v", url, d)
				continue
			}
			if d.Digest.String() <= last {
				t.Errorf("%s: %s, then %s", url, last, d.Digest)
				return listed, pages // the list may be endless
			}
			last = d.Digest.String()
			listed = append(listed, j)
		}
		url = nextPage(t, a)
	}
	return listed, pages
}
