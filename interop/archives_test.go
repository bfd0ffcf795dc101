// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestArchives passes archives of go-containerregistry and skopeo to berth load, and
// those of berth save to them.
func TestArchives(t *testing.T) {
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	s := newSkopeo(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(binary, args...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("berth %s: %s", strings.Join(args, " "), out))
		return string(out)
	}
	store := "dir:" + file("store")

	// go-containerregistry writes docker archives with compressed layers.
	image, err := random.Image(1000, 3)
	qt.Assert(t, qt.IsNil(err))
	want, err := image.ConfigName()
	qt.Assert(t, qt.IsNil(err))
	tag, err := name.NewTag("localhost:5000/team/app:v1")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(tarball.WriteToFile(file("ggcr.tar"), tag, image)))
	loaded := run("load", file("ggcr.tar"), "--to", store)
	digest := strings.Fields(loaded)[0]
	qt.Assert(t, qt.StringContains(digest, "team/app:v1@sha256:"))

	// Its tarball package reads what berth save writes for Docker.
	run("save", "team/app:v1", "--format=docker", "--from", store, "-o", file("docker.tar"))
	saved, err := name.NewTag("team/app:v1")
	qt.Assert(t, qt.IsNil(err))
	got, err := tarball.ImageFromPath(file("docker.tar"), &saved)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Image(got)))
	config, err := got.ConfigName()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(config, want))

	// Loaded again, both formats have the same digest.
	run("save", "team/app:v1", "--from", store, "-o", file("oci.tar.gz"))
	for _, archive := range []string{"docker.tar", "oci.tar.gz"} {
		again := run("load", file(archive), "--to", "dir:"+file("from-"+archive))
		qt.Check(t, qt.Equals(strings.Fields(again)[0], digest))
	}

	// skopeo reads both, and its archives are read.
	run("save", "team/app:v1", "--from", store, "-o", file("oci.tar"))
	s.run(t, "copy", "docker-archive:"+file("docker.tar")+":team/app:v1", "oci-archive:"+file("skopeo-oci.tar")+":team/app:v2")
	s.run(t, "copy", "oci-archive:"+file("oci.tar")+":v1", "docker-archive:"+file("skopeo-docker.tar")+":team/app:v3")
	qt.Check(t, qt.StringContains(run("load", file("skopeo-oci.tar"), "--to", store), "team/app:v2@sha256:"))
	qt.Check(t, qt.StringContains(run("load", file("skopeo-docker.tar"), "--to", store), "team/app:v3@sha256:"))
	run("save", "team/app:v3", "--format=docker", "--from", store, "-o", file("uncompressed.tar"))
	v3, err := name.NewTag("team/app:v3")
	qt.Assert(t, qt.IsNil(err))
	got, err = tarball.ImageFromPath(file("uncompressed.tar"), &v3)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(validate.Image(got)))
}
