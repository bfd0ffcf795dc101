// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-oci/registry/interop/internal/child"
)

func isContainerd2() bool { return strings.HasPrefix(version([]string{"containerd"}), " 2.") }

// startContainerd returns containerd's folder, which has a socket, and a function that runs
// ctr.
func startContainerd(t *testing.T, m *mirrored) (dir string, ctr func(args ...string) error) {
	t.Helper()
	dir = child.SocketDir(t)
	for file := range m.files {
		if rest, ok := strings.CutPrefix(file, "/etc/containerd/"); ok {
			m.write(t, filepath.Join(dir, filepath.Dir(rest)), file)
		}
	}
	config := filepath.Join(dir, "config.toml")
	format, images := 2, "io.containerd.grpc.v1.cri"
	if isContainerd2() {
		format, images = 3, "io.containerd.cri.v1.images"
	}
	text := fmt.Sprintf("version = %d\nroot = %q\nstate = %q\n[grpc]\naddress = %q\n[plugins.%q.registry]\nconfig_path = %q\n",
		format, dir+"/root", dir+"/state", dir+"/sock", images, dir+"/certs.d")
	qt.Assert(t, qt.IsNil(os.WriteFile(config, []byte(text), 0o600)))
	child.StartDaemon(t, exec.Command("containerd", "--config", config), "ctr", "--address", dir+"/sock", "version")
	return dir, func(args ...string) error {
		return run(t, nil, append([]string{"ctr", "--address", dir + "/sock"}, args...)...)
	}
}

func startCtr(t *testing.T, m *mirrored) engine {
	dir, ctr := startContainerd(t, m)
	return engine{
		pull: func(image string) error {
			ctr("images", "rm", "--sync", image)
			return ctr("images", "pull", "--hosts-dir", dir+"/certs.d", image)
		},
		push: func(image, to string) error {
			if err := ctr("images", "tag", image, to); err != nil {
				return err
			}
			defer ctr("images", "rm", "--sync", to)
			push := []string{"images", "push", "--plain-http", "--platform", "linux/" + runtime.GOARCH, to}
			if isContainerd2() {
				// Otherwise it would push the index without the other platform's image.
				push = slices.Insert(push, 2, "--local")
			}
			return ctr(push...)
		},
	}
}

// startCRI pulls as a kubelet does.
func startCRI(t *testing.T, m *mirrored) engine {
	dir, ctr := startContainerd(t, m)
	conn, err := grpc.NewClient("unix://"+dir+"/sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { conn.Close() })
	images := cri.NewImageServiceClient(conn)
	return engine{pull: func(image string) error {
		spec := &cri.ImageSpec{Image: image}
		if _, err := images.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: spec}); err != nil {
			return err
		}
		// That leaves the content to the next collection of garbage, which this waits for.
		if err := ctr("--namespace", "k8s.io", "leases", "create", "--id", "collect"); err != nil {
			return err
		}
		if err := ctr("--namespace", "k8s.io", "leases", "delete", "--sync", "collect"); err != nil {
			return err
		}
		_, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: spec})
		return err
	}}
}

// TestK3s reads the file for k3s, which makes a hosts.toml of it: k3s itself is not run.
func TestK3s(t *testing.T) {
	m := newMirrored(t)
	text, err := os.ReadFile(m.write(t, t.TempDir(), "/etc/rancher/k3s/registries.yaml"))
	qt.Assert(t, qt.IsNil(err))
	type mirror struct{ Endpoint []string }
	var file struct{ Mirrors map[string]mirror }
	qt.Assert(t, qt.IsNil(yaml.Unmarshal(text, &file)))
	here := mirror{[]string{"http://" + m.host}}
	qt.Check(t, qt.DeepEquals(file.Mirrors, map[string]mirror{"docker.io": here, otherRegistry: here}))
}
