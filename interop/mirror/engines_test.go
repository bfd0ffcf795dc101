// SPDX-License-Identifier: Apache-2.0

// docker, podman, skopeo, crane and BuildKit.

package mirror

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/berth-oci/registry/interop/internal/child"
)

func startDocker(t *testing.T, m *mirrored) engine {
	dir := child.SocketDir(t)
	host := "unix://" + dir + "/sock"
	child.StartDaemon(t, exec.Command("dockerd", "--config-file", m.write(t, dir, "/etc/docker/daemon.json"),
		"--data-root", dir+"/data", "--exec-root", dir+"/exec", "-p", dir+"/pid", "-H", host,
		"--storage-driver", "vfs", "--iptables=false", "--bridge=none"), "docker", "-H", host, "version")
	docker := func(args ...string) error { return run(t, nil, append([]string{"docker", "-H", host}, args...)...) }
	return engine{
		dockerIO: true,
		pull: func(image string) error {
			docker("rmi", "-f", image)
			return docker("pull", image)
		},
		push: func(image, to string) error {
			if err := docker("tag", image, to); err != nil {
				return err
			}
			defer docker("rmi", to)
			return docker("push", to)
		},
	}
}

func startPodman(t *testing.T, m *mirrored) engine {
	dir := t.TempDir()
	env := []string{"CONTAINERS_REGISTRIES_CONF=" + m.write(t, dir, "/etc/containers/registries.conf.d/berth.conf")}
	podman := func(args ...string) error {
		return run(t, env, append([]string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs"}, args...)...)
	}
	return engine{
		pull: func(image string) error {
			podman("rmi", "-f", image)
			return podman("pull", image)
		},
		push: func(image, to string) error { return podman("push", "--tls-verify=false", image, to) },
	}
}

func startSkopeo(t *testing.T, m *mirrored) engine {
	dir := t.TempDir()
	registries := m.write(t, dir, "/etc/containers/registries.conf.d/berth.conf")
	copied := 0
	to := func() string { return "dir:" + filepath.Join(dir, strconv.Itoa(copied)) }
	// As root, skopeo caches the locations of blobs for all users.
	env := []string{"_CONTAINERS_ROOTLESS_UID=1000", "XDG_DATA_HOME=" + dir}
	skopeo := func(args ...string) error {
		return run(t, env, append([]string{"skopeo", "--insecure-policy", "--registries-conf", registries}, args...)...)
	}
	return engine{
		pull: func(image string) error {
			copied++
			return skopeo("copy", "docker://"+image, to())
		},
		push: func(_, image string) error {
			return skopeo("copy", "--dest-tls-verify=false", to(), "docker://"+image)
		},
	}
}

// startCrane returns the library of crane, which the command consists of.
func startCrane(t *testing.T, m *mirrored) engine {
	return engine{
		pull: func(image string) error {
			return craneSave(t, m.host+"/"+strings.ReplaceAll(image, "example:", "example_"))
		},
		push: func(image, to string) error {
			pulled, err := cranePull(t, m.host+"/"+image)
			if err != nil {
				return err
			}
			return crane.Push(pulled, to, crane.WithContext(t.Context()))
		},
	}
}

// cranePull returns the image for this machine, whose layers have not been pulled.
func cranePull(t *testing.T, image string) (v1.Image, error) {
	return crane.Pull(image, crane.WithContext(t.Context()), crane.WithPlatform(&v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
}

// craneSave pulls an image into a folder.
func craneSave(t *testing.T, image string) error {
	pulled, err := cranePull(t, image)
	if err != nil {
		return err
	}
	return crane.SaveOCI(pulled, t.TempDir())
}

func startBuildKit(t *testing.T, m *mirrored) engine {
	dir := child.SocketDir(t)
	addr := "unix://" + dir + "/sock"
	child.StartDaemon(t, exec.Command("buildkitd", "--config", m.write(t, dir, "buildkitd.toml"), "--addr", addr, "--root", dir+"/root",
		"--containerd-worker=false", "--oci-worker=true", "--oci-worker-snapshotter=native"), "buildctl", "--addr", addr, "debug", "workers")
	build := func(image, output string) error {
		from := t.TempDir()
		err := os.WriteFile(filepath.Join(from, "Dockerfile"), []byte("FROM "+image+"\nCOPY Dockerfile /\n"), 0o600)
		qt.Assert(t, qt.IsNil(err))
		return run(t, nil, "buildctl", "--addr", addr, "build", "--frontend", "dockerfile.v0", "--local", "context="+from, "--local", "dockerfile="+from, "--output", output)
	}
	return engine{
		pull: func(image string) error {
			if err := run(t, nil, "buildctl", "--addr", addr, "prune", "--all"); err != nil {
				return err
			}
			return build(image, "type=oci,dest="+filepath.Join(t.TempDir(), "image.tar"))
		},
		push: func(image, to string) error {
			return build(image, "type=image,push=true,name="+to)
		},
	}
}
