// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

// stalledReader gives some bytes, and then stalls until release is closed.
type stalledReader struct {
	data    io.Reader
	stalled chan struct{} // closed when all bytes have been read
	release chan struct{}
}

func newStalledReader(size int) *stalledReader {
	return &stalledReader{bytes.NewReader(make([]byte, size)), make(chan struct{}), make(chan struct{})}
}

func (r *stalledReader) Read(p []byte) (int, error) {
	n, err := r.data.Read(p)
	if err == io.EOF {
		close(r.stalled)
		<-r.release
	}
	return n, err
}

// wantFiles checks how many files of uploads a store's directory has, and how many
// of its files the process has open, the removed ones included.
func wantFiles(t *testing.T, dir string, uploads, open int) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, ".berth/uploads"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(entries, uploads))
	if runtime.GOOS != "linux" {
		return // open files are listed in /proc
	}
	fds, err := os.ReadDir("/proc/self/fd")
	qt.Assert(t, qt.IsNil(err))
	var names []string
	for _, fd := range fds {
		name, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(name, dir+"/") && name != filepath.Join(dir, ".berth/lock") {
			names = append(names, name)
		}
	}
	qt.Check(t, qt.HasLen(names, open))
}

// TestEndedUploadReleasesItsBytes cancels an upload whose client stalls, or lets
// its idle time pass: its bytes disappear from the disk at once, though its request
// has not ended, and are not written again.
func TestEndedUploadReleasesItsBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		idle time.Duration
		end  func(s *ocidir.Store) error
	}{
		{"cancelled", time.Hour, func(s *ocidir.Store) error { return s.CancelUpload(ctx, "a", "mine") }},
		{"idle", 200 * time.Millisecond, func(s *ocidir.Store) error {
			time.Sleep(300 * time.Millisecond)
			return registry.PushBlob(ctx, s, "a", digest.FromString("x"), strings.NewReader("x"))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := ocidir.Open(dir, &ocidir.Options{UploadIdle: c.idle, Uploads: 1})
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { s.Close() })
			u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{ID: "mine"})
			qt.Assert(t, qt.IsNil(err))
			body := newStalledReader(1 << 20)
			done := make(chan error)
			go func() {
				_, err := u.ReadFrom(io.MultiReader(body, bytes.NewReader(make([]byte, 1<<20))))
				done <- err
			}()
			<-body.stalled
			wantFiles(t, dir, 1, 1)
			qt.Assert(t, qt.IsNil(c.end(s)))
			wantFiles(t, dir, 0, 0)
			close(body.release)
			qt.Check(t, qt.ErrorIs(<-done, error(registry.ErrBlobUploadUnknown)))
			wantFiles(t, dir, 0, 0)
			_, err = u.ReadFrom(strings.NewReader("more"))
			qt.Check(t, qt.ErrorIs(err, error(registry.ErrBlobUploadUnknown)))
			qt.Check(t, qt.ErrorIs(u.Commit(ctx, digest.SHA512.FromBytes(make([]byte, 1<<20))), error(registry.ErrBlobUploadUnknown)))
			qt.Check(t, qt.IsNil(u.Close()))
			wantFiles(t, dir, 0, 0)
		})
	}
}

// TestSlowUploadIsNotIdle sends an upload's bytes one by one, and in all longer than
// an upload may be idle.
func TestSlowUploadIsNotIdle(t *testing.T) {
	s, err := ocidir.Open(t.TempDir(), &ocidir.Options{UploadIdle: time.Second})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { s.Close() })
	u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	r, w := io.Pipe()
	go func() {
		for range 15 {
			io.WriteString(w, "x")
			time.Sleep(100 * time.Millisecond)
			s.UploadSize(context.Background(), "b", "unknown") // expires others
		}
		w.Close()
	}()
	_, err = u.ReadFrom(r)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Commit(ctx, digest.FromString(strings.Repeat("x", 15)))))
	qt.Assert(t, qt.IsNil(u.Close()))
}

// TestFilesAreClosed checks that no file stays open after the last reader or lease
// that uses it, whether that has succeeded or not.
func TestFilesAreClosed(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	pushImage(t, s, "a", "tag", 1)
	wantImage(t, s, "a", "tag", 1)
	wantFiles(t, dir, 0, 0)
	d := digest.FromString("data")
	qt.Check(t, qt.ErrorIs(registry.PushBlob(ctx, s, "a", digest.FromString("other"), strings.NewReader("data")), error(registry.ErrDigestInvalid)))
	wantFiles(t, dir, 0, 0)
	qt.Assert(t, qt.IsNil(registry.PushBlob(ctx, s, "a", d, strings.NewReader("data"))))
	r, err := s.OpenBlob(ctx, "a", d)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.DeleteBlob(ctx, "a", d)))
	wantFiles(t, dir, 0, 1)
	qt.Assert(t, qt.IsNil(r.Close()))
	wantFiles(t, dir, 0, 0)
	u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader("data"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Close()))
	wantFiles(t, dir, 2, 0)
	qt.Assert(t, qt.IsNil(s.CancelUpload(ctx, "a", u.ID())))
	wantFiles(t, dir, 0, 0)
}

// TestListsAreNotEscaped pushes a referrer whose annotations JSON may escape to six
// times their size: the files of the layout are no larger than they must be.
func TestListsAreNotEscaped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	subject := digest.FromString("subject").String()
	content := `{"schemaVersion":2,"manifests":[],"subject":{"mediaType":"x/y","size":7,"digest":"` + subject + `"},"annotations":{"a":"` + strings.Repeat("<", 100_000) + `"}}`
	_, err := registry.PushManifest(ctx, s, "a", registry.ManifestPush{MediaType: "application/vnd.oci.image.index.v1+json", Content: []byte(content)})
	qt.Assert(t, qt.IsNil(err))
	err = filepath.WalkDir(filepath.Join(dir, "a"), func(name string, d fs.DirEntry, err error) error {
		qt.Assert(t, qt.IsNil(err))
		info, err := d.Info()
		qt.Check(t, qt.IsTrue(info.Size() < 110_000), qt.Commentf("%s has %d bytes", name, info.Size()))
		return err
	})
	qt.Assert(t, qt.IsNil(err))

	// An index.json keeps the annotations that another tool wrote.
	index := filepath.Join(dir, "a/index.json")
	data, err := os.ReadFile(index)
	qt.Assert(t, qt.IsNil(err))
	data = bytes.Replace(data, []byte("{"), []byte(`{"annotations":{"a":"`+strings.Repeat("&", 100_000)+`"},`), 1)
	qt.Assert(t, qt.IsNil(os.WriteFile(index, data, 0o666)))
	_, err = registry.PushManifest(ctx, s, "a", registry.ManifestPush{Content: []byte("m"), Tags: []string{"tag"}})
	qt.Assert(t, qt.IsNil(err))
	info, err := os.Stat(index)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(info.Size() > 100_000 && info.Size() < 110_000), qt.Commentf("%d bytes", info.Size()))
}
