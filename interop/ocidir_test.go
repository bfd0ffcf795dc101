// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

// TestLayouts has other tools write layouts to the directory of a registry that
// is at work, which serves them, and read those that it wrote.
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

	// go-containerregistry writes, we serve.
	first, err := random.Image(1000, 3)
	qt.Assert(t, qt.IsNil(err))
	path, err := layout.Write(filepath.Join(dir, "theirs"), empty.Index)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(path.AppendImage(first, name("first"))))
	qt.Check(t, qt.Equals(digestOf(pull("theirs:first")), digestOf(first)))

	// We write to that layout, it reads; it writes again, we serve.
	second, err := random.Image(1000, 2)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(crane.Push(second, host+"/theirs:second")))
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
		qt.Check(t, qt.Equals(digestOf(pull("theirs:"+tag)), digestOf(image)))
	}

	// The same by skopeo.
	skopeo := newSkopeo(t)
	run := func(from, to string) {
		t.Helper()
		skopeo.run(t, "copy", "--src-tls-verify=false", from, to)
	}
	qt.Assert(t, qt.IsNil(os.Mkdir(filepath.Join(dir, "by"), 0o777)))
	run("docker://"+host+"/theirs:first", "oci:"+filepath.Join(dir, "by", "skopeo")+":tag")
	pull("by/skopeo:tag")
	// It looks for no Docker types in a layout.
	second = mutate.ConfigMediaType(mutate.MediaType(second, types.OCIManifestSchema1), types.OCIConfigJSON)
	qt.Assert(t, qt.IsNil(crane.Push(second, host+"/by/skopeo:second")))
	run("oci:"+filepath.Join(dir, "by", "skopeo")+":second", "oci:"+filepath.Join(dir, "again")+":tag")
	pull("again:tag")
}
