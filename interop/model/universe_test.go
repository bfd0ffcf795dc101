// SPDX-License-Identifier: Apache-2.0

// The small world of the models: so few blobs, manifests and tags that they
// collide all the time.

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
	mediaTypes []string // any of which it may be pushed with
	content    string
	digest     string
	blobs      []int // that it names
	children   []int // manifests that it names
	subject    string
	listed     ocispec.Descriptor // in the list of referrers
}

var (
	theBlobs     = makeBlobs()
	theManifests = makeManifests()
	theTags      = []string{"t0", "t1", "t2", "t3"}

	// nowhere is the digest of what is never pushed.
	nowhere = sha("nowhere")
	// subjects are whose referrers are asked for.
	subjects = []string{theManifests[0].digest, theManifests[3].digest, nowhere}
)

func makeBlobs() []blob {
	pattern := func(n int) string { return strings.Repeat(fmt.Sprintf("%06d,", n), n/7+1)[:n] }
	// Nothing, little, and what is in several of a store's pieces.
	var all []blob
	for _, data := range []string{"", "{}", pattern(100), pattern(5_000), pattern(70_000)} {
		all = append(all, blob{data, sha(data)})
	}
	// The same bytes as another blob, and another blob for that.
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
		doc.Config = theBlobs[m.blobs[0]].descriptor(config)
		doc.Layers = []ocispec.Descriptor{}
		for _, i := range m.blobs[1:] {
			doc.Layers = append(doc.Layers, theBlobs[i].descriptor(layer))
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
	same := all[0]                                                                                      // as another manifest has
	same.digest = digest.SHA512.FromString(same.content).String()
	all = append(all, same)                                                          // 6
	image(manifest{blobs: []int{2, 5}, subject: sha("nowhere")}, ocispec.Manifest{}) // 7
	return all
}

// byTag reports whether m is what its content is when it is pushed by a tag:
// under its SHA-256 digest.
func (m manifest) byTag() bool { return strings.HasPrefix(m.digest, "sha256:") }

// indexOf returns which manifest a digest is of, -1 for none.
func indexOf(d string) int {
	return slices.IndexFunc(theManifests, func(m manifest) bool { return m.digest == d })
}

// same compares descriptors.
func same(a, b ocispec.Descriptor) bool {
	return a.MediaType == b.MediaType && a.Digest == b.Digest && a.Size == b.Size &&
		a.ArtifactType == b.ArtifactType && maps.Equal(a.Annotations, b.Annotations)
}

// referrers reads a list of referrers, all its pages, and returns which
// manifests are in it. The answers are those of the pages.
func (c *client) referrers(t reporter, repo, subject, query string) (listed []int, pages []answer) {
	t.Helper()
	last := ""
	for url := "/v2/" + repo + "/referrers/" + subject + query; url != ""; {
		a := c.get(t, url)
		pages = append(pages, a)
		if !a.is(t, 200) {
			return listed, pages
		}
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || index.Manifests == nil || index.MediaType != a.header.Get("Content-Type") {
			t.Errorf("%s: %v: %v %s", url, err, a.header, a.body)
		}
		for _, d := range index.Manifests {
			j := indexOf(d.Digest.String())
			if j < 0 || theManifests[j].subject != subject || !same(d, theManifests[j].listed) {
				t.Errorf("%s lists %+v", url, d)
				continue
			}
			if d.Digest.String() <= last {
				t.Errorf("%s: %s, then %s", url, last, d.Digest)
				return listed, pages // it may go on for ever
			}
			last = d.Digest.String()
			listed = append(listed, j)
		}
		url = next(t, a)
	}
	return listed, pages
}
