// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerdConfig has the settings of containerd 1 and 2. It names the folder of the files
// hosts.toml for the CRI.
const containerdConfig = `version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
address = "DIR/sock"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "DIR/certs.d"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "DIR/certs.d"
`

// startContainerd returns containerd's folder, which has a socket, and a function that runs
// ctr.
func startContainerd(t *testing.T, m *mirrored) (dir string, ctr func(args ...string) error) {
	t.Helper()
	dir = shortDir(t)
	m.write(t, dir+"/certs.d/docker.io", "/etc/containerd/certs.d/docker.io/hosts.toml")
	config := filepath.Join(dir, "config.toml")
	text := strings.ReplaceAll(containerdConfig, "DIR", dir)
	qt.Assert(t, qt.IsNil(os.WriteFile(config, []byte(text), 0o600)))
	startDaemon(t, exec.Command("containerd", "--config", config), "ctr", "--address", dir+"/sock", "version")
	return dir, func(args ...string) error {
		return run(t, nil, append([]string{"ctr", "--address", dir + "/sock"}, args...)...)
	}
}

func startCtr(t *testing.T, m *mirrored) engine {
	dir, ctr := startContainerd(t, m)
	return engine{
		pull: func(image string) error {
			ctr("images", "rm", "--sync", "docker.io/"+image)
			return ctr("images", "pull", "--hosts-dir", dir+"/certs.d", "docker.io/"+image)
		},
		push: func(image, to string) error {
			if err := ctr("images", "tag", "docker.io/"+image, to); err != nil {
				return err
			}
			defer ctr("images", "rm", "--sync", to)
			return ctr("images", "push", "--plain-http", "--platform", "linux/"+runtime.GOARCH, to)
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
		spec := &cri.ImageSpec{Image: "docker.io/" + image}
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
