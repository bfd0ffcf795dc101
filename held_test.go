// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// TestRequestOwnsItsStrings checks that a store that keeps any string of a
// Request does not keep the request line with it.
func TestRequestOwnsItsStrings(t *testing.T) {
	d := digest.FromString("x").String()
	padding := "&x=" + strings.Repeat("x", 1000)
	for _, target := range []struct{ method, path, query string }{
		{"POST", "/v2/a/blobs/uploads/", "digest-algorithm=sha256&ns=docker.io"},
		{"POST", "/v2/a/blobs/uploads/", "mount=" + d + "&from=b"},
		{"POST", "/v2/a/blobs/uploads/", "digest=" + d},
		{"PUT", "/v2/a/blobs/uploads/id", "digest=" + d},
		{"PUT", "/v2/a/manifests/" + d, "tag=1&tag=2"},
		{"GET", "/v2/a/manifests/tag", ""},
		{"GET", "/v2/a/tags/list", "last=b&n=1"},
		{"GET", "/v2/a/referrers/" + d, "artifactType=a/b&artifactType=c/d&last=" + d},
		{"GET", "/v2/_catalog", "last=b"},
	} {
		u := &url.URL{Path: strings.Clone(target.path), RawQuery: target.query + padding}
		req, err := ParseRequest(&http.Request{Method: target.method, URL: u})
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %s", target.method, u))
		for _, source := range []string{u.Path, u.RawQuery} {
			checkNoAlias(t, reflect.ValueOf(req), "Request", source)
		}
	}
}

// checkNoAlias checks that no string in v is a part of source.
func checkNoAlias(t *testing.T, v reflect.Value, name, source string) {
	t.Helper()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			checkNoAlias(t, v.Field(i), name+"."+v.Type().Field(i).Name, source)
		}
	case reflect.Slice:
		for i := range v.Len() {
			checkNoAlias(t, v.Index(i), fmt.Sprintf("%s[%d]", name, i), source)
		}
	case reflect.String:
		s := v.String()
		start, at := uintptr(unsafe.Pointer(unsafe.StringData(source))), uintptr(unsafe.Pointer(unsafe.StringData(s)))
		if s != "" && start <= at && at < start+uintptr(len(source)) {
			t.Errorf("%s (%q) is a part of the request line", name, s)
		}
	case reflect.Int:
	default:
		t.Errorf("%s is a %v: check it too", name, v.Kind())
	}
}

// TestDeletedBlobsCountWhileTheyAreRead deletes blobs that slow clients still
// read: until they have finished, the bytes count towards the limit.
func TestDeletedBlobsCountWhileTheyAreRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits MemLimits
	}{
		{"in_memory", MemLimits{TotalBytes: 8 << 20}},
		{"on_disk", MemLimits{TotalBytes: 8 << 20, MemoryBytes: 3 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ctx := context.Background()
			m := &MemStore{Limits: c.limits}
			var readers []io.ReadSeekCloser
			pushes := 0
			for ; pushes < 10; pushes++ {
				data := bytes.Repeat([]byte{byte(pushes)}, 3<<20)
				d := digest.FromBytes(data)
				if err := PushBlob(ctx, m, "a", d, bytes.NewReader(data)); err != nil {
					qt.Assert(t, qt.ErrorIs(err, error(ErrTooLarge)))
					break
				}
				r, err := m.OpenBlob(ctx, "a", d)
				qt.Assert(t, qt.IsNil(err))
				readers = append(readers, r)
				qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", d)))
			}
			qt.Check(t, qt.Equals(pushes, 2))
			for i, r := range readers {
				data, err := io.ReadAll(r)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(bytes.Equal(data, bytes.Repeat([]byte{byte(i)}, 3<<20))))
				qt.Assert(t, qt.IsNil(r.Close()))
				qt.Assert(t, qt.IsNil(r.Close())) // a second time does nothing
			}
			checkEmpty(t, m)
			qt.Check(t, qt.Equals(openTempFiles(t), 0))
		})
	}
}

// openTempFiles returns the number of files in TMPDIR that the process has open,
// the removed ones included.
func openTempFiles(t *testing.T) (n int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("open files are listed in /proc")
	}
	fds, err := os.ReadDir("/proc/self/fd")
	qt.Assert(t, qt.IsNil(err))
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, os.TempDir()+"/") {
			n++
		}
	}
	return n
}

// TestFilesAreClosedAtOnce checks that a temporary file disappears from the disk
// with the last session, blob, clone or reader that uses it, without waiting for
// the garbage collector.
func TestFilesAreClosedAtOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx := context.Background()
	m := &MemStore{Limits: MemLimits{TotalBytes: 40 << 20, MemoryBytes: 3 << 20}}
	data := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	d := digest.FromBytes(data)
	files := func(want int) {
		t.Helper()
		qt.Assert(t, qt.Equals(openTempFiles(t), want))
	}
	session := func() Upload {
		t.Helper()
		u, err := m.CreateUpload(ctx, "a", UploadOptions{})
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(bytes.NewReader(data))
		qt.Assert(t, qt.IsNil(err))
		files(1)
		return u
	}

	u := session() // is cancelled
	qt.Assert(t, qt.IsNil(m.CancelUpload(ctx, "a", u.ID())))
	files(0)
	qt.Assert(t, qt.IsNil(u.Close()))
	u = session()
	qt.Assert(t, qt.IsNil(u.Close()))
	qt.Assert(t, qt.IsNil(m.CancelUpload(ctx, "a", u.ID())))
	files(0)

	u = session() // is published, twice
	qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
	qt.Assert(t, qt.IsNil(u.Close()))
	files(1)
	qt.Assert(t, qt.IsNil(PushBlob(ctx, m, "b", d, bytes.NewReader(data))))
	files(1)

	clone := m.Clone()
	r, err := m.OpenBlob(ctx, "a", d)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", d)))
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "b", d)))
	files(1)
	qt.Assert(t, qt.IsNil(r.Close()))
	files(1)
	checkEmpty(t, m)
	r, err = clone.OpenBlob(ctx, "b", d)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(clone.DeleteBlob(ctx, "a", d)))
	qt.Assert(t, qt.IsNil(clone.DeleteBlob(ctx, "b", d)))
	got, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.Equal(got, data)))
	qt.Assert(t, qt.IsNil(r.Close()))
	files(0)
	checkEmpty(t, clone)
}

// stalledReader gives some bytes, and then stalls until release is closed.
type stalledReader struct {
	data    io.Reader
	stalled chan struct{} // closed when all bytes have been read
	release chan struct{}
}

func (r *stalledReader) Read(p []byte) (int, error) {
	n, err := r.data.Read(p)
	if err == io.EOF {
		close(r.stalled)
		<-r.release
	}
	return n, err
}

// TestCancelledUploadReleasesItsBytes cancels uploads whose clients stall: the
// next push has room at once, though their requests have not ended.
func TestCancelledUploadReleasesItsBytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits MemLimits
	}{
		{"in_memory", MemLimits{TotalBytes: 12 << 20}},
		{"on_disk", MemLimits{TotalBytes: 12 << 20, MemoryBytes: 3 << 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			m := &MemStore{Limits: c.limits}
			h := New(WithStore(m))
			do := func(method, url string, body io.Reader) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(method, url, body))
				return w
			}
			data := bytes.Repeat([]byte("0123456789abcdef"), 10<<16) // 10 MiB
			d := digest.FromBytes(data)

			loc := do("POST", "/v2/a/blobs/uploads/", nil).Header().Get("Location")
			body := &stalledReader{bytes.NewReader(data), make(chan struct{}), make(chan struct{})}
			patched := make(chan int)
			go func() { patched <- do("PATCH", loc, body).Code }()
			<-body.stalled
			qt.Check(t, qt.Equals(do("POST", "/v2/a/blobs/uploads/?digest="+d.String(), bytes.NewReader(data)).Code, 413))
			qt.Check(t, qt.Equals(do("DELETE", loc, nil).Code, 204))
			qt.Check(t, qt.Equals(do("POST", "/v2/a/blobs/uploads/?digest="+d.String(), bytes.NewReader(data)).Code, 201))
			close(body.release)
			qt.Check(t, qt.Equals(<-patched, 404))
			qt.Check(t, qt.Equals(do("DELETE", "/v2/a/blobs/"+d.String(), nil).Code, 202))
			checkEmpty(t, m)
		})
	}
}

// TestStalledUploadExpires lets the idle time of an upload pass whose client
// stalls: its bytes are released though its request has not ended.
func TestStalledUploadExpires(t *testing.T) {
	ctx := context.Background()
	m := &MemStore{Limits: MemLimits{TotalBytes: 8 << 20, UploadIdle: 50 * time.Millisecond}}
	u, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	body := &stalledReader{bytes.NewReader(make([]byte, 5<<20)), make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := u.ReadFrom(body)
		done <- err
	}()
	<-body.stalled
	time.Sleep(100 * time.Millisecond)
	data := make([]byte, 6<<20)
	qt.Check(t, qt.IsNil(PushBlob(ctx, m, "a", digest.FromBytes(data), bytes.NewReader(data))))
	close(body.release)
	qt.Check(t, qt.ErrorIs(<-done, error(ErrBlobUploadUnknown)))
	qt.Check(t, qt.IsNil(u.Close()))
	qt.Check(t, qt.IsNil(m.DeleteBlob(ctx, "a", digest.FromBytes(data))))
	checkEmpty(t, m)
}

// TestEverythingKeptIsCounted pushes manifests whose long strings a store keeps
// outside their content.
func TestEverythingKeptIsCounted(t *testing.T) {
	ctx := context.Background()
	m := new(MemStore)
	long := strings.Repeat("x", 1<<20)
	content := []byte(`{"artifactType":"` + long + `","config":{"digest":"` + digest.FromString("c").String() + `"},"layers":[],"subject":{"digest":"` + digest.FromString("s").String() + `"}}`)
	_, err := PushManifest(ctx, m, "a", ManifestPush{MediaType: "application/vnd.oci.image.manifest.v1+json", Content: content, Sparse: true})
	qt.Assert(t, qt.IsNil(err))
	// The content, the descriptor in lists of referrers, and the type to filter by.
	qt.Check(t, qt.IsTrue(m.load().bytes.all > 3<<20), qt.Commentf("%d bytes", m.load().bytes.all))
	_, err = PushManifest(ctx, m, "a", ManifestPush{MediaType: "text/" + long, Content: []byte("m")})
	qt.Check(t, qt.ErrorIs(err, error(ErrManifestInvalid)))
}

// TestSlowManifestsCountWhileTheyAreRead has clients that do not read large
// manifests, which may be deleted meanwhile: they count as requests in progress.
func TestSlowManifestsCountWhileTheyAreRead(t *testing.T) {
	h := New(WithLimits(Limits{InFlightBytes: 1 << 20}))
	manifest := strings.Repeat("x", 400_000)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/a/manifests/tag", strings.NewReader(manifest[:250_000])))
	qt.Assert(t, qt.Equals(w.Code, 201))
	w = httptest.NewRecorder()
	small := "/v2/a/manifests/small"
	h.ServeHTTP(w, httptest.NewRequest("PUT", small, strings.NewReader("small")))
	qt.Assert(t, qt.Equals(w.Code, 201))

	release := make(chan struct{})
	done := make(chan int)
	started := make(chan struct{})
	for range 4 {
		go func() {
			w := &slowWriter{ResponseRecorder: httptest.NewRecorder(), started: started, release: release}
			h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/manifests/tag", nil))
			done <- w.Code
		}()
		<-started
	}
	get := func(url string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		return w.Code
	}
	qt.Check(t, qt.Equals(get("/v2/a/manifests/tag"), 429))
	qt.Check(t, qt.Equals(get(small), 200))
	close(release)
	for range 4 {
		qt.Check(t, qt.Equals(<-done, 200))
	}
	qt.Check(t, qt.Equals(get("/v2/a/manifests/tag"), 200))
	qt.Check(t, qt.Equals(h.(*server).main.manifests.budget.used.Load(), 0))
}

// slowWriter is a client that does not read before release is closed.
type slowWriter struct {
	*httptest.ResponseRecorder
	started, release chan struct{}
}

func (w *slowWriter) Write(p []byte) (int, error) {
	w.started <- struct{}{}
	<-w.release
	return w.ResponseRecorder.Write(p)
}
