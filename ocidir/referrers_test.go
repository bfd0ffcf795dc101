// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// foreignLayout is an image layout as another tool might write it.
type foreignLayout struct {
	files   fstest.MapFS
	entries []ocispec.Descriptor // of its index.json
}

// add adds content, and returns its descriptor.
func (l *foreignLayout) add(mediaType, content string) ocispec.Descriptor {
	d := digest.FromString(content)
	l.files["blobs/sha256/"+d.Encoded()] = &fstest.MapFile{Data: []byte(content)}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

// addIndex adds an index of the given manifests, with further members in JSON.
func (l *foreignLayout) addIndex(mediaType, members string, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	list, _ := json.Marshal(append([]ocispec.Descriptor{}, manifests...))
	return l.add(mediaType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":%s%s}`, mediaType, list, members))
}

// addReferrer adds a manifest with the given subject.
func (l *foreignLayout) addReferrer(name string, subject digest.Digest) ocispec.Descriptor {
	return l.add(ocispec.MediaTypeImageManifest, referrer(name, subject))
}

// referrer returns a manifest with the given subject, or "" for none.
func referrer(name string, subject digest.Digest) string {
	member := ""
	if subject != "" {
		member = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":1}`, ocispec.MediaTypeImageManifest, subject)
	}
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"annotations":{"name":%q}%s}`, ocispec.MediaTypeImageManifest, name, member)
}

// tag adds an entry to the index.json; without a tag if it is empty.
func (l *foreignLayout) tag(d ocispec.Descriptor, tag string) {
	if tag != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	l.entries = append(l.entries, d)
}

// write writes the layout to a directory.
func (l *foreignLayout) write(t *testing.T, dir string) {
	t.Helper()
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": l.entries})
	qt.Assert(t, qt.IsNil(err))
	l.files["oci-layout"] = &fstest.MapFile{Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}
	l.files["index.json"] = &fstest.MapFile{Data: index}
	qt.Assert(t, qt.IsNil(os.CopyFS(dir, l.files)))
}

// indexEntries returns the entries with the given tag in the index.json of dir.
func indexEntries(t *testing.T, dir, tag string) (found []ocispec.Descriptor) {
	t.Helper()
	fold(t, filepath.Dir(dir))
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	qt.Assert(t, qt.IsNil(err))
	var index ocispec.Index
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, &index)))
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			found = append(found, d)
		}
	}
	return found
}

func wantTags(t *testing.T, s registry.Store, repo string, want ...string) {
	t.Helper()
	var got []string
	for tag, err := range s.Tags(ctx, repo, "") {
		qt.Assert(t, qt.IsNil(err))
		got = append(got, tag)
	}
	slices.Sort(want)
	qt.Assert(t, qt.DeepEquals(got, want))
}

func wantReferrers(t *testing.T, s registry.Store, repo string, subject digest.Digest, want ...digest.Digest) {
	t.Helper()
	var got []digest.Digest
	for r, err := range s.Referrers(ctx, repo, subject, "") {
		qt.Assert(t, qt.IsNil(err))
		got = append(got, r.Digest)
	}
	slices.Sort(want)
	qt.Assert(t, qt.DeepEquals(got, want))
}

// wantListFile checks that the layout in dir has one list of referrers tagged
// tag, and that it names the given manifests.
func wantListFile(t *testing.T, dir, tag string, want ...digest.Digest) {
	t.Helper()
	entries := indexEntries(t, dir, tag)
	qt.Assert(t, qt.HasLen(entries, 1))
	qt.Assert(t, qt.Equals(entries[0].MediaType, ocispec.MediaTypeImageIndex))
	data, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", entries[0].Digest.Encoded()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(digest.FromBytes(data), entries[0].Digest))
	var list ocispec.Index
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, &list)))
	var got []digest.Digest
	for _, d := range list.Manifests {
		got = append(got, d.Digest)
	}
	slices.Sort(got)
	slices.Sort(want)
	qt.Assert(t, qt.DeepEquals(got, want))
}

// TestReferrersTag checks that tools that read the layout find referrers by the
// referrers tag schema.
func TestReferrersTag(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, signature := pushImage(t, s, "a", "tag", 1)
	tag := schemaTag(image.Digest)
	wantListFile(t, filepath.Join(dir, "a"), tag, signature.Digest)
	list := indexEntries(t, filepath.Join(dir, "a"), tag)[0].Digest

	// Clients see it neither as a tag, nor as a manifest, nor as a blob.
	wantTags(t, s, "a", "tag", "tag-index")
	_, err := s.GetManifest(ctx, "a", list)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
	_, err = s.OpenBlob(ctx, "a", list)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))

	// If a client pushes that tag, even with the same index, the tag is the
	// client's.
	data, err := os.ReadFile(filepath.Join(dir, "a/blobs/sha256", list.Encoded()))
	qt.Assert(t, qt.IsNil(err))
	_, err = registry.PushManifest(ctx, s, "a", registry.ManifestPush{MediaType: ocispec.MediaTypeImageIndex, Content: data, Tags: []string{tag}})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(indexEntries(t, filepath.Join(dir, "a"), tag), 1))
	qt.Assert(t, qt.IsNil(s.Close()))
	s = open(t, dir)
	wantTags(t, s, "a", tag, "tag", "tag-index")
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", signature.Digest)))
	m, err := s.GetTag(ctx, "a", tag)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(m.Content), string(data)))
}

// foreignLists are layouts of other tools with an index that is, or seems to be,
// tagged as a list of referrers: section "Referrers Tag Schema".
var foreignLists = []struct {
	name string
	// make adds a subject's list to l, or something like it, and returns its
	// descriptor and tag, and the referrers that the registry should list.
	make   func(l *foreignLayout, subject digest.Digest) (list ocispec.Descriptor, tag string, referrers []ocispec.Descriptor)
	isList bool
}{{
	name: "one_referrer",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(subject), []ocispec.Descriptor{a}
	},
	isList: true,
}, {
	name: "several_referrers",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		all := []ocispec.Descriptor{
			l.addReferrer("a", subject),
			l.addIndex(ocispec.MediaTypeImageIndex, fmt.Sprintf(`,"subject":{"mediaType":"x/y","digest":%q,"size":1}`, subject)),
			l.add("application/vnd.docker.distribution.manifest.v2+json", strings.Replace(referrer("c", subject), ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json", 1)),
		}
		return l.addIndex(ocispec.MediaTypeImageIndex, "", all...), schemaTag(subject), all
	},
	isList: true,
}, {
	name: "referrers_in_index_json_too",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a, b := l.addReferrer("a", subject), l.addReferrer("b", subject)
		l.tag(a, "")
		l.tag(b, "b")
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a, b), schemaTag(subject), []ocispec.Descriptor{a, b}
	},
	isList: true,
}, {
	name: "full_reference",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), "example.com/image:" + schemaTag(subject), []ocispec.Descriptor{a}
	},
	isList: true,
}, {
	name: "entry_missing",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a, b := l.addReferrer("a", subject), l.addReferrer("b", subject)
		delete(l.files, "blobs/sha256/"+b.Digest.Encoded())
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a, b), schemaTag(subject), []ocispec.Descriptor{a}
	},
}, {
	name: "entry_with_other_subject",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a, b := l.addReferrer("a", subject), l.addReferrer("b", digest.FromString("other"))
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a, b), schemaTag(subject), []ocispec.Descriptor{a}
	},
}, {
	name: "entry_without_subject",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a, b := l.addReferrer("a", subject), l.addReferrer("b", "")
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a, b), schemaTag(subject), []ocispec.Descriptor{a}
	},
}, {
	name: "entry_of_opaque_type",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.add("application/vnd.example+json", `{"subject":{"digest":"`+subject.String()+`"}}`)
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(subject), nil
	},
}, {
	name: "entry_broken",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		l.files["blobs/sha256/"+a.Digest.Encoded()].Data = []byte("broken")
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(subject), nil
	},
}, {
	name: "no_entries",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		return l.addIndex(ocispec.MediaTypeImageIndex, ""), schemaTag(subject), nil
	},
}, {
	name: "list_with_a_subject",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		list := l.addIndex(ocispec.MediaTypeImageIndex, fmt.Sprintf(`,"subject":{"mediaType":"x/y","digest":%q,"size":1}`, subject), a)
		return list, schemaTag(subject), []ocispec.Descriptor{a, list}
	},
}, {
	name: "docker_list",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return l.addIndex("application/vnd.docker.distribution.manifest.list.v2+json", "", a), schemaTag(subject), []ocispec.Descriptor{a}
	},
}, {
	name: "manifest",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return a, schemaTag(subject), []ocispec.Descriptor{a}
	},
}, {
	name: "tag_of_another_digest",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(digest.FromString("other")), []ocispec.Descriptor{a}
	},
}, {
	name: "tag_with_suffix",
	make: func(l *foreignLayout, subject digest.Digest) (ocispec.Descriptor, string, []ocispec.Descriptor) {
		a := l.addReferrer("a", subject)
		return l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(subject) + ".sig", []ocispec.Descriptor{a}
	},
}}

// schemaTag returns the tag of a list of referrers.
func schemaTag(subject digest.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded()[:64]
}

func digestsOf(list []ocispec.Descriptor) (all []digest.Digest) {
	for _, d := range list {
		all = append(all, d.Digest)
	}
	return all
}

// TestForeignLists serves lists of referrers that other tools wrote, and pushes
// to their layouts.
func TestForeignLists(t *testing.T) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		subject := algorithm.FromString("subject")
		for _, c := range foreignLists {
			t.Run(algorithm.String()+"/"+c.name, func(t *testing.T) {
				l := &foreignLayout{files: make(fstest.MapFS)}
				list, name, referrers := c.make(l, subject)
				l.tag(list, name)
				tag := name[strings.LastIndexByte(name, ':')+1:]
				var tags []string // besides tag
				for _, d := range l.entries[:len(l.entries)-1] {
					if tag := d.Annotations[ocispec.AnnotationRefName]; tag != "" {
						tags = append(tags, tag)
					}
				}
				dir := t.TempDir()
				l.write(t, filepath.Join(dir, "a"))

				check := func(s registry.Store, referrers []digest.Digest, tags ...string) {
					t.Helper()
					wantReferrers(t, s, "a", subject, referrers...)
					for _, d := range referrers {
						_, err := s.GetManifest(ctx, "a", d)
						qt.Assert(t, qt.IsNil(err))
					}
					_, err := s.OpenBlob(ctx, "a", list.Digest)
					qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUnknown)))
					if c.isList {
						_, err := s.GetManifest(ctx, "a", list.Digest)
						qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
						_, err = s.GetTag(ctx, "a", tag)
						qt.Check(t, qt.ErrorIs(err, error(registry.ErrManifestUnknown)))
						wantTags(t, s, "a", tags...)
						return
					}
					m, err := s.GetTag(ctx, "a", tag)
					qt.Assert(t, qt.IsNil(err))
					qt.Check(t, qt.Equals(m.Digest, list.Digest))
					wantTags(t, s, "a", append(tags, tag)...)
				}
				all := digestsOf(referrers)
				check(ocidir.FS(os.DirFS(dir)), all, tags...)
				s := open(t, dir)
				check(s, all, tags...)

				// A push of something else leaves the list alone.
				push := func(content string, tags ...string) digest.Digest {
					t.Helper()
					m, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{
						MediaType: ocispec.MediaTypeImageManifest, Content: []byte(content), Tags: tags, Sparse: true,
					})
					qt.Assert(t, qt.IsNil(err))
					return m.Digest
				}
				push(referrer("image", ""), "image")
				tags = append(tags, "image")
				check(s, all, tags...)
				qt.Assert(t, qt.Equals(indexEntries(t, filepath.Join(dir, "a"), name)[0].Digest, list.Digest))
				reopen := func() {
					t.Helper()
					qt.Assert(t, qt.IsNil(s.Close()))
					s = open(t, dir)
				}
				reopen()
				check(s, all, tags...)

				// New referrers appear in the list. A tag that clients could
				// see stays a tag, even if its index now looks like a list.
				all = append(all, push(referrer("new", subject)))
				if c.name == "entry_missing" {
					all = append(all, push(referrer("b", subject)))
				}
				check(s, all, tags...)
				if c.isList {
					wantListFile(t, filepath.Join(dir, "a"), tag, all...)
				}
				reopen()
				check(s, all, tags...)

				// The list is deleted with the last of them.
				for _, d := range all {
					if c.isList || d != list.Digest {
						qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", d)))
					}
				}
				if c.isList {
					qt.Assert(t, qt.HasLen(indexEntries(t, filepath.Join(dir, "a"), tag), 0))
					_, err := os.Stat(filepath.Join(dir, "a/blobs/sha256", list.Digest.Encoded()))
					qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
				}
			})
		}
	}
}

// TestForeignListTwice tags a list of another tool with a second name.
func TestForeignListTwice(t *testing.T) {
	subject := digest.FromString("subject")
	l := &foreignLayout{files: make(fstest.MapFS)}
	a := l.addReferrer("a", subject)
	list := l.addIndex(ocispec.MediaTypeImageIndex, "", a)
	l.tag(list, "other")
	l.tag(list, schemaTag(subject))
	dir := t.TempDir()
	l.write(t, filepath.Join(dir, "a"))
	s := open(t, dir)
	for range 2 {
		wantTags(t, s, "a", "other")
		wantReferrers(t, s, "a", subject, a.Digest)
		m, err := s.GetTag(ctx, "a", "other")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(m.Digest, list.Digest))
		pushImage(t, s, "a", "image", 1)
		wantListFile(t, filepath.Join(dir, "a"), schemaTag(subject), a.Digest)
		image, err := s.GetTag(ctx, "a", "image")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", image.Digest)))
		index, err := s.GetTag(ctx, "a", "image-index")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", index.Digest)))
		qt.Assert(t, qt.IsNil(s.Close()))
		s = open(t, dir)
	}
}

// TestClientPushesForeignList checks that a list of another tool becomes a tag
// when a client pushes it, and stays one.
func TestClientPushesForeignList(t *testing.T) {
	subject := digest.FromString("subject")
	tag := schemaTag(subject)
	l := &foreignLayout{files: make(fstest.MapFS)}
	a := l.addReferrer("a", subject)
	list := l.addIndex(ocispec.MediaTypeImageIndex, "", a)
	l.tag(list, tag)
	content := l.files["blobs/sha256/"+list.Digest.Encoded()].Data
	dir := t.TempDir()
	l.write(t, filepath.Join(dir, "a"))
	s := open(t, dir)
	wantTags(t, s, "a")
	_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{MediaType: ocispec.MediaTypeImageIndex, Content: content, Tags: []string{tag}})
	qt.Assert(t, qt.IsNil(err))
	for range 2 {
		wantTags(t, s, "a", tag)
		m, err := s.GetTag(ctx, "a", tag)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(m.Digest, list.Digest))
		wantReferrers(t, s, "a", subject, a.Digest)
		qt.Assert(t, qt.HasLen(indexEntries(t, filepath.Join(dir, "a"), tag), 1))
		qt.Assert(t, qt.IsNil(s.Close()))
		s = open(t, dir)
	}
	// When the client deletes its manifest, the list gets the tag back.
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", list.Digest)))
	for range 2 {
		wantTags(t, s, "a")
		wantReferrers(t, s, "a", subject, a.Digest)
		wantListFile(t, filepath.Join(dir, "a"), tag, a.Digest)
		qt.Assert(t, qt.IsNil(s.Close()))
		s = open(t, dir)
	}
}

// TestForeignToolReplacesList replaces a list of the store as another tool would:
// the old entry loses its tag but keeps its other annotations.
func TestForeignToolReplacesList(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, signature := pushImage(t, s, "a", "tag", 1)
	tag := schemaTag(image.Digest)
	qt.Assert(t, qt.IsNil(s.Close()))

	l := &foreignLayout{files: make(fstest.MapFS)}
	b := l.addReferrer("b", image.Digest)
	list := l.addIndex(ocispec.MediaTypeImageIndex, "", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: signature.Digest, Size: int64(len(signature.Content))}, b)
	for name, file := range l.files {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, "a", name), file.Data, 0o666)))
	}
	index := filepath.Join(dir, "a/index.json")
	data, err := os.ReadFile(index)
	qt.Assert(t, qt.IsNil(err))
	var doc ocispec.Index
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, &doc)))
	for _, d := range doc.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			delete(d.Annotations, ocispec.AnnotationRefName)
		}
	}
	list.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	for name, manifests := range map[string][]ocispec.Descriptor{
		"before": append([]ocispec.Descriptor{list}, doc.Manifests...),
		"after":  append(slices.Clone(doc.Manifests), list),
	} {
		t.Run(name, func(t *testing.T) {
			doc.Manifests = manifests
			data, err := json.Marshal(doc)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(os.WriteFile(index, data, 0o666)))
			s := open(t, dir)
			defer s.Close()
			wantTags(t, s, "a", "tag", "tag-index")
			wantReferrers(t, s, "a", image.Digest, signature.Digest, b.Digest)
			_, err = registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(name)})
			qt.Assert(t, qt.IsNil(err))
			wantListFile(t, filepath.Join(dir, "a"), tag, signature.Digest, b.Digest)
			wantTags(t, s, "a", "tag", "tag-index")
		})
	}
}

// TestListPushedAsBlob pushes a list of referrers as a blob. It stays one when
// the list changes.
func TestListPushedAsBlob(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, signature := pushImage(t, s, "a", "tag", 1)
	list := indexEntries(t, filepath.Join(dir, "a"), schemaTag(image.Digest))[0].Digest
	data, err := os.ReadFile(filepath.Join(dir, "a/blobs/sha256", list.Encoded()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", list, strings.NewReader(string(data)))))
	push := func() digest.Digest {
		t.Helper()
		m, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{
			MediaType: ocispec.MediaTypeImageManifest, Content: []byte(referrer("new", image.Digest)), Sparse: true,
		})
		qt.Assert(t, qt.IsNil(err))
		return m.Digest
	}
	check := func() {
		t.Helper()
		for range 2 {
			_, err := s.StatBlob(ctx, "a", list)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(s.Close()))
			s = open(t, dir)
		}
	}
	check()
	other := push()
	check()
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", other))) // the list is the same as before
	check()
	wantListFile(t, filepath.Join(dir, "a"), schemaTag(image.Digest), signature.Digest)
	qt.Assert(t, qt.IsNil(s.DeleteManifest(ctx, "a", signature.Digest)))
	check()
}

// TestForeignAnnotations checks that a push keeps the annotations that another
// tool wrote, including those of lists and of tags that look like a list's.
func TestForeignAnnotations(t *testing.T) {
	subject := digest.FromString("subject")
	l := &foreignLayout{files: make(fstest.MapFS)}
	a := l.addReferrer("a", subject)
	tag := func(d ocispec.Descriptor, name string) {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: name, "written": "elsewhere"}
		l.entries = append(l.entries, d)
	}
	other := schemaTag(digest.FromString("other"))
	tag(l.addIndex(ocispec.MediaTypeImageIndex, "", a), schemaTag(subject))
	tag(l.addIndex(ocispec.MediaTypeImageIndex, ""), "example.com/a:"+other)
	tag(a, "example.com/a:tag")
	l.tag(a, "example.com/a:plain")
	dir := t.TempDir()
	l.write(t, filepath.Join(dir, "a"))
	s := open(t, dir)
	for i := range 2 {
		wantTags(t, s, "a", other, "plain", "tag")
		_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(fmt.Sprint(i))})
		qt.Assert(t, qt.IsNil(err))
		for _, name := range []string{schemaTag(subject), "example.com/a:" + other, "example.com/a:tag"} {
			entries := indexEntries(t, filepath.Join(dir, "a"), name)
			qt.Assert(t, qt.HasLen(entries, 1))
			qt.Check(t, qt.Equals(entries[0].Annotations["written"], "elsewhere"))
		}
		qt.Assert(t, qt.HasLen(indexEntries(t, filepath.Join(dir, "a"), "example.com/a:plain"), 1))
		qt.Assert(t, qt.IsNil(s.Close()))
		s = open(t, dir)
	}
}

// TestNoReferrers opens a directory for a registry without the referrers API: its
// clients find lists of referrers by their tags, and write them.
func TestNoReferrers(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	image, _, signature := pushImage(t, s, "a", "tag", 1)
	qt.Assert(t, qt.IsNil(s.Close()))

	s, err := ocidir.Open(dir, &ocidir.Options{NoReferrers: true})
	qt.Assert(t, qt.IsNil(err))
	tag := strings.Replace(image.Digest.String(), ":", "-", 1)
	list, err := s.GetTag(ctx, "a", tag)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(list.Content), signature.Digest.String()))
	// A client replaces the list when it has pushed another referrer.
	another := referrer("another", image.Digest)
	_, err = registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(another), Sparse: true})
	qt.Assert(t, qt.IsNil(err))
	replaced := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`
	_, err = registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte(replaced), Tags: []string{tag}})
	qt.Assert(t, qt.IsNil(err))
	list, err = s.GetTag(ctx, "a", tag)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(list.Content), replaced))
	qt.Assert(t, qt.IsNil(s.Close()))

	// With the API again, the clients' tag stays a tag, and the referrers are there.
	s = open(t, dir)
	_, err = s.GetTag(ctx, "a", tag)
	qt.Check(t, qt.IsNil(err))
	n := 0
	for _, err := range s.Referrers(ctx, "a", image.Digest, "") {
		qt.Assert(t, qt.IsNil(err))
		n++
	}
	qt.Check(t, qt.Equals(n, 2))
}
