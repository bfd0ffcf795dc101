// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	registry "github.com/berth-oci/registry/ggcr"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// v1Hash stands in for go-containerregistry's v1.Hash: another type with the same
// fields.
type v1Hash struct{ Algorithm, Hex string }

// handler is a read-only BlobHandler, with one blob or one error.
type handler[H ~struct{ Algorithm, Hex string }] struct {
	content string
	broken  bool // after the content
	err     error
}

func (h handler[H]) Get(context.Context, string, H) (io.ReadCloser, error) {
	if h.content == "" {
		return nil, h.err
	}
	r := io.Reader(strings.NewReader(h.content))
	if h.broken {
		r = io.MultiReader(r, broken{})
	}
	return io.NopCloser(r), h.err
}

// sized is a handler that returns a size, which need not be the content's.
type sized struct {
	handler[v1Hash]
	size    int64
	statErr error
}

func (s sized) Stat(context.Context, string, v1Hash) (int64, error) { return s.size, s.statErr }

// all is the interface of this package's handlers.
type all interface {
	registry.BlobHandler
	registry.BlobStatHandler
	registry.BlobPutHandler
	registry.BlobDeleteHandler
}

// mixed has methods with both hash types, like a type that embeds a handler and
// overrides one method.
type mixed struct {
	all
	puts *[]string
	err  error
}

func (m mixed) Put(ctx context.Context, repo string, h v1Hash, rc io.ReadCloser) error {
	*m.puts = append(*m.puts, repo)
	if m.err != nil {
		return m.err
	}
	return m.all.Put(ctx, repo, h, rc)
}

var getBlob = request{do: "GET /v2/a/blobs/" + contentDigest, status: 200, reply: content}

func TestHashTypes(t *testing.T) {
	getBlob.send(t, silent(registry.WithBlobHandler(handler[registry.Hash]{content: content})))
	getBlob.send(t, silent(registry.WithBlobHandler(sized{handler: handler[v1Hash]{content: content}, size: 10})))

	var puts []string
	h := silent(registry.WithBlobHandler(mixed{all: registry.NewInMemoryBlobHandler().(all), puts: &puts}))
	pushBlob.send(t, h)
	getBlob.send(t, h)
	qt.Check(t, qt.DeepEquals(puts, []string{"a"}))

	var hash registry.Hash = v1Hash{"sha256", "12"} // no conversion
	qt.Check(t, qt.Equals(hash.Hex, "12"))
	var none registry.BlobHandler
	pushBlob.send(t, silent(registry.WithBlobHandler(none)))
}

func TestReadOnlyHandler(t *testing.T) {
	h := silent(registry.WithBlobHandler(handler[v1Hash]{err: registry.ErrNotFound}))
	for _, q := range []request{
		{do: "GET /v2/a/blobs/" + contentDigest, status: 404, code: "BLOB_UNKNOWN"},
		{do: "HEAD /v2/a/blobs/" + contentDigest, status: 404},
		{do: "POST /v2/a/blobs/uploads/", status: 405, code: "UNSUPPORTED"},
		{do: pushBlob.do, body: content, status: 405, code: "UNSUPPORTED"},
		{do: "POST /v2/b/blobs/uploads/?from=a&mount=" + contentDigest, status: 405, code: "UNSUPPORTED"},
		{do: "PATCH /v2/a/blobs/uploads/x", body: content, status: 405, code: "UNSUPPORTED"},
		{do: "PUT /v2/a/blobs/uploads/x?digest=" + contentDigest, body: content, status: 405, code: "UNSUPPORTED"},
		{do: "DELETE /v2/a/blobs/" + contentDigest, status: 405, code: "UNSUPPORTED"},
		{do: "PUT /v2/a/manifests/v1", body: image, status: 201},
	} {
		q.send(t, h)
	}
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{registry.RedirectError{Location: "https://b.example/x", Code: 302}, 302},
		{&registry.RedirectError{Location: "https://b.example/x", Code: 308}, 308},
		{registry.RedirectError{Location: "https://b.example/x"}, 307},
		{registry.RedirectError{Location: "https://b.example/x", Code: 200}, 307},
		{registry.RedirectError{Location: "https://b.example/x", Code: -1}, 307},
	} {
		want := map[string]string{"Location": "https://b.example/x"}
		for _, method := range []string{"GET", "HEAD"} {
			q := request{do: method + " /v2/a/blobs/" + contentDigest, status: c.status, want: want}
			q.send(t, silent(registry.WithBlobHandler(handler[v1Hash]{err: c.err})))
			q.send(t, silent(registry.WithBlobHandler(sized{statErr: c.err})))
		}
	}
	// A handler may know the size of a blob and redirect to its content.
	h := silent(registry.WithBlobHandler(sized{handler: handler[v1Hash]{err: registry.RedirectError{Location: "/x", Code: 307}}, size: 10}))
	request{do: "HEAD /v2/a/blobs/" + contentDigest, status: 200, want: map[string]string{"Content-Length": "10"}}.send(t, h)
	request{do: "GET /v2/a/blobs/" + contentDigest, status: 307}.send(t, h)
}

// TestFaultyHandlers checks that faulty handlers do not break the registry, and
// that clients do not take partial content for a complete blob.
func TestFaultyHandlers(t *testing.T) {
	for name, h := range map[string]http.Handler{
		"an error":         silent(registry.WithBlobHandler(handler[v1Hash]{err: errors.New("disk on fire")})),
		"neither":          silent(registry.WithBlobHandler(handler[v1Hash]{})),
		"a negative size":  silent(registry.WithBlobHandler(sized{size: -1})),
		"an error of Stat": silent(registry.WithBlobHandler(sized{statErr: io.ErrNoProgress})),
		"a broken reader":  silent(registry.WithBlobHandler(handler[v1Hash]{content: "a", broken: true})),
	} {
		t.Run(name, func(t *testing.T) {
			q := request{do: "GET /v2/a/blobs/" + contentDigest, status: 500, code: "INTERNAL_SERVER_ERROR", reply: `{"errors":[{"code":"INTERNAL_SERVER_ERROR","message":"internal error"}]}`}
			q.send(t, h)
		})
	}
	for name, h := range map[string]handler[v1Hash]{
		"content that is too short": {content: "some"},
		"content that breaks off":   {content: "some", broken: true},
		"a range past the content":  {content: "some"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(silent(registry.WithBlobHandler(sized{handler: h, size: 10})))
			defer s.Close()
			r, err := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+contentDigest, nil)
			qt.Assert(t, qt.IsNil(err))
			if strings.Contains(name, "range") {
				r.Header.Set("Range", "bytes=5-9")
			}
			resp, err := s.Client().Do(r)
			qt.Assert(t, qt.IsNil(err))
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			qt.Check(t, qt.ErrorIs(err, io.ErrUnexpectedEOF))
		})
	}
	t.Run("content that is too long", func(t *testing.T) {
		getBlob.send(t, silent(registry.WithBlobHandler(sized{handler: handler[v1Hash]{content: content + " and more"}, size: 10})))
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

// TestFailedPut checks that a session is unchanged after the handler has failed, so
// that the client can try again.
func TestFailedPut(t *testing.T) {
	var puts []string
	m := &mixed{all: registry.NewInMemoryBlobHandler().(all), puts: &puts, err: errors.New("disk full")}
	h := silent(registry.WithBlobHandler(m))
	commit := "PUT /v2/a/blobs/uploads/x?digest=" + contentDigest
	for _, q := range []request{
		{do: "PATCH /v2/a/blobs/uploads/x", body: "some ", status: 202},
		{do: commit, body: "bytes", status: 500, code: "INTERNAL_SERVER_ERROR"},
		{do: "GET /v2/a/blobs/uploads/x", status: 204, want: map[string]string{"Range": "0-4"}},
		{do: "GET /v2/a/blobs/" + contentDigest, status: 404},
	} {
		q.send(t, h)
	}
	m.err = nil
	request{do: commit, body: "bytes", status: 201}.send(t, h)
	getBlob.send(t, h)
}

// TestStalled checks that other requests do not wait for a stalled upload or a
// stalled Put of a handler.
func TestStalled(t *testing.T) {
	r, w := io.Pipe()
	stalled := &stallingPut{all: registry.NewInMemoryBlobHandler().(all), started: make(chan bool), proceed: make(chan bool)}
	for name, h := range map[string]http.Handler{"memory": silent(), "a handler": silent(registry.WithBlobHandler(stalled))} {
		var done sync.WaitGroup
		done.Add(1)
		body := io.Reader(r)
		if name != "memory" {
			body = strings.NewReader("stalls")
		}
		go func() {
			defer done.Done()
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/a/blobs/uploads/slow?digest="+digest.FromString("stalls").String(), body))
			qt.Check(t, qt.Equals(w.Code, 201))
		}()
		if name == "memory" {
			io.WriteString(w, "sta")
		} else {
			<-stalled.started
		}
		pushBlob.send(t, h)
		getBlob.send(t, h)
		pushImage.send(t, h)
		if name == "memory" {
			io.WriteString(w, "lls")
			w.Close()
		} else {
			close(stalled.proceed)
		}
		done.Wait()
	}
}

// stallingPut is a handler whose Put stalls for the blob "stalls".
type stallingPut struct {
	all
	started, proceed chan bool
}

func (s *stallingPut) Put(ctx context.Context, repo string, h registry.Hash, rc io.ReadCloser) error {
	if h.Hex == digest.FromString("stalls").Encoded() {
		s.started <- true
		<-s.proceed
	}
	return s.all.Put(ctx, repo, h, rc)
}

// TestSameBlobConcurrently pushes one blob with many clients: each Put gets the
// complete content.
func TestSameBlobConcurrently(t *testing.T) {
	h := silent(registry.WithBlobHandler(registry.NewDiskBlobHandler(t.TempDir())))
	var done sync.WaitGroup
	for range 20 {
		done.Add(1)
		go func() {
			defer done.Done()
			pushBlob.send(t, h)
			getBlob.send(t, h)
		}()
	}
	done.Wait()
}

func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	h := silent(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)))
	for _, target := range []string{"/v2/a/blobs/uploads/?digest=" + contentDigest, "/v2/a/manifests/v1"} {
		method := map[bool]string{true: "PUT", false: "POST"}[strings.Contains(target, "manifests")]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, io.MultiReader(strings.NewReader("some"), broken{})))
		qt.Check(t, qt.Equals(w.Code, 400))
	}
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(left, 0))
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	d := registry.NewDiskBlobHandler(dir).(all)
	hash := registry.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(contentDigest, "sha256:")}
	file := filepath.Join(dir, hash.Algorithm, hash.Hex)

	_, err := d.Get(ctx, "a", hash)
	qt.Check(t, qt.ErrorIs(err, registry.ErrNotFound))
	qt.Check(t, qt.ErrorIs(d.Delete(ctx, "a", hash), registry.ErrNotFound))

	h := silent(registry.WithBlobHandler(d))
	pushBlob.send(t, h)
	got, err := os.ReadFile(file)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(got), content))
	left, _ := os.ReadDir(dir)
	qt.Check(t, qt.HasLen(left, 1)) // the folder of SHA-256, and no temporary file

	// Files of another registry are served; a damaged file is not.
	getBlob.send(t, silent(registry.WithBlobHandler(registry.NewDiskBlobHandler(dir))))
	qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte("other bytes"), 0o666)))
	for _, method := range []string{"GET", "HEAD"} {
		request{do: method + " /v2/a/blobs/" + contentDigest, status: 404}.send(t, h)
	}
	pushBlob.send(t, h) // repairs it
	getBlob.send(t, h)

	// A malformed hash must not be used as a path.
	for _, hash := range []registry.Hash{{Algorithm: "..", Hex: "secret"}, {Algorithm: "sha256", Hex: "../../secret"}, {}} {
		_, err := d.Stat(ctx, "a", hash)
		qt.Check(t, qt.ErrorIs(err, registry.ErrNotFound))
		qt.Check(t, qt.ErrorIs(d.Put(ctx, "a", hash, io.NopCloser(strings.NewReader(""))), registry.ErrNotFound))
		qt.Check(t, qt.ErrorIs(d.Delete(ctx, "a", hash), registry.ErrNotFound))
	}
	// Content with another digest is not stored.
	other := registry.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	for _, h := range []all{d, registry.NewInMemoryBlobHandler().(all)} {
		qt.Check(t, qt.IsNotNil(h.Put(ctx, "a", other, io.NopCloser(bytes.NewReader(nil)))))
		_, err = h.Stat(ctx, "a", other)
		qt.Check(t, qt.ErrorIs(err, registry.ErrNotFound))
	}
}
