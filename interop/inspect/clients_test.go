// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/berth-oci/registry/interop/internal/child"
)

// TestClients pushes and pulls with real clients, while the page is open.
func TestClients(t *testing.T) {
	run(t, []journey{
		{
			name: "a push with crane appears in the open page",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				v.see("No requests yet", "docker push "+v.Addr+"/app:v1", "live")
				stays := v.mark()
				push(t, v.Addr+"/team/app:v1", smallImage(t, 3))
				v.see("go-containerregistry push team/app:v1", "1 manifest, 4 blobs", "push a manifest", "upload a chunk")
				v.gone("No requests yet")
				stays()
			},
		},
		{
			name: "a second push says how many blobs were already there",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				push(t, v.Addr+"/app:v1", smallImage(t, 3))
				push(t, v.Addr+"/app:v2", smallImage(t, 7))
				v.see("go-containerregistry push app:v1", "go-containerregistry push app:v2", "1 manifest, 5 blobs, 3 already there")
			},
		},
		{
			name: "a pull with crane is a group of its own, and a missing tag is counted as failed",
			run: func(t *testing.T, v *visit) {
				push(t, v.Addr+"/app:v1", smallImage(t, 2))
				v.open("timeline")
				v.see("go-containerregistry push app:v1")
				image, err := crane.Pull(v.Addr + "/app:v1")
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(crane.SaveOCI(image, t.TempDir())))
				v.see("go-containerregistry pull app:v1", "1 manifest, 3 blobs")
				_, err = crane.Manifest(v.Addr + "/other:none")
				qt.Assert(t, qt.IsNotNil(err))
				v.see("go-containerregistry pull other:none", "1 failed")
				qt.Check(t, qt.DeepEquals(without(v.groups(), "Go program check the API"), []string{
					"go-containerregistry pull other:none", "go-containerregistry pull app:v1", "go-containerregistry push app:v1",
				}))
			},
		},
		{
			name: "oras pushes and pulls",
			run: func(t *testing.T, v *visit) {
				v.open("timeline")
				repo, err := remote.NewRepository(v.Addr + "/charts/web")
				qt.Assert(t, qt.IsNil(err))
				repo.PlainHTTP = true
				from, err := oci.New(saved(t, smallImage(t, 2)))
				qt.Assert(t, qt.IsNil(err))
				_, err = oras.Copy(t.Context(), from, "latest", repo, "1.0", oras.DefaultCopyOptions)
				qt.Assert(t, qt.IsNil(err))
				v.see("oras push charts/web:1.0", "1 manifest, 3 blobs")
				to, err := oci.New(t.TempDir())
				qt.Assert(t, qt.IsNil(err))
				_, err = oras.Copy(t.Context(), repo, "1.0", to, "", oras.DefaultCopyOptions)
				qt.Assert(t, qt.IsNil(err))
				v.see("oras pull charts/web:1.0")
			},
		},
		{
			name: "skopeo pushes and pulls",
			run: func(t *testing.T, v *visit) {
				skopeo := program(t, "skopeo")
				v.open("timeline")
				skopeo("--insecure-policy", "copy", "--dest-tls-verify=false", "oci:"+saved(t, smallImage(t, 2))+":latest", "docker://"+v.Addr+"/app:v1")
				v.see("skopeo push app:v1", "1 manifest, 3 blobs")
				skopeo("--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+v.Addr+"/app:v1", "dir:"+t.TempDir())
				v.see("skopeo pull app:v1")
			},
		},
		{
			name: "docker push and docker pull",
			run: func(t *testing.T, v *visit) {
				docker := startDocker(t)
				image := v.Addr + "/app:v1"
				archive := filepath.Join(t.TempDir(), "image.tar")
				qt.Assert(t, qt.IsNil(crane.Save(smallImage(t, 3), image, archive)))
				docker("load", "-i", archive)
				v.open("timeline")
				docker("push", image)
				v.see("docker push app:v1", "1 manifest, 4 blobs")
				docker("rmi", image)
				docker("pull", image)
				v.see("docker pull app:v1", "1 manifest")
			},
		},
	})
}

// smallImage returns an image with n layers, each of which has a file. The first layers of
// two images are the same.
func smallImage(t *testing.T, n int) v1.Image {
	t.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i := range n {
		var err error
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:     layer(t, fmt.Sprintf("etc/file%d", i), strings.Repeat("x", 1000*i+1)),
			MediaType: types.OCILayer,
		})
		qt.Assert(t, qt.IsNil(err))
	}
	config, err := image.ConfigFile()
	qt.Assert(t, qt.IsNil(err))
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	image, err = mutate.ConfigFile(image, config)
	qt.Assert(t, qt.IsNil(err))
	return image
}

// push pushes an image with crane.
func push(t *testing.T, ref string, image v1.Image) {
	t.Helper()
	qt.Assert(t, qt.IsNil(crane.Push(image, ref, crane.WithContext(t.Context()))))
}

// saved returns an OCI image layout with an image, whose tag is latest.
func saved(t *testing.T, image v1.Image) string {
	t.Helper()
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(l.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "latest"}))))
	return dir
}

// send sends a request, as no client does.
func send(t *testing.T, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	qt.Assert(t, qt.IsNil(err))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// body returns the body of a response.
func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	return string(data)
}

// without returns a list without some of its elements.
func without(list []string, unwanted string) (rest []string) {
	for _, s := range list {
		if s != unwanted {
			rest = append(rest, s)
		}
	}
	return rest
}

// program returns a function that runs a program and returns its output. The test is skipped
// if the program is missing.
func program(t *testing.T, name string, args ...string) func(...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" && name != "dockerd" && name != "docker" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return func(more ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, append(args[:len(args):len(args)], more...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", cmd, &stderr))
		return string(out)
	}
}

// startDocker starts dockerd, and returns a function that runs docker. The test is skipped
// where dockerd can't run.
func startDocker(t *testing.T) func(...string) string {
	t.Helper()
	program(t, "dockerd")
	dir := child.SocketDir(t)
	host := "unix://" + dir + "/sock"
	docker := program(t, "docker", "-H", host)
	config := filepath.Join(dir, "daemon.json")
	qt.Assert(t, qt.IsNil(os.WriteFile(config, []byte("{}"), 0o644)))
	child.StartDaemon(t, exec.Command("dockerd", "--config-file", config, "--data-root", dir+"/data", "--exec-root", dir+"/exec",
		"-p", dir+"/pid", "-H", host, "--storage-driver", "vfs", "--iptables=false", "--ip6tables=false", "--bridge=none"), "docker", "-H", host, "version")
	return docker
}
