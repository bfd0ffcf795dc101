// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// TestMemoryBytes pushes more than fits into memory.
func TestMemoryBytes(t *testing.T) {
	const limit, total, size = 4 << 20, 40 << 20, 3<<20 + 17
	t.Setenv("TMPDIR", t.TempDir())
	ctx := context.Background()
	m := &MemStore{Limits: MemLimits{MemoryBytes: limit, TotalBytes: total}}
	check := func() {
		t.Helper()
		m.mu.Lock()
		defer m.mu.Unlock()
		content := m.load().bytes
		qt.Assert(t, qt.IsTrue(content.memory()+m.reserved.memory() <= limit), qt.Commentf("%+v %+v", content, m.reserved))
		qt.Assert(t, qt.IsTrue(content.all+m.reserved.all <= total))
		qt.Assert(t, qt.IsTrue(min(content.all, content.onDisk, content.memory(), m.reserved.all, m.reserved.onDisk, m.reserved.memory()) >= 0), qt.Commentf("%+v %+v", content, m.reserved))
	}
	random := rand.NewChaCha8([32]byte{})
	pushed := make(map[digest.Digest][]byte)
	for {
		data := make([]byte, size)
		random.Read(data)
		d := digest.FromBytes(data)
		err := PushBlob(ctx, m, "a", d, io.TeeReader(bytes.NewReader(data), writerFunc(check)))
		check()
		if err != nil {
			qt.Assert(t, qt.ErrorIs(err, error(ErrTooLarge)))
			break
		}
		pushed[d] = data
	}
	qt.Check(t, qt.Equals(len(pushed), 13))
	qt.Check(t, qt.IsTrue(m.load().bytes.onDisk > total-2*size))
	// Small content still fits.
	_, err := PushManifest(ctx, m, "a", ManifestPush{Content: []byte("m")})
	qt.Assert(t, qt.IsNil(err))

	for d, data := range pushed {
		r, err := m.OpenBlob(ctx, "a", d)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", d)))
		got, err := io.ReadAll(struct{ io.Reader }{r})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(bytes.Equal(got, data)))
		_, err = r.Seek(-10, io.SeekEnd)
		qt.Assert(t, qt.IsNil(err))
		var end bytes.Buffer
		_, err = io.Copy(&end, r)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(bytes.Equal(end.Bytes(), data[size-10:])))
		check()
		qt.Assert(t, qt.IsNil(r.Close()))
	}

	// A session continues, is rolled back, and ends.
	u, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	id := u.ID()
	data := make([]byte, size)
	random.Read(data)
	for _, piece := range [][]byte{data[:size/2], data[size/2:]} {
		_, err = u.ReadFrom(bytes.NewReader(piece))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(u.Close()))
		u, err = m.ResumeUpload(ctx, "a", id)
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(bytes.NewReader(data))
		qt.Assert(t, qt.IsNil(err))
		check()
		qt.Assert(t, qt.IsNil(u.Rollback()))
		check()
	}
	qt.Assert(t, qt.IsNil(u.Commit(ctx, digest.SHA512.FromBytes(data))))
	qt.Assert(t, qt.IsNil(u.Close()))
	check()
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", digest.SHA512.FromBytes(data))))
	qt.Assert(t, qt.IsNil(m.DeleteManifest(ctx, "a", digest.FromString("m"))))
	checkEmpty(t, m)

	left, err := os.ReadDir(os.TempDir())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(left, 0))
}

// writerFunc is a writer that calls a function at each write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// TestCommitAfterIdle commits an upload in a file that was idle for too long, but has not
// been ended: by that, it is used.
func TestCommitAfterIdle(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx := t.Context()
	m := &MemStore{Limits: MemLimits{MemoryBytes: 3 << 20, TotalBytes: 40 << 20, UploadIdle: time.Minute}}
	data := bytes.Repeat([]byte("x"), 3<<20)
	d := digest.FromBytes(data)
	u, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(bytes.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	l := u.(*memLease)
	l.since = time.Now().Add(-time.Hour).UnixNano()
	l.lastUse.Store(l.since)
	qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
	r, err := m.OpenBlob(ctx, "a", d)
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(r)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.Equal(got, data)))
	qt.Check(t, qt.IsNil(r.Close()))
}
