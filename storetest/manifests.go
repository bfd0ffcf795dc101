// SPDX-License-Identifier: Apache-2.0

// Tests of manifests, tags and referrers.

package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// testManifests stores and reads manifests, by digest and by tag, and checks the
// errors for unknown ones.
func testManifests(t *testing.T, s tester) {
	m := manifest("{ \"any\":\n\"bytes\" }")
	_, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, registry.ErrNameUnknown)
	_, err = s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrNameUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", m.Digest), registry.ErrNameUnknown)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), registry.ErrNameUnknown)

	s.put(t, "a", m)
	got, err := s.GetManifest(s.ctx, "a", m.Digest)
	check(t, err, nil)
	wantManifest(t, got, m)
	_, err = s.GetManifest(s.ctx, "a", unknown)
	check(t, err, registry.ErrManifestUnknown)
	_, err = s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrManifestUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", unknown), registry.ErrManifestUnknown)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), registry.ErrManifestUnknown)
	wantNames(t, s.Tags(s.ctx, "a", ""))

	s.put(t, "a", m, "one", "two")
	s.wantTag(t, "a", "one", m)
	s.wantTag(t, "a", "two", m)
	s.put(t, "b", manifest("b"))
	_, err = s.GetManifest(s.ctx, "b", m.Digest)
	check(t, err, registry.ErrManifestUnknown)

	sha512 := m
	sha512.Digest = digest.SHA512.FromBytes(m.Content)
	s.put(t, "a", sha512, "two")
	s.wantTag(t, "a", "two", sha512)
	s.wantTag(t, "a", "one", m)
}

// testPushOtherType pushes a digest that the repository has with another media
// type, or with other content, as the signatures of a Docker schema 1 manifest
// are: the push is rejected and changes nothing.
func testPushOtherType(t *testing.T, s tester) {
	old := s.put(t, "a", manifest("m"), "old")
	other := s.put(t, "a", manifest("other"), "tag")
	otherType, otherContent := old, old
	otherType.MediaType = "application/x-poison"
	otherContent.Content = []byte("m with other signatures")
	for _, m := range []registry.Manifest{otherType, otherContent} {
		m.Subject = other.Digest
		m.Referrer = registry.Referrer{Digest: m.Digest, Descriptor: []byte("{}")}
		check(t, s.PutManifest(s.ctx, "a", m, nil, nil), registry.ErrManifestInvalid)
		check(t, s.PutManifest(s.ctx, "a", m, []string{"new", "old", "tag"}, nil), registry.ErrManifestInvalid)
		allow := func(string, digest.Digest) error { return nil }
		check(t, s.PutManifest(s.ctx, "a", m, []string{"new", "old", "tag"}, allow), registry.ErrManifestInvalid)
	}
	wantNames(t, s.Tags(s.ctx, "a", ""), "old", "tag")
	s.wantTag(t, "a", "old", old)
	s.wantTag(t, "a", "tag", other)
	if list := collect(t, s.Referrers(s.ctx, "a", other.Digest, "")); len(list) > 0 {
		t.Fatalf("a rejected push added referrers: %v", list)
	}
	s.put(t, "a", old, "again")

	// Another repository may have it, and after a delete so may this one.
	s.put(t, "b", otherType)
	s.put(t, "c", otherContent)
	check(t, s.DeleteManifest(s.ctx, "a", old.Digest), nil)
	s.put(t, "a", otherType, "new")
	s.wantTag(t, "a", "new", otherType)
}

// testDeleteManifest checks that a manifest is deleted with the tags that point at
// it, and that pushing it again does not restore them.
func testDeleteManifest(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "a", "b", "moved")
	two := s.put(t, "a", manifest("two"), "c", "moved")
	check(t, s.DeleteManifest(s.ctx, "a", one.Digest), nil)
	wantNames(t, s.Tags(s.ctx, "a", ""), "c", "moved")
	s.wantTag(t, "a", "moved", two)
	_, err := s.GetManifest(s.ctx, "a", one.Digest)
	check(t, err, registry.ErrManifestUnknown)
	check(t, s.DeleteManifest(s.ctx, "a", one.Digest), registry.ErrManifestUnknown)
	s.put(t, "a", one)
	wantNames(t, s.Tags(s.ctx, "a", ""), "c", "moved") // the tags are not restored
}

// testMoveTags moves and deletes tags, and checks that the manifests stay.
func testMoveTags(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "tag", "other")
	two := s.put(t, "a", manifest("two"), "tag")
	s.wantTag(t, "a", "tag", two)
	s.wantTag(t, "a", "other", one)
	check(t, s.DeleteTag(s.ctx, "a", "tag", nil), nil)
	_, err := s.GetTag(s.ctx, "a", "tag")
	check(t, err, registry.ErrManifestUnknown)
	got, err := s.GetManifest(s.ctx, "a", two.Digest)
	check(t, err, nil)
	wantManifest(t, got, two)
}

// testAllowTags checks that PutManifest and DeleteTag call their AllowFunc with the
// current digest, and that its error rejects the entire operation.
func testAllowTags(t *testing.T, s tester) {
	one := s.put(t, "a", manifest("one"), "tag")
	two := manifest("two")
	current := make(map[string]digest.Digest) // the digest for each call of the AllowFunc, by tag
	err := s.PutManifest(s.ctx, "a", two, []string{"new", "tag"}, func(tag string, d digest.Digest) error {
		current[tag] = d
		if d != "" {
			return registry.ErrDenied
		}
		return nil
	})
	check(t, err, registry.ErrDenied)
	if current["tag"] != one.Digest {
		t.Fatalf("got %s as the tag's current digest, want %s", current["tag"], one.Digest)
	}
	// No part of the push took effect.
	s.wantTag(t, "a", "tag", one)
	_, err = s.GetTag(s.ctx, "a", "new")
	check(t, err, registry.ErrManifestUnknown)

	deny := func(string, digest.Digest) error { return registry.ErrDenied }
	check(t, s.DeleteTag(s.ctx, "a", "tag", deny), registry.ErrDenied)
	s.wantTag(t, "a", "tag", one)
	check(t, s.PutManifest(s.ctx, "new", two, []string{"tag"}, deny), registry.ErrDenied)
	wantNames(t, s.Repositories(s.ctx, ""), "a")
	check(t, s.PutManifest(s.ctx, "a", two, []string{"tag"}, func(string, digest.Digest) error { return nil }), nil)
	s.wantTag(t, "a", "tag", two)
}

// testReferrers checks the referrers of a subject, from the start and after each
// digest, and after deletes.
func testReferrers(t *testing.T, s tester) {
	subject := digest.FromString("subject")
	list := func(repo string, subject, after digest.Digest) (digests []digest.Digest) {
		for _, d := range collect(t, s.Referrers(s.ctx, repo, subject, after)) {
			digests = append(digests, d.Digest)
		}
		return digests
	}
	if got := list("a", subject, ""); got != nil {
		t.Fatalf("got %v in an unknown repository, want none", got)
	}
	config := s.push(t, "a", "data")
	var want []digest.Digest
	all := make(map[digest.Digest]registry.Referrer)
	for i := range 5 {
		// PushManifest makes the Referrer, since a store may parse the content
		// instead.
		mediaType := ocispec.MediaTypeImageManifest
		content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.%d","config":{"mediaType":"x/y","size":4,"digest":%q},"layers":[],"subject":{"mediaType":"x/y","size":1,"digest":%q},"annotations":{"n":"%d"}}`,
			mediaType, i, config, subject, i)
		m, err := registry.PushManifest(s.ctx, s, "a", registry.ManifestPush{MediaType: mediaType, Content: []byte(content), Tags: []string{fmt.Sprint(i)}})
		check(t, err, nil)
		want = append(want, m.Digest)
		all[m.Digest] = m.Referrer
	}
	slices.Sort(want)
	if got := list("a", subject, ""); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for _, d := range collect(t, s.Referrers(s.ctx, "a", subject, "")) {
		w := all[d.Digest]
		if d.ArtifactType != w.ArtifactType || string(d.Descriptor) != string(w.Descriptor) {
			t.Fatalf("got %s %s, want %s %s", d.ArtifactType, d.Descriptor, w.ArtifactType, w.Descriptor)
		}
	}
	for i, d := range want {
		if got := list("a", subject, d); !slices.Equal(got, want[i+1:]) {
			t.Fatalf("after %s: got %v, want %v", d, got, want[i+1:])
		}
	}
	s.put(t, "b", manifest("m"))
	if got := list("b", subject, ""); got != nil {
		t.Fatalf("got %v in another repository, want none", got)
	}
	if got := list("a", unknown, ""); got != nil {
		t.Fatalf("got %v for another subject, want none", got)
	}
	// Deleting a tag keeps the referrer; deleting the manifest removes it.
	check(t, s.DeleteTag(s.ctx, "a", "0", nil), nil)
	check(t, s.DeleteManifest(s.ctx, "a", want[2]), nil)
	if got := list("a", subject, ""); !slices.Equal(got, slices.Delete(slices.Clone(want), 2, 3)) {
		t.Fatalf("after the deletes: got %v, want all of %v but %s", got, want, want[2])
	}
}
