// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"encoding/json"
	"io"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/seed"
)

// layout is an OCI image layout under construction.
type layout struct {
	fstest.MapFS
	index ocispec.Index
}

func newLayout() *layout { return &layout{MapFS: make(fstest.MapFS)} }

func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	l.MapFS["blobs/sha256/"+d.Digest.Encoded()] = &fstest.MapFile{Data: data}
	return d
}

func (l *layout) manifest(mediaType string, doc any) ocispec.Descriptor {
	data, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return l.blob(mediaType, data)
}

func (l *layout) image(layer string) ocispec.Descriptor {
	return l.manifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    l.blob(ocispec.MediaTypeImageConfig, []byte("{}")),
		Layers:    []ocispec.Descriptor{l.blob(ocispec.MediaTypeImageLayer, []byte(layer))},
	})
}

func (l *layout) imageIndex(children ...ocispec.Descriptor) ocispec.Descriptor {
	return l.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
}

// tag adds a manifest to index.json, with a tag unless name is empty.
func (l *layout) tag(d ocispec.Descriptor, name string) {
	if name != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	}
	l.index.Manifests = append(l.index.Manifests, d)
	data, _ := json.Marshal(l.index)
	l.MapFS["index.json"] = &fstest.MapFile{Data: data}
}

func TestPushLayout(t *testing.T) {
	l := newLayout()
	one, two := l.image("one"), l.image("two")
	nested := l.imageIndex(two)
	l.tag(l.imageIndex(one, nested), "latest")
	l.tag(l.image("three"), "three")
	l.tag(l.image("untagged"), "")

	s := registrytest.NewServer(t)
	qt.Assert(t, qt.IsNil(seed.PushLayout(t.Context(), s.Store, "repo", l)))
	for _, path := range []string{
		"manifests/latest", "manifests/three",
		"manifests/" + one.Digest.String(), "manifests/" + two.Digest.String(), "manifests/" + nested.Digest.String(),
		"manifests/" + l.image("untagged").Digest.String(),
		"blobs/" + digest.FromString("one").String(), "blobs/" + digest.FromString("two").String(),
	} {
		resp, err := s.Client().Get(s.URL + "/v2/repo/" + path)
		qt.Assert(t, qt.IsNil(err))
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, 200), qt.Commentf("%s", path))
		qt.Check(t, qt.Equals(digest.FromBytes(body).String(), resp.Header.Get("Docker-Content-Digest")))
	}
}

// artifact adds an image manifest with the given media type and subject.
func (l *layout) artifact(mediaType, name string, subject *ocispec.Descriptor) ocispec.Descriptor {
	config := l.blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	return l.manifest(mediaType, ocispec.Manifest{
		MediaType:   mediaType,
		Config:      config,
		Layers:      []ocispec.Descriptor{config},
		Subject:     subject,
		Annotations: map[string]string{"name": name},
	})
}

// TestPushLayoutReferrersTag checks which indexes are treated as lists under the
// referrers tag schema: their entries become referrers, and the tag is not pushed.
func TestPushLayoutReferrersTag(t *testing.T) {
	const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	digestTag := func(d digest.Digest) string {
		return (d.Algorithm().String() + "-" + d.Encoded())[:len(d.Algorithm())+1+64]
	}
	for _, test := range []struct {
		name    string
		entries func(l *layout, subject, other *ocispec.Descriptor) []ocispec.Descriptor
		tag     func(subject ocispec.Descriptor) string // nil: the schema's
		sha512  bool                                    // the subject is referred to by SHA-512
		want    int                                     // the number of referrers
		isTag   bool                                    // the tag is pushed
		opts    []seed.LayoutOption
	}{
		{name: "images", want: 2, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject), l.artifact(ocispec.MediaTypeImageManifest, "b", subject)}
		}},
		{name: "keep_referrers_tags", opts: []seed.LayoutOption{seed.KeepReferrersTags()}, want: 1, isTag: true, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject)}
		}},
		{name: "docker_manifest", want: 1, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(dockerManifest, "a", subject)}
		}},
		{name: "index", want: 1, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.manifest(ocispec.MediaTypeImageIndex, ocispec.Index{
				MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{l.image("nested")}, Subject: subject,
			})}
		}},
		{name: "entry_without_media_type", want: 1, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			d := l.artifact(ocispec.MediaTypeImageManifest, "a", subject)
			d.MediaType = ""
			return []ocispec.Descriptor{d}
		}},
		{name: "sha512_subject", sha512: true, want: 1, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject)}
		}},
		{name: "another_subject", want: 1, isTag: true, entries: func(l *layout, subject, other *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject), l.artifact(ocispec.MediaTypeImageManifest, "b", other)}
		}},
		{name: "no_subject", want: 1, isTag: true, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject), l.image("plain")}
		}},
		{name: "missing_entry", want: 1, isTag: true, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			// Its type is not a manifest's, so the index may be pushed without it.
			missing := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString("missing"), Size: 7}
			return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject), missing}
		}},
		{name: "opaque_entry", isTag: true, entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{l.artifact("application/vnd.example+json", "a", subject)}
		}},
		{name: "no_entries", isTag: true, entries: func(*layout, *ocispec.Descriptor, *ocispec.Descriptor) []ocispec.Descriptor {
			return []ocispec.Descriptor{} // not null
		}},
		{name: "another_tag", want: 1, isTag: true, tag: func(d ocispec.Descriptor) string { return digestTag(d.Digest) + ".sig" },
			entries: func(l *layout, subject, _ *ocispec.Descriptor) []ocispec.Descriptor {
				return []ocispec.Descriptor{l.artifact(ocispec.MediaTypeImageManifest, "a", subject)}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLayout()
			subject, other := l.image("subject"), l.image("other")
			l.tag(subject, "latest")
			if test.sha512 {
				subject.Digest = digest.SHA512.FromBytes(l.MapFS["blobs/sha256/"+subject.Digest.Encoded()].Data)
			}
			tag := digestTag(subject.Digest)
			if test.tag != nil {
				tag = test.tag(subject)
			}
			list := l.imageIndex(test.entries(l, &subject, &other)...)
			l.tag(list, tag)

			s := new(registry.MemStore)
			qt.Assert(t, qt.IsNil(seed.PushLayout(t.Context(), s, "repo", l, test.opts...)))
			want := []string{"latest"}
			if test.isTag {
				want = append(want, tag)
			}
			var tags []string
			for tag, err := range s.Tags(t.Context(), "repo", "") {
				qt.Assert(t, qt.IsNil(err))
				tags = append(tags, tag)
			}
			qt.Check(t, qt.DeepEquals(tags, want))
			_, err := s.GetManifest(t.Context(), "repo", list.Digest)
			qt.Check(t, qt.Equals(err == nil, test.isTag))
			referrers := 0
			for _, err := range s.Referrers(t.Context(), "repo", subject.Digest, "") {
				qt.Assert(t, qt.IsNil(err))
				referrers++
			}
			qt.Check(t, qt.Equals(referrers, test.want))
		})
	}
}

func TestPushLayoutErrors(t *testing.T) {
	push := func(l fs.FS, repo string) error {
		return seed.PushLayout(t.Context(), new(registry.MemStore), repo, l)
	}
	qt.Check(t, qt.ErrorIs(push(fstest.MapFS{}, "repo"), fs.ErrNotExist))
	qt.Check(t, qt.ErrorMatches(push(fstest.MapFS{"index.json": {Data: []byte("x")}}, "repo"), "index.json: .*"))

	l := newLayout()
	l.tag(l.image("layer"), "latest")
	qt.Check(t, qt.ErrorIs(push(l, "UPPER"), error(registry.ErrNameInvalid)))
	layer := "blobs/sha256/" + digest.FromString("layer").Encoded()
	l.MapFS[layer] = &fstest.MapFile{Data: []byte("corrupt")}
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrDigestInvalid)))
	delete(l.MapFS, layer)
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrManifestBlobUnknown)))

	l = newLayout()
	l.tag(ocispec.Descriptor{Digest: "../../etc/passwd"}, "latest")
	qt.Check(t, qt.ErrorIs(push(l, "repo"), digest.ErrDigestInvalidFormat))
	l = newLayout()
	l.tag(l.image("layer"), "not a tag")
	qt.Check(t, qt.ErrorIs(push(l, "repo"), error(registry.ErrNameInvalid)))
}
