// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"io"
	"net/url"
	"testing"

	"github.com/go-quicktest/qt"
	"gocloud.dev/blob"

	"github.com/berth-oci/registry/bucket/miniotest"
)

// BenchmarkRead reads a large object from MinIO, with this package and with the Go
// CDK.
func BenchmarkRead(b *testing.B) {
	const size = 256 << 20
	ctx := context.Background()
	direct := miniotest.Start(b).URL(b)
	bucket := open(b, direct)
	w := bucket.NewWriter(ctx, "k")
	for range size >> 20 {
		_, err := w.Write(make([]byte, 1<<20))
		qt.Assert(b, qt.IsNil(err))
	}
	qt.Assert(b, qt.IsNil(w.Close()))
	u, err := url.Parse(direct)
	qt.Assert(b, qt.IsNil(err))
	cdk, err := blob.OpenBucket(ctx, u.String())
	qt.Assert(b, qt.IsNil(err))
	defer cdk.Close()

	for _, bm := range []struct {
		name string
		get  func() (io.ReadCloser, error)
	}{
		{"objects", func() (io.ReadCloser, error) { return bucket.Get(ctx, "k", 0, -1) }},
		{"cdk", func() (io.ReadCloser, error) { return cdk.NewReader(ctx, "k", nil) }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				r, err := bm.get()
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); n != size || err != nil {
					b.Fatal(n, err)
				}
				r.Close()
			}
		})
	}
}

// BenchmarkWrite writes a large object to MinIO, with this package and with the Go
// CDK.
func BenchmarkWrite(b *testing.B) {
	const size = 128 << 20
	ctx := context.Background()
	direct := miniotest.Start(b).URL(b)
	bucket := open(b, direct)
	cdk, err := blob.OpenBucket(ctx, direct)
	qt.Assert(b, qt.IsNil(err))
	defer cdk.Close()
	piece := make([]byte, 1<<20)
	for _, bm := range []struct {
		name string
		open func() (io.WriteCloser, error)
	}{
		{"objects", func() (io.WriteCloser, error) { return bucket.NewWriter(ctx, "k"), nil }},
		{"cdk", func() (io.WriteCloser, error) {
			return cdk.NewWriter(ctx, "k", &blob.WriterOptions{ContentType: "application/octet-stream", BufferSize: 8 << 20, MaxConcurrency: 2})
		}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				w, err := bm.open()
				if err != nil {
					b.Fatal(err)
				}
				for range size >> 20 {
					if _, err := w.Write(piece); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
