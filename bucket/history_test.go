// SPDX-License-Identifier: Apache-2.0

package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

func openObjects(t *testing.T) objects.Bucket {
	t.Helper()
	u, err := url.Parse("mem://")
	qt.Assert(t, qt.IsNil(err))
	b, err := objects.Open(t.Context(), u)
	qt.Assert(t, qt.IsNil(err))
	return b
}

// losingBucket loses the response to the first write of a tag, after it has called a
// function.
type losingBucket struct {
	objects.Bucket
	then func()
}

func (b *losingBucket) Put(ctx context.Context, key string, data []byte, c objects.Condition) (string, error) {
	version, err := b.Bucket.Put(ctx, key, data, c)
	if then := b.then; then != nil && err == nil && strings.Contains(key, "/_tags/") {
		b.then = nil
		then()
		return "", errors.New("the response was lost")
	}
	return version, err
}

// TestForgottenWrites writes a new tag, loses the response, and meanwhile changes the
// tag so often that its register forgets the first write. The push must not take effect
// a second time.
func TestForgottenWrites(t *testing.T) {
	for _, n := range []int{1, 6, 7, 9, 14, 15, 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			ctx := t.Context()
			inner := openObjects(t)
			b := &losingBucket{Bucket: inner}
			one, two := bucket.NewOn(b, nil), bucket.NewOn(inner, nil)
			b.then = func() {
				for i := range n {
					qt.Check(t, qt.IsNil(two.PutManifest(ctx, "a", manifest(fmt.Sprint(i%2)), []string{"tag"}, nil)))
				}
				qt.Check(t, qt.IsNil(two.DeleteTag(ctx, "a", "tag", nil)))
				qt.Check(t, qt.IsNil(two.PutManifest(ctx, "a", manifest("last"), []string{"tag"}, nil)))
			}
			err := one.PutManifest(ctx, "a", manifest("first"), []string{"tag"}, nil)
			if err != nil {
				qt.Check(t, qt.ErrorIs(err, error(registry.ErrUnavailable)))
			}
			m, err := two.GetTag(ctx, "a", "tag")
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(m.Digest, manifest("last").Digest))
		})
	}
}

// slowBucket takes some time to write the data of a blob.
type slowBucket struct {
	objects.Bucket
	delay  time.Duration
	writes int
}

func (b *slowBucket) NewWriter(ctx context.Context, key string) objects.Writer {
	w := b.Bucket.NewWriter(ctx, key)
	if strings.Contains(key, "/data/") {
		return slowWriter{w, b}
	}
	return w
}

type slowWriter struct {
	objects.Writer
	b *slowBucket
}

func (w slowWriter) Close() error {
	time.Sleep(w.b.delay)
	w.b.writes++
	return w.Writer.Close()
}

// TestSlowWrite publishes a blob whose data takes longer to write than data can be
// trusted to have no mark of GC. It is written once.
func TestSlowWrite(t *testing.T) {
	ctx := t.Context()
	b := &slowBucket{Bucket: openObjects(t), delay: 600 * time.Millisecond}
	s := bucket.NewOn(b, nil)
	s.SetGrace(500*time.Millisecond, 1500*time.Millisecond)
	u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{})
	qt.Assert(t, qt.IsNil(err))
	for _, data := range []string{"one", "two"} {
		_, err := u.ReadFrom(strings.NewReader(data))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(u.Close()))
		u, err = s.ResumeUpload(ctx, "a", u.ID())
		qt.Assert(t, qt.IsNil(err))
	}
	d := digest.FromString("onetwo")
	qt.Assert(t, qt.IsNil(u.Commit(ctx, d)))
	qt.Assert(t, qt.IsNil(u.Close()))
	qt.Check(t, qt.Equals(b.writes, 1))
	wantBlob(t, s, "a", d)
}

// TestManyLeasesShareTheBuffers lets many uploads grow at the same time until all of
// the memory for buffers is in use: none waits for the others.
func TestManyLeasesShareTheBuffers(t *testing.T) {
	ctx := t.Context()
	s := bucket.NewOn(openObjects(t), &bucket.Options{Memory: 32 << 20, Timeout: 2 * time.Second})
	const n = 64
	start := make(chan struct{})
	errs := make(chan error, n)
	for i := range n {
		data := strings.Repeat(fmt.Sprintf("%08d", i), 1<<18) // 2 MiB
		u, err := s.CreateUpload(ctx, "a", registry.UploadOptions{})
		qt.Assert(t, qt.IsNil(err))
		go func() {
			defer u.Close()
			// All have read half of a buffer when the others come.
			_, err := u.ReadFrom(strings.NewReader(data[:100_000]))
			<-start
			if err == nil {
				_, err = u.ReadFrom(strings.NewReader(data[100_000:]))
			}
			if err == nil {
				err = u.Commit(ctx, digest.FromString(data))
			}
			errs <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	close(start)
	for range n {
		qt.Check(t, qt.IsNil(<-errs))
	}
}
