// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/berth-oci/registry/registrytest"
)

// TestContainerd runs containerd with the files of docs/recipes.md, in which only the
// folder and the address of berth.example differ, and pulls as a kubelet and ctr do.
func TestContainerd(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("containerd is not installed: apt-get install containerd")
	}
	if os.Getuid() != 0 {
		t.Skip("containerd needs root: it mounts file systems")
	}
	s := registrytest.NewServer(t)
	image, err := registrytest.PushImage(t.Context(), s.Store, "app", "latest", randomImage(t))
	qt.Assert(t, qt.IsNil(err))

	dir := t.TempDir()
	hosts := recipe(t, "hosts.toml")
	qt.Assert(t, qt.StringContains(hosts, "http://berth.example:5000"))
	hosts = strings.ReplaceAll(hosts, "http://berth.example:5000", "http://"+s.Host)
	certs := filepath.Join(dir, "certs.d")
	writeFile(t, filepath.Join(certs, "berth.example:5000", "hosts.toml"), hosts)

	version, err := exec.Command(program, "--version").Output()
	qt.Assert(t, qt.IsNil(err))
	socket := startContainerd(t, program, dir, func() string {
		name := "containerd 1"
		if strings.Contains(string(version), " v2.") || strings.Contains(string(version), " 2.") {
			name = "containerd 2"
		}
		config := recipe(t, name)
		qt.Assert(t, qt.StringContains(config, `"/etc/containerd/certs.d"`))
		return strings.ReplaceAll(config, "/etc/containerd/certs.d", certs)
	}())

	// As a kubelet pulls.
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	qt.Assert(t, qt.IsNil(err))
	defer conn.Close()
	pulled, err := cri.NewImageServiceClient(conn).PullImage(t.Context(), &cri.PullImageRequest{
		Image: &cri.ImageSpec{Image: "berth.example:5000/app:latest"},
	}, grpc.WaitForReady(true))
	qt.Assert(t, qt.IsNil(err))
	status, err := cri.NewImageServiceClient(conn).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: pulled.ImageRef}})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNotNil(status.Image))
	qt.Check(t, qt.SliceContains(status.Image.RepoDigests, "berth.example:5000/app@"+image.Digest.String()))

	// As a person pulls and pushes.
	ctr := func(args ...string) {
		t.Helper()
		out, err := exec.Command("ctr", append([]string{"--address", socket}, args...)...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	}
	ctr("images", "pull", "--hosts-dir", certs, "berth.example:5000/app:latest")
	ctr("images", "tag", "berth.example:5000/app:latest", "berth.example:5000/pushed:latest")
	ctr("images", "push", "--hosts-dir", certs, "berth.example:5000/pushed:latest")
	m, err := s.Store.GetTag(t.Context(), "pushed", "latest")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(m.Digest, image.Digest))
}

// recipe returns the block of docs/recipes.md with the given comment.
func recipe(t *testing.T, comment string) string {
	t.Helper()
	for _, b := range blocks(t, filepath.Join(root, "docs", "recipes.md")) {
		if b.comment == comment {
			return b.code
		}
	}
	t.Fatalf("docs/recipes.md has no block with the comment %q", comment)
	panic("unreachable")
}

// startContainerd starts containerd with further settings, and returns its socket.
func startContainerd(t *testing.T, program, dir, settings string) string {
	t.Helper()
	version, settings, ok := strings.Cut(settings, "\n")
	qt.Assert(t, qt.IsTrue(ok && strings.HasPrefix(version, "version = ")))
	socket := filepath.Join(dir, "socket")
	config := filepath.Join(dir, "config.toml")
	writeFile(t, config, version+"\nroot = \""+dir+"/root\"\nstate = \""+dir+"/state\"\n[grpc]\naddress = \""+socket+"\"\n"+settings)
	log, err := os.Create(filepath.Join(dir, "log"))
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command(program, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	qt.Assert(t, qt.IsNil(cmd.Start()))
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s", text)
		}
	})
	for range 500 {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	if strings.Contains(string(text), "operation not permitted") {
		t.Skipf("containerd can't run here: %s", text)
	}
	t.Fatalf("containerd does not listen: %s", text)
	panic("unreachable")
}

// randomImage returns an image for this machine, with layers that can be unpacked.
func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(10_000, 3)
	qt.Assert(t, qt.IsNil(err))
	config, err := image.ConfigFile()
	qt.Assert(t, qt.IsNil(err))
	config = config.DeepCopy()
	config.OS, config.Architecture = runtime.GOOS, runtime.GOARCH
	image, err = mutate.ConfigFile(image, config)
	qt.Assert(t, qt.IsNil(err))
	return image
}
