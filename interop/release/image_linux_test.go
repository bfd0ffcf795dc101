// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry/registrytest"
)

var (
	distFlag = flag.String("dist", "", "the folder of the binaries for the image; by default the command is built for this platform")
	onlyFlag = flag.Bool("this-platform", false, "-dist has a binary for this platform only")
)

// TestImage makes the image of a release, pushes it to Berth, pulls it with
// skopeo, and runs its command like a container engine.
func TestImage(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("skopeo is not installed: apt-get install skopeo")
	}
	r, err := newRelease(repository(t))
	qt.Assert(t, qt.IsNil(err))
	r.binaries = binaries(t)

	// Make it twice, since it must be reproducible.
	layout := filepath.Join(t.TempDir(), "image")
	index, err := r.writeLayout(t.Context(), layout)
	qt.Assert(t, qt.IsNil(err))
	again, err := r.writeLayout(t.Context(), filepath.Join(t.TempDir(), "image"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(index.Digest, again.Digest))

	s := registrytest.NewServer(t)
	qt.Assert(t, qt.IsNil(registrytest.PushLayout(t.Context(), s.Store, "berth", os.DirFS(layout))))
	for platform := range r.binaries {
		_, arch, _ := strings.Cut(platform, "/")
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(skopeo, "--insecure-policy", "--override-os=linux", "--override-arch="+arch,
				"copy", "--src-tls-verify=false", "docker://"+s.Host+"/berth:"+r.version, "dir:"+dir)
			cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))

			var manifest ocispec.Manifest
			readJSON(t, filepath.Join(dir, "manifest.json"), &manifest)
			var config ocispec.Image
			readJSON(t, filepath.Join(dir, manifest.Config.Digest.Encoded()), &config)
			qt.Check(t, qt.Equals(config.Architecture, arch))
			qt.Check(t, qt.Equals(config.Config.User, "65532:65532"))
			qt.Check(t, qt.Equals(config.Config.Labels[ocispec.AnnotationRevision], r.revision))

			// If root runs this test, the folder becomes the command's root.
			root := filepath.Join(t.TempDir(), "root")
			qt.Assert(t, qt.IsNil(os.Mkdir(root, 0o755)))
			for _, layer := range manifest.Layers {
				extract(t, filepath.Join(dir, layer.Digest.Encoded()), root)
			}
			if arch == runtime.GOARCH {
				runImage(t, r, config.Config, root)
			}
		})
	}
}

// runImage runs the command of an image whose layers are in the folder root.
//
// If the test runs as root, the command runs in that folder as the image's user,
// who can write only to /data, as with docker run --read-only. Other users can't
// change the root folder.
func runImage(t *testing.T, r *release, config ocispec.ImageConfig, root string) {
	data, seen := filepath.Join(root, "data"), "/data"
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(root, config.Entrypoint[0]), args...)
		cmd.Dir = root
		cmd.Env = config.Env
		if os.Getuid() == 0 {
			cmd.Path, cmd.Dir = config.Entrypoint[0], "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: nonRoot, Gid: nonRoot}}
		}
		return cmd
	}
	args := config.Cmd
	if os.Getuid() == 0 {
		qt.Assert(t, qt.IsNil(os.Chmod(filepath.Join(root, "tmp"), 0o555)))
	} else {
		t.Log("not run by root: the command can access this machine's files")
		seen = data
		args = []string{"serve", "--store", "dir:" + data}
	}

	version, err := command("version").Output()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Matches(string(version), `berth (\S+) go1\..*\n`))
	if *distFlag != "" {
		qt.Check(t, qt.Equals(string(version), "berth "+r.version+" "+goVersion(t)+"\n"))
	}
	serve(t, command(args...), data, seen)
	_, err = os.Stat(filepath.Join(data, ".berth")) // the store's own folder
	qt.Check(t, qt.IsNil(err))
}

// binaries returns the berth command by platform.
func binaries(t *testing.T) map[string][]byte {
	t.Helper()
	dir, targets := *distFlag, platforms
	if dir == "" || *onlyFlag {
		targets = []string{"linux/" + runtime.GOARCH}
	}
	if dir == "" {
		dir = t.TempDir()
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "berth-linux-"+runtime.GOARCH), rootModule+"/cmd/berth")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the image has no libc
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	}
	found := make(map[string][]byte)
	for _, platform := range targets {
		if arch, ok := strings.CutPrefix(platform, "linux/"); ok {
			binary, err := os.ReadFile(filepath.Join(dir, "berth-linux-"+arch))
			qt.Assert(t, qt.IsNil(err))
			found[platform] = binary
		}
	}
	return found
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(json.Unmarshal(data, v)))
}

// extract extracts a layer of an image to dir, and checks that everything except
// /data belongs to root.
func extract(t *testing.T, layer, dir string) {
	t.Helper()
	f, err := os.Open(layer)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	z, err := gzip.NewReader(f)
	qt.Assert(t, qt.IsNil(err))
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		qt.Assert(t, qt.IsNil(err))
		owner := 0
		if h.Name == "data/" {
			owner = nonRoot
		}
		qt.Check(t, qt.Equals(h.Uid, owner), qt.Commentf("%s", h.Name))
		qt.Check(t, qt.IsTrue(h.ModTime.Before(time.Now())))
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			qt.Assert(t, qt.IsNil(os.Mkdir(name, 0o755)))
		} else {
			content, err := io.ReadAll(r)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(os.WriteFile(name, content, 0o644)))
		}
		qt.Assert(t, qt.IsNil(os.Chmod(name, h.FileInfo().Mode())))
		if os.Getuid() == 0 {
			qt.Assert(t, qt.IsNil(os.Chown(name, h.Uid, h.Gid)))
		}
	}
}
