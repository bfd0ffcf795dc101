// SPDX-License-Identifier: Apache-2.0

// Tests of the lists of tags and repositories.

package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// testLists checks that tags and repositories are listed in byte order, from the
// start and after each name.
func testLists(t *testing.T, s tester) {
	wantListError(t, s.Tags(s.ctx, "a", ""), registry.ErrNameUnknown)
	wantNames(t, s.Repositories(s.ctx, ""))
	tags := []string{"10", "9", "A", "_", "a", "a-b", "a.b", "a_b", "aa"} // in byte order
	repos := []string{"a", "a-b/c", "a/b", "a/b/c", "a0", "z"}
	for _, i := range []int{3, 0, 5, 1, 4, 2} {
		s.put(t, repos[i], manifest("m"), tags...)
	}
	for i, name := range append([]string{""}, tags...) {
		wantNames(t, s.Tags(s.ctx, "a", name), tags[i:]...)
	}
	for i, name := range append([]string{""}, repos...) {
		wantNames(t, s.Repositories(s.ctx, name), repos[i:]...)
	}
	wantNames(t, s.Tags(s.ctx, "a", "a-"), tags[5:]...)
	wantNames(t, s.Tags(s.ctx, "a", "zzz"))
	wantNames(t, s.Repositories(s.ctx, "a/"), repos[2:]...)
}

// testListDuringChanges checks that a list yields each name that exists throughout,
// once, while other names are added.
func testListDuringChanges(t *testing.T, s tester) {
	var want []string
	for i := range 300 {
		tag := fmt.Sprintf("%03d", i)
		want = append(want, tag)
		s.put(t, "a", manifest("m"), tag)
	}
	var got []string
	for tag, err := range s.Tags(s.ctx, "a", "") {
		check(t, err, nil)
		if strings.HasSuffix(tag, "new") {
			continue
		}
		got = append(got, tag)
		if len(got)%10 == 0 {
			s.put(t, "a", manifest("m"), tag+"new")
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("got %d names, want %d: %q", len(got), len(want), got)
	}
}

// testRepositoryLifetime checks that a repository exists while it holds a blob or a
// manifest.
func testRepositoryLifetime(t *testing.T, s tester) {
	d := s.push(t, "blob", "data")
	m := s.put(t, "manifest", manifest("m"), "tag")
	wantNames(t, s.Repositories(s.ctx, ""), "blob", "manifest")
	wantNames(t, s.Tags(s.ctx, "blob", ""))
	check(t, s.DeleteTag(s.ctx, "manifest", "tag", nil), nil)
	wantNames(t, s.Repositories(s.ctx, ""), "blob", "manifest")
	check(t, s.DeleteManifest(s.ctx, "manifest", m.Digest), nil)
	check(t, s.DeleteBlob(s.ctx, "blob", d), nil)
	wantNames(t, s.Repositories(s.ctx, ""))
	wantListError(t, s.Tags(s.ctx, "manifest", ""), registry.ErrNameUnknown)
}
