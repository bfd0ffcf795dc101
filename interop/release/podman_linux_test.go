// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// TestPodman runs the image in a container as deploy does: read-only, as its own user,
// without capabilities. It is skipped where podman can't run containers, as in many
// containers; TestImage runs the command without.
func TestPodman(t *testing.T) {
	podman, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("podman is not installed: apt-get install podman runc")
	}
	r, err := newRelease(repository(t))
	qt.Assert(t, qt.IsNil(err))
	r.binaries = binaries(t)
	layout := filepath.Join(t.TempDir(), "image")
	_, err = r.writeLayout(t.Context(), layout)
	qt.Assert(t, qt.IsNil(err))

	storage := t.TempDir()
	run := func(args ...string) ([]byte, error) {
		// vfs needs no support by the kernel. runc knows all kinds of control groups.
		cmd := exec.Command(podman, append([]string{"--root", filepath.Join(storage, "root"), "--runroot", filepath.Join(storage, "run"),
			"--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"}, args...)...)
		cmd.Dir = filepath.Dir(layout) // podman takes an absolute path for a part of the image's name
		return cmd.CombinedOutput()
	}
	t.Cleanup(func() { run("unshare", "rm", "-rf", filepath.Join(storage, "root")) }) // files of other users, if this one is not root
	if out, err := run("pull", "--quiet", "oci:image:"+r.version); err != nil {
		t.Skipf("podman can't pull here: %v: %s", err, out)
	}
	tagged, err := run("images", "--quiet", "--no-trunc")
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", tagged))
	id := string(bytes.TrimSpace(tagged))

	flags := []string{"run", "--rm", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges",
		"--network=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"}
	if out, err := run(append(flags, id, "version")...); err != nil {
		t.Skipf("podman can't run containers here: %v: %s", err, out)
	} else {
		qt.Check(t, qt.Matches(string(out), `berth (\S+) go1\..*\n`))
	}

	// A volume of the image's own, which belongs to its user.
	name := "berth-" + filepath.Base(storage)
	out, err := run(append(append(flags, "--detach", "--name", name), id, "serve", "--addr=127.0.0.1:0", "--store=dir:/data", "--addr-file=/data/addr")...)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			run("rm", "--force", name)
		}
	})
	addr := ""
	for range 500 {
		if out, err := run("cp", name+":/data/addr", filepath.Join(storage, "addr")); err == nil {
			text, err := os.ReadFile(filepath.Join(storage, "addr"))
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
			addr = string(bytes.TrimSpace(text))
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	resp, err := http.Get("http://" + addr + "/readyz")
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 200))
	top, err := run("top", name, "huser")
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", top))
	qt.Check(t, qt.Matches(string(top), `HUSER\s+65532\s+`))
	out, err = run("stop", name)
	stopped = err == nil
	qt.Check(t, qt.IsNil(err), qt.Commentf("%s", out))
}
