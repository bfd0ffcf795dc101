// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// TestFailedSync pushes while the disk can't store any data: writes succeed, but an
// fsync fails, once. Neither then nor later may the registry acknowledge bytes that
// are not on the disk.
func TestFailedSync(t *testing.T) {
	if !inNamespace(t, []string{"/dev/loop-control"}, "mkfs.ext4", "mount", "fstrim") {
		return
	}
	d := newThinDisk(t)
	r := openRegistry(t, d.dir)
	r.pushBlob(configData)
	r.push("kept", "kept")
	d.fill()

	blob := string(randomBytes(rand.New(rand.NewPCG(1, 1)), 3<<20))
	upload := r.start()
	qt.Assert(t, qt.Equals(r.do("PATCH", upload, blob), 202))
	status := r.end(upload, blob)
	t.Logf("PUT of a blob: %d", status)
	qt.Check(t, qt.IsTrue(status >= 400), qt.Commentf("the PUT of a blob whose fsync fails: %d", status))
	status = r.do("GET", upload, "")
	qt.Check(t, qt.Equals(status, 404), qt.Commentf("the upload of the blob, whose bytes may be lost"))
	large := strings.Repeat("a", 1<<20) // more than the last block of a journal takes
	status = r.push(large, "image")
	t.Logf("PUT of a manifest: %d", status)
	qt.Check(t, qt.IsTrue(status >= 400), qt.Commentf("the PUT of a manifest whose fsync fails: %d", status))
	r.moveTags(500)
	if before, ready := d.probe(), r.store.Ready(t.Context()); before != nil && d.probe() != nil {
		qt.Check(t, qt.IsNotNil(ready))
	}
	r.check("while the disk is full")

	d.grow()
	status = r.end(upload, blob)
	t.Logf("the same PUT of a blob again: %d", status)
	if status != 201 {
		qt.Check(t, qt.Equals(status, 404))
		r.pushBlob(blob)
	}
	qt.Check(t, qt.Equals(r.push(large, "image"), 201))
	r.moveTags(50)
	qt.Check(t, qt.IsNil(r.store.Ready(t.Context())))
	r.check("with space again")

	r.close()
	d.remount()
	again := openRegistry(t, d.dir)
	again.acknowledged = r.acknowledged
	again.check("after the page cache was dropped")
	again.close()
	checkIndexes(t, d.dir, nil)
}

// thinDisk is an ext4 file system that finds no space for data on its disk, a sparse
// file in a full tmpfs, although it has free blocks. The blocks with metadata are
// in place.
type thinDisk struct {
	t            *testing.T
	dir, backing string
	file         string // of the disk
}

func newThinDisk(t *testing.T) *thinDisk {
	t.Helper()
	const size = 32 << 20
	d := &thinDisk{t: t, dir: t.TempDir(), backing: t.TempDir()}
	if err := mount(t, "-t", "tmpfs", "-o", "size=48m", "none", d.backing); err != nil {
		t.Skip(err)
	}
	d.file = filepath.Join(d.backing, "disk")
	qt.Assert(t, qt.IsNil(os.WriteFile(d.file, nil, 0o600)))
	qt.Assert(t, qt.IsNil(os.Truncate(d.file, size)))
	qt.Assert(t, qt.IsNil(run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-J", "size=4", d.file)))
	data, err := os.ReadFile(d.file)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(d.file, data, 0o600))) // without holes
	if err := d.mount(); err != nil {
		t.Skip(err)
	}
	d.trim() // before ext4 reserves blocks, which it would not trim
	return d
}

func (d *thinDisk) mount() error { return mount(d.t, "-o", "loop,errors=continue", d.file, d.dir) }

// trim makes holes of the free blocks.
func (d *thinDisk) trim() {
	d.t.Helper()
	if err := run("fstrim", d.dir); err != nil {
		d.t.Skip(err)
	}
}

// fill takes the space for the free blocks.
func (d *thinDisk) fill() {
	d.t.Helper()
	syscall.Sync()
	d.trim()
	f, err := os.Create(filepath.Join(d.backing, "fill"))
	qt.Assert(d.t, qt.IsNil(err))
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	qt.Assert(d.t, qt.ErrorIs(err, syscall.ENOSPC))
}

// probe returns an error if the disk does not store a new small file. On a machine
// under load, the tmpfs finds a page for some of them.
func (d *thinDisk) probe() error {
	f, err := os.CreateTemp(d.dir, "probe")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4<<10)); err != nil {
		return err
	}
	return f.Sync()
}

// grow gives the disk space for all of its blocks.
func (d *thinDisk) grow() {
	d.t.Helper()
	qt.Assert(d.t, qt.IsNil(run("mount", "-o", "remount,size=96m", d.backing)))
}

// remount forgets everything that is not on the disk.
func (d *thinDisk) remount() {
	d.t.Helper()
	qt.Assert(d.t, qt.IsNil(run("umount", d.dir)))
	qt.Assert(d.t, qt.IsNil(d.mount()))
}

// testRegistry is a registry that remembers the content that it has acknowledged.
type testRegistry struct {
	t            *testing.T
	store        *ocidir.Store
	server       *httptest.Server
	url          string
	acknowledged map[string]string // by path
}

func openRegistry(t *testing.T, dir string) *testRegistry {
	t.Helper()
	store, err := ocidir.Open(filepath.Join(dir, "store"), nil)
	qt.Assert(t, qt.IsNil(err))
	server := httptest.NewServer(registry.New(registry.WithStore(store)))
	r := &testRegistry{t: t, store: store, server: server, url: server.URL, acknowledged: make(map[string]string)}
	t.Cleanup(r.close)
	return r
}

// close closes the registry. It may be called again.
func (r *testRegistry) close() {
	r.server.Close()
	if err := r.store.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		r.t.Error(err)
	}
}

// request sends a request and returns the response, whose status is 0 if there is
// none.
func (r *testRegistry) request(method, path, body string) (status int, header http.Header, content string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, bytes.NewReader([]byte(body)))
	qt.Assert(r.t, qt.IsNil(err))
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json") // of a blob too: it does not matter
	resp, err := http.DefaultClient.Do(req)
	qt.Assert(r.t, qt.IsNil(err))
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	qt.Assert(r.t, qt.IsNil(err))
	return resp.StatusCode, resp.Header, string(data)
}

func (r *testRegistry) do(method, path, body string) int {
	r.t.Helper()
	status, _, _ := r.request(method, path, body)
	return status
}

// start starts an upload, and returns its location.
func (r *testRegistry) start() string {
	r.t.Helper()
	status, header, _ := r.request("POST", "/v2/a/blobs/uploads/", "")
	qt.Assert(r.t, qt.Equals(status, 202))
	return header.Get("Location")
}

// end ends an upload that has the bytes of a blob.
func (r *testRegistry) end(location, data string) int {
	r.t.Helper()
	d := digest.FromString(data)
	status := r.do("PUT", location+"?digest="+d.String(), "")
	if status == 201 {
		r.acknowledged[blobPath("a", d)] = data
	}
	return status
}

func (r *testRegistry) pushBlob(data string) {
	r.t.Helper()
	upload := r.start()
	qt.Assert(r.t, qt.Equals(r.do("PATCH", upload, data), 202))
	qt.Assert(r.t, qt.Equals(r.end(upload, data), 201))
}

// push pushes an image with an annotation, and a tag.
func (r *testRegistry) push(annotation, tag string) int {
	r.t.Helper()
	content := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[],"annotations":{"a":%q}}`,
		digest.FromString(configData), len(configData), annotation)
	status := r.do("PUT", manifestPath("a", tag), content)
	if status == 201 {
		r.acknowledged[manifestPath("a", tag)] = content
		r.acknowledged[manifestPath("a", digest.FromString(content).String())] = content
	}
	return status
}

// moveTags points n tags at an image, one after the other.
func (r *testRegistry) moveTags(n int) {
	r.t.Helper()
	failed := 0
	for i := range n {
		if r.push("kept", fmt.Sprint("tag-", i)) != 201 {
			failed++
		}
	}
	r.t.Logf("%d PUTs of tags, %d of them failed", n, failed)
}

// check checks that the registry has the content that it has acknowledged.
func (r *testRegistry) check(when string) {
	r.t.Helper()
	for _, path := range slices.Sorted(maps.Keys(r.acknowledged)) {
		status, _, content := r.request("GET", path, "")
		if status != 200 || content != r.acknowledged[path] {
			r.t.Errorf("%s: GET %s: %d, want the acknowledged content", when, path, status)
		}
	}
}
