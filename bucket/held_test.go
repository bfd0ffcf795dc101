// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

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

// files returns the sizes of the files below a folder, by name.
func files(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	sizes := make(map[string]int64)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		qt.Assert(t, qt.IsNil(err))
		if !d.IsDir() {
			info, err := d.Info()
			qt.Assert(t, qt.IsNil(err))
			name, err = filepath.Rel(dir, name)
			qt.Assert(t, qt.IsNil(err))
			sizes[name] = info.Size()
		}
		return nil
	})
	qt.Assert(t, qt.IsNil(err))
	return sizes
}

// TestEndedUploadReleasesItsBytes cancels an upload whose client stalls, or lets
// its idle time pass: its bytes are discarded at once, though its request has not
// ended, and no others are written.
func TestEndedUploadReleasesItsBytes(t *testing.T) {
	for _, c := range []struct {
		name    string
		idle    time.Duration
		resumed bool // else the session exists only in this process
		end     func(s *bucket.Store) error
	}{
		{"cancelled", time.Hour, false, func(s *bucket.Store) error { return s.CancelUpload(t.Context(), "a", "mine") }},
		{"cancelled_when_resumed", time.Hour, true, func(s *bucket.Store) error { return s.CancelUpload(t.Context(), "a", "mine") }},
		{"idle", 200 * time.Millisecond, false, func(s *bucket.Store) error {
			time.Sleep(300 * time.Millisecond)
			return registry.PushBlob(t.Context(), s, "b", digest.FromString("x"), strings.NewReader("x"))
		}},
		{"idle_when_resumed", time.Second, true, func(s *bucket.Store) error {
			time.Sleep(1100 * time.Millisecond)
			if _, err := s.UploadSize(t.Context(), "a", "mine"); !errors.Is(err, registry.ErrBlobUploadUnknown) {
				return err
			}
			return registry.PushBlob(t.Context(), s, "b", digest.FromString("x"), strings.NewReader("x"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, temp := t.TempDir(), t.TempDir()
			t.Setenv("TMPDIR", temp)
			s := open(t, "file://"+dir, &bucket.Options{UploadIdle: c.idle, Uploads: 1})
			parts := func() map[string]int64 {
				s.Wait()
				all := files(t, filepath.Join(dir, "uploads"))
				for name := range all {
					if filepath.Base(name) == "state" { // it stays until GC runs
						delete(all, name)
					}
				}
				return all
			}
			u, err := s.CreateUpload(t.Context(), "a", registry.UploadOptions{ID: "mine"})
			qt.Assert(t, qt.IsNil(err))
			if c.resumed {
				_, err := u.ReadFrom(strings.NewReader("data"))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(u.Close()))
				u, err = s.ResumeUpload(t.Context(), "a", "mine")
				qt.Assert(t, qt.IsNil(err))
			}
			body := &stalledReader{bytes.NewReader(make([]byte, 3<<20)), make(chan struct{}), make(chan struct{})}
			done := make(chan error)
			go func() {
				_, err := u.ReadFrom(io.MultiReader(body, bytes.NewReader(make([]byte, 3<<20))))
				done <- err
			}()
			<-body.stalled
			qt.Assert(t, qt.HasLen(files(t, temp), 1))
			qt.Assert(t, qt.IsNil(c.end(s)))
			qt.Check(t, qt.HasLen(files(t, temp), 0))
			qt.Check(t, qt.HasLen(parts(), 0))
			close(body.release)
			qt.Check(t, qt.ErrorIs(<-done, error(registry.ErrBlobUploadUnknown)))
			qt.Check(t, qt.ErrorIs(u.Commit(t.Context(), digest.FromString("data")), error(registry.ErrBlobUploadUnknown)))
			qt.Check(t, qt.IsNil(u.Rollback()))
			qt.Check(t, qt.IsNil(u.Close()))
			qt.Check(t, qt.HasLen(files(t, temp), 0))
			qt.Check(t, qt.HasLen(parts(), 0))
			// The session no longer counts towards the limit.
			push(t, s, "c", "y")
		})
	}
}

// TestObjectsAreNotEscaped pushes a referrer whose type and annotations JSON may
// escape to six times their size.
func TestObjectsAreNotEscaped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, "file://"+dir, nil)
	subject := digest.FromString("subject").String()
	content := `{"schemaVersion":2,"manifests":[],"subject":{"mediaType":"x/y","size":7,"digest":"` + subject + `"},"artifactType":"` + strings.Repeat("<", 100_000) + `"}`
	_, err := registry.PushManifest(t.Context(), s, "a", registry.ManifestPush{MediaType: "application/vnd.oci.image.index.v1+json", Content: []byte(content)})
	qt.Assert(t, qt.IsNil(err))
	for name, size := range files(t, dir) {
		// The content, the type to filter by, and the descriptor in base64.
		qt.Check(t, qt.IsTrue(size < 340_000), qt.Commentf("%s has %d bytes", name, size))
	}
}
