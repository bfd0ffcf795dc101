// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/interop/internal/child"
)

// TestEngines loads what berth save writes into podman and into a docker daemon, and
// what they save into berth: the image keeps its ID, the digest of its configuration.
func TestEngines(t *testing.T) {
	engines := map[string]func(t *testing.T) []string{
		"podman": func(t *testing.T) []string {
			if _, err := exec.LookPath("podman"); err != nil {
				t.Skip("podman is not installed")
			}
			dir := t.TempDir()
			return []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}
		},
		"docker": startDocker,
	}
	binary, err := berth.Build()
	qt.Assert(t, qt.IsNil(err))
	for name, start := range engines {
		t.Run(name, func(t *testing.T) {
			engine := start(t)
			dir := t.TempDir()
			store := "dir:" + filepath.Join(dir, "store")
			run := func(args ...string) string {
				t.Helper()
				out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", strings.Join(args, " "), out))
				return string(out)
			}
			for _, c := range []string{"image", "docker"} {
				content := contents()[c]
				host := newServer(t)
				content.seed(t, host, "team/app")
				run(binary, "copy", "http://"+host, store)
				saved, again := filepath.Join(dir, c+".tar"), filepath.Join(dir, c+"-again.tar")
				run(binary, "save", "team/app:"+c, "--format=docker", "--from", store, "-o", saved)
				run(append(engine[:len(engine):len(engine)], "load", "-i", saved)...)
				image := strings.Fields(run(append(engine[:len(engine):len(engine)], "images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}", "--no-trunc")...))
				qt.Assert(t, qt.Equals(len(image)%2, 0), qt.Commentf("%q", image))
				full := ""
				for n := 0; n < len(image); n += 2 {
					if strings.HasSuffix(image[n], "team/app:"+c) {
						full = image[n]
						qt.Check(t, qt.Equals("sha256:"+strings.TrimPrefix(image[n+1], "sha256:"), string(content.blobs[0].Digest)))
					}
				}
				qt.Assert(t, qt.Not(qt.Equals(full, "")), qt.Commentf("%q", image))

				run(append(engine[:len(engine):len(engine)], "save", "-o", again, full)...)
				loaded := filepath.Join(dir, c+"-loaded")
				qt.Check(t, qt.StringContains(run(binary, "load", again, "--to", "dir:"+loaded), "team/app:"+c+"@sha256:"))
				run(binary, "save", "team/app:"+c, "--format=docker", "--from", "dir:"+loaded, "-o", filepath.Join(dir, c+"-last.tar"))
				qt.Check(t, qt.Equals(savedConfig(t, filepath.Join(dir, c+"-last.tar")), savedConfig(t, saved)))
			}
		})
	}
}

// savedConfig returns the file of the configuration of the only image in an archive.
func savedConfig(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	qt.Assert(t, qt.IsNil(err))
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := archive.Next()
		qt.Assert(t, qt.IsNil(err))
		if h.Name != "manifest.json" {
			continue
		}
		content, err := io.ReadAll(archive)
		qt.Assert(t, qt.IsNil(err))
		var images []struct{ Config string }
		qt.Assert(t, qt.IsNil(json.Unmarshal(content, &images)))
		qt.Assert(t, qt.HasLen(images, 1))
		return images[0].Config
	}
}

// startDocker starts a docker daemon, and returns the command of its client.
func startDocker(t *testing.T) []string {
	for _, program := range []string{"dockerd", "docker"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	dir := child.SocketDir(t)
	host := "unix://" + dir + "/sock"
	child.StartDaemon(t, exec.Command("dockerd", "--data-root", dir+"/data", "--exec-root", dir+"/exec", "-p", dir+"/pid", "-H", host,
		"--storage-driver", "vfs", "--iptables=false", "--bridge=none"), "docker", "-H", host, "version")
	return []string{"docker", "-H", host}
}
