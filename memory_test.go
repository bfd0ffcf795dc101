// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// checkEmpty checks that a store counts nothing after everything was deleted.
func checkEmpty(t *testing.T, m *MemStore) {
	t.Helper()
	c := m.load()
	qt.Check(t, qt.Equals(c.bytes, memBytes{}))
	qt.Check(t, qt.Equals(c.repos.Len(), 0))
	qt.Check(t, qt.Equals(c.blobs.Len(), 0))
	qt.Check(t, qt.Equals(m.reserved, memBytes{}))
	qt.Check(t, qt.Equals(len(m.uploads), 0))
	qt.Check(t, qt.Equals(m.byUse.Len(), 0))
}

func TestMemStoreReleasesEverything(t *testing.T) {
	ctx := context.Background()
	m := new(MemStore)
	index := []byte(`{"manifests":[],"subject":{"digest":"` + digest.FromString("s").String() + `"},"annotations":{"a":"b"}}`)
	const indexType = "application/vnd.oci.image.index.v1+json"
	for _, repo := range []string{"a", "b"} {
		for i := range 3 {
			data := strings.Repeat("x", i*5000)
			qt.Assert(t, qt.IsNil(PushBlob(ctx, m, repo, digest.FromString(data), strings.NewReader(data))))
			qt.Assert(t, qt.IsNil(PushBlob(ctx, m, repo, digest.FromString(data), strings.NewReader(data))))
		}
		for _, tags := range [][]string{{"one", "two"}, {"two", "three"}, nil} {
			_, err := PushManifest(ctx, m, repo, ManifestPush{MediaType: indexType, Content: index, Tags: tags})
			qt.Assert(t, qt.IsNil(err))
		}
		_, err := PushManifest(ctx, m, repo, ManifestPush{Content: []byte("moved"), Tags: []string{"two"}})
		qt.Assert(t, qt.IsNil(err))
	}
	data := strings.Repeat("x", 5000)
	qt.Assert(t, qt.IsNil(m.MountBlob(ctx, "c", "a", digest.FromString(data))))
	qt.Assert(t, qt.IsNil(m.MountBlob(ctx, "c", "c", digest.FromString(data))))
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "c", digest.FromString(data))))
	qt.Assert(t, qt.IsNil(m.DeleteTag(ctx, "a", "one", nil)))
	qt.Check(t, qt.ErrorIs(PushBlob(ctx, m, "a", digest.FromString("x"), strings.NewReader("y")), error(ErrDigestInvalid)))
	for _, repo := range []string{"a", "b"} {
		for i := range 3 {
			qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, repo, digest.FromString(strings.Repeat("x", i*5000)))))
		}
		qt.Assert(t, qt.IsNil(m.DeleteManifest(ctx, repo, digest.FromBytes(index))))
		qt.Assert(t, qt.IsNil(m.DeleteManifest(ctx, repo, digest.FromString("moved"))))
	}
	checkEmpty(t, m)
}

func TestMemStoreUploadsReleaseEverything(t *testing.T) {
	ctx := context.Background()
	m := &MemStore{Limits: MemLimits{TotalBytes: 100_000}}
	for _, end := range []func(u Upload){
		func(u Upload) { u.Close(); m.CancelUpload(ctx, "a", u.ID()) },
		func(u Upload) { m.CancelUpload(ctx, "a", u.ID()); u.Close() },
		func(u Upload) { u.Rollback(); m.CancelUpload(ctx, "a", u.ID()); u.Close(); u.Close() },
		func(u Upload) {
			m.CancelUpload(ctx, "a", u.ID())
			qt.Check(t, qt.ErrorIs(u.Commit(ctx, digest.FromString(strings.Repeat("x", 50_000))), error(ErrBlobUploadUnknown)))
			_, err := u.ReadFrom(strings.NewReader("more"))
			qt.Check(t, qt.ErrorIs(err, error(ErrBlobUploadUnknown)))
			u.Close()
		},
		func(u Upload) {
			_, err := u.ReadFrom(strings.NewReader(strings.Repeat("x", 200_000)))
			qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)))
			u.Close()
			m.CancelUpload(ctx, "a", u.ID())
		},
		func(u Upload) {
			d := digest.FromString(strings.Repeat("x", 50_000))
			qt.Check(t, qt.IsNil(u.Commit(ctx, d)))
			u.Close()
			qt.Check(t, qt.IsNil(m.DeleteBlob(ctx, "a", d)))
		},
	} {
		u, err := m.CreateUpload(ctx, "a", UploadOptions{})
		qt.Assert(t, qt.IsNil(err))
		_, err = u.ReadFrom(strings.NewReader(strings.Repeat("x", 50_000)))
		qt.Assert(t, qt.IsNil(err))
		end(u)
		checkEmpty(t, m)
	}
}

func TestMemStoreTotalBytes(t *testing.T) {
	ctx := context.Background()
	const limit = 100_000
	m := &MemStore{Limits: MemLimits{TotalBytes: limit}}
	push := func(i, size int) (digest.Digest, error) {
		data := fmt.Sprint(i) + strings.Repeat("x", size)
		d := digest.FromString(data)
		return d, PushBlob(ctx, m, "a", d, strings.NewReader(data))
	}
	var blobs []digest.Digest
	for i := 0; ; i++ {
		d, err := push(i, 10_000)
		qt.Assert(t, qt.IsTrue(m.load().bytes.all+m.reserved.all <= limit))
		if err != nil {
			qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)))
			qt.Check(t, qt.ErrorMatches(err, `.*the registry is full, its limit is 100000 bytes`))
			break
		}
		blobs = append(blobs, d)
	}
	qt.Check(t, qt.Equals(len(blobs), 9))
	for i := range limit {
		if _, err := PushManifest(ctx, m, "a", ManifestPush{Content: []byte("m"), Tags: []string{fmt.Sprint(i)}}); err != nil {
			qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)))
			break
		}
	}
	qt.Check(t, qt.IsTrue(m.load().bytes.all <= limit))
	_, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)))

	// Deletes make room.
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", blobs[0])))
	_, err = push(0, 9_000)
	qt.Check(t, qt.IsNil(err))
}

// TestMemStoreExactFit pushes blobs that exactly fit, and one that is a byte too
// long.
func TestMemStoreExactFit(t *testing.T) {
	const overhead = 3 * entryOverhead // of the session, or of the blob's and the repository's entries
	for _, size := range []int{minSegment - 1, minSegment, minSegment + 1, 2 * minSegment, 100_000} {
		data := strings.Repeat("x", size)
		push := func(limit int) (*MemStore, error) {
			m := &MemStore{Limits: MemLimits{TotalBytes: int64(limit)}}
			return m, PushBlob(context.Background(), m, "a", digest.FromString(data), strings.NewReader(data))
		}
		_, err := push(size + overhead)
		qt.Check(t, qt.IsNil(err), qt.Commentf("%d bytes", size))
		m, err := push(size + entryOverhead - 1)
		qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)), qt.Commentf("%d bytes", size))
		checkEmpty(t, m)
	}
}

// TestMemStoreFailedCommit continues an upload whose blob did not fit.
func TestMemStoreFailedCommit(t *testing.T) {
	ctx := context.Background()
	data := strings.Repeat("x", minSegment)
	m := &MemStore{Limits: MemLimits{TotalBytes: minSegment + entryOverhead + minSegment}}
	u, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(strings.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	m.Limits.TotalBytes = 100 // as a wrapper could
	qt.Assert(t, qt.ErrorIs(u.Commit(ctx, digest.FromString(data)), error(ErrTooLarge)))
	m.Limits.TotalBytes = 0
	_, err = u.ReadFrom(strings.NewReader(data))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(u.Commit(ctx, digest.FromString(data+data))))
	qt.Assert(t, qt.IsNil(u.Close()))
	r, err := m.OpenBlob(ctx, "a", digest.FromString(data+data))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(iotest.TestReader(r, []byte(data+data))))
	qt.Assert(t, qt.IsNil(r.Close()))
	qt.Assert(t, qt.IsNil(m.DeleteBlob(ctx, "a", digest.FromString(data+data))))
	checkEmpty(t, m)
}

// TestMemLeaseSize calls Size of a lease that has ended while the next one writes.
// It would be a race to read the session's size.
func TestMemLeaseSize(t *testing.T) {
	ctx := context.Background()
	m := new(MemStore)
	first, err := m.CreateUpload(ctx, "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = first.ReadFrom(strings.NewReader("one"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(first.Close()))
	done := make(chan bool)
	go func() {
		defer close(done)
		second, err := m.ResumeUpload(ctx, "a", first.ID())
		qt.Check(t, qt.IsNil(err))
		_, err = second.ReadFrom(strings.NewReader("two"))
		qt.Check(t, qt.IsNil(err))
		second.Close()
	}()
	qt.Check(t, qt.Equals(first.Size(), 3))
	<-done
	qt.Check(t, qt.Equals(first.Size(), 3))
}

func TestMemReader(t *testing.T) {
	for _, size := range []int{0, 1, minSegment, minSegment + 1, 5*minSegment + 3, 3 * maxSegment} {
		data := bytes.Repeat([]byte("0123456789abc"), size/13+1)[:size]
		m := new(MemStore)
		d := digest.FromBytes(data)
		qt.Assert(t, qt.IsNil(PushBlob(context.Background(), m, "a", d, iotest.OneByteReader(bytes.NewReader(data)))))
		r, err := m.OpenBlob(context.Background(), "a", d)
		qt.Assert(t, qt.IsNil(err))
		if size < 100_000 { // the test is quadratic
			qt.Check(t, qt.IsNil(iotest.TestReader(r, data)), qt.Commentf("%d bytes", size))
			continue
		}
		for _, at := range []int64{int64(size) - 1, 0, maxSegment + minSegment, 17, maxSegment} {
			_, err := r.Seek(at, io.SeekStart)
			qt.Assert(t, qt.IsNil(err))
			got, err := io.ReadAll(r)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(bytes.Equal(got, data[at:])))
		}
	}
}

func TestMemStoreKeepsNoSlack(t *testing.T) {
	m := new(MemStore)
	for _, size := range []int{1, 100, 5000, 100_000, 3 << 20} {
		data := strings.Repeat("x", size)
		d := digest.FromString(data)
		qt.Assert(t, qt.IsNil(PushBlob(context.Background(), m, "a", d, iotest.HalfReader(strings.NewReader(data)))))
		links, _ := m.load().blobs.Get(string(d))
		capacity := 0
		for _, s := range links.segments {
			capacity += cap(s)
		}
		qt.Check(t, qt.IsTrue(capacity <= size+size/10+16), qt.Commentf("%d for %d", capacity, size))
	}
}

func TestMemUploadEmptyReads(t *testing.T) {
	u, err := new(MemStore).CreateUpload(context.Background(), "a", UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	_, err = u.ReadFrom(readerFunc(func([]byte) (int, error) { return 0, nil }))
	qt.Check(t, qt.ErrorIs(err, io.ErrNoProgress))
	failed := errors.New("failed")
	n, err := u.ReadFrom(io.MultiReader(strings.NewReader("kept"), iotest.ErrReader(failed)))
	qt.Check(t, qt.ErrorIs(err, failed))
	qt.Check(t, qt.Equals(n, 4))
	qt.Check(t, qt.Equals(u.Size(), 4))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
