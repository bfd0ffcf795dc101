// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// TestLayouts shares a directory between a running registry and other tools. The
// registry serves the layouts that the tools write, and they read the layouts
// that it writes.
func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	store, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	defer store.Close()
	s := httptest.NewServer(registry.New(registry.WithStore(store)))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	pull := func(ref string) v1.Image {
		t.Helper()
		image, err := crane.Pull(host + "/" + ref)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(validate.Image(image)))
		return image
	}
	digestOf := func(image v1.Image) v1.Hash {
		t.Helper()
		d, err := image.Digest()
		qt.Assert(t, qt.IsNil(err))
		return d
	}
	name := func(tag string) layout.Option {
		return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": tag})
	}

	// go-containerregistry writes a layout, and the registry serves it.
	first, err := random.Image(1000, 3)
	qt.Assert(t, qt.IsNil(err))
	path, err := layout.Write(filepath.Join(dir, "ggcr"), empty.Index)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(path.AppendImage(first, name("first"))))
	qt.Check(t, qt.Equals(digestOf(pull("ggcr:first")), digestOf(first)))

	// The registry writes to that layout, and go-containerregistry reads it and
	// writes to it again.
	second, err := random.Image(1000, 2)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(crane.Push(second, host+"/ggcr:second")))
	qt.Assert(t, qt.IsNil(store.Fold(t.Context())))
	index, err := path.ImageIndex()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Index(index)))
	got, err := index.Image(digestOf(second))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Image(got)))
	third, err := random.Image(1000, 1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(path.AppendImage(third, name("third"))))
	for tag, image := range map[string]v1.Image{"first": first, "second": second, "third": third} {
		qt.Check(t, qt.Equals(digestOf(pull("ggcr:"+tag)), digestOf(image)))
	}

	// The same with skopeo.
	skopeo := newSkopeo(t)
	run := func(from, to string) {
		t.Helper()
		skopeo.run(t, "copy", "--src-tls-verify=false", from, to)
	}
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "nested"), 0o777)))
	run("docker://"+host+"/ggcr:first", "oci:"+filepath.Join(dir, "nested", "skopeo")+":tag")
	pull("nested/skopeo:tag")
	// skopeo ignores Docker media types in a layout.
	second = mutate.ConfigMediaType(mutate.MediaType(second, types.OCIManifestSchema1), types.OCIConfigJSON)
	qt.Assert(t, qt.IsNil(crane.Push(second, host+"/nested/skopeo:second")))
	qt.Assert(t, qt.IsNil(store.Fold(t.Context())))
	run("oci:"+filepath.Join(dir, "nested", "skopeo")+":second", "oci:"+filepath.Join(dir, "again")+":tag")
	pull("again:tag")
}

// TestSkopeoBesidePushes has skopeo copy images into a layout to which clients push
// at the same time: no tag of either is lost, and no request fails.
func TestSkopeoBesidePushes(t *testing.T) {
	skopeo := newSkopeo(t)
	dir := t.TempDir()
	store, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	defer store.Close()
	s := httptest.NewServer(registry.New(registry.WithStore(store)))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	push := func(tag string) string {
		t.Helper()
		image, err := random.Image(100, 1)
		qt.Assert(t, qt.IsNil(err))
		image = mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON)
		qt.Assert(t, qt.IsNil(crane.Push(image, host+"/shared:"+tag)))
		d, err := image.Digest()
		qt.Assert(t, qt.IsNil(err))
		return d.String()
	}
	want := map[string]string{"first": push("first")}
	from := "docker://" + host + "/shared:first"

	var copies sync.WaitGroup
	copies.Go(func() {
		for i := range 12 {
			skopeo.run(t, "copy", "--src-tls-verify=false", from, fmt.Sprintf("oci:%s:skopeo-%d", filepath.Join(dir, "shared"), i))
		}
	})
	for i := range 200 {
		tag := fmt.Sprint("push-", i)
		want[tag] = push(tag)
	}
	copies.Wait()
	for i := range 12 {
		want[fmt.Sprint("skopeo-", i)] = want["first"]
	}
	check := func() {
		t.Helper()
		tags, err := crane.ListTags(host + "/shared")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(tags, len(want)))
		for tag, d := range want {
			got, err := crane.Digest(host + "/shared:" + tag)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, d), qt.Commentf("%s", tag))
		}
	}
	check()
	qt.Assert(t, qt.IsNil(store.Fold(t.Context())))
	check()
	path, err := layout.FromPath(filepath.Join(dir, "shared"))
	qt.Assert(t, qt.IsNil(err))
	index, err := path.ImageIndex()
	qt.Assert(t, qt.IsNil(err))
	manifest, err := index.IndexManifest()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(manifest.Manifests, len(want)))
}
