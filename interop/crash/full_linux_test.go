// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/interop/internal/berth"
)

// TestFullDisk pushes until the disk is full. Then pushes get 413 and /readyz is red,
// but content can be deleted, which makes space for more.
func TestFullDisk(t *testing.T) {
	if !inNamespace(t, nil, "mount") {
		return
	}
	dir := t.TempDir()
	if err := mount(t, "-t", "tmpfs", "-o", "size=24m", "none", dir); err != nil {
		t.Skip(err)
	}
	r := openRegistry(t, dir)
	r.pushBlob(configData)
	for i := range 300 {
		qt.Assert(t, qt.Equals(r.push(fmt.Sprint(i), fmt.Sprint("tag-", i)), 201))
	}
	random := rand.New(rand.NewPCG(1, 1))
	fill := func() (blobs []string) {
		t.Helper()
		for _, size := range []int{1 << 20, 64 << 10, 1 << 10} {
			for {
				blob := string(randomBytes(random, size))
				status, header, _ := r.request("POST", "/v2/a/blobs/uploads/", "")
				upload := header.Get("Location")
				if status == 202 {
					status = r.do("PATCH", upload, blob)
				}
				if status == 202 {
					status = r.end(upload, blob)
				}
				if status != 201 {
					qt.Assert(t, qt.Equals(status, 413))
					break
				}
				blobs = append(blobs, blob)
			}
		}
		return blobs
	}
	blobs := fill()
	t.Logf("%d blobs until the disk is full", len(blobs))
	status := 201
	for i := 0; status == 201; i++ { // a journal may have some bytes left
		status = r.push(strings.Repeat("a", 8<<10), fmt.Sprint("full-", i))
	}
	qt.Check(t, qt.Equals(status, 413))
	qt.Check(t, qt.IsNotNil(r.store.Ready(t.Context())))
	r.check("while the disk is full")

	// Manifests first: their files are as small as can be.
	remove := func(path string) {
		t.Helper()
		qt.Assert(t, qt.Equals(r.do("DELETE", path, ""), 202), qt.Commentf("%s", path))
		delete(r.acknowledged, path)
	}
	for path := range r.acknowledged {
		if strings.Contains(path, "/manifests/tag-") && strings.HasSuffix(path, "7") {
			d := digest.FromString(r.acknowledged[path]).String()
			delete(r.acknowledged, path)
			remove(manifestPath("a", d))
		}
	}
	for _, blob := range blobs[:len(blobs)/2] {
		remove(blobPath("a", digest.FromString(blob)))
	}
	qt.Check(t, qt.IsNil(r.store.Ready(t.Context())))
	r.check("after the deletes")
	again := fill()
	t.Logf("%d blobs after half were deleted", len(again))
	qt.Check(t, qt.IsTrue(len(again) > 2))
	r.check("when it is full again")
	remove(blobPath("a", digest.FromString(again[0])))
	r.close()
	next := openRegistry(t, dir)
	next.acknowledged = r.acknowledged
	next.check("after a restart")
}

// TestReadOnlyMount serves a directory on a file system that is mounted read-only,
// with changes in journals that nobody can fold.
func TestReadOnlyMount(t *testing.T) {
	if !inNamespace(t, nil, "mount") {
		return
	}
	dir := t.TempDir()
	if err := mount(t, "-t", "tmpfs", "none", dir); err != nil {
		t.Skip(err)
	}
	b := berth.Start(t, "--store=dir:"+filepath.Join(dir, "store"), "--log-level=error")
	r := &testRegistry{t: t, url: "http://" + b.Addr, acknowledged: make(map[string]string)}
	r.pushBlob(configData)
	r.push("first", "first")
	r.push("second", "second")
	b.Kill()
	if _, err := os.Stat(filepath.Join(dir, "store/a/.index.journal")); err != nil {
		t.Log("the journal was folded before the kill")
	}
	qt.Assert(t, qt.IsNil(run("mount", "-o", "remount,ro", dir)))
	b = berth.Start(t, "--store=dir:"+filepath.Join(dir, "store"), "--read-only", "--log-level=error")
	r.url = "http://" + b.Addr
	r.check("read-only")
	qt.Check(t, qt.Equals(r.do("GET", "/readyz", ""), 200))
	qt.Check(t, qt.Equals(r.do("DELETE", manifestPath("a", "first"), ""), 405))
}
