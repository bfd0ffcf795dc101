// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"io"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/miniotest"
)

// BenchmarkRead reads a large object from MinIO.
func BenchmarkRead(b *testing.B) {
	const size = 256 << 20
	ctx := context.Background()
	bucket := open(b, miniotest.Start(b).URL(b))
	w := bucket.NewWriter(ctx, "k")
	for range size >> 20 {
		_, err := w.Write(make([]byte, 1<<20))
		qt.Assert(b, qt.IsNil(err))
	}
	qt.Assert(b, qt.IsNil(w.Close()))
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		r, err := bucket.Get(ctx, "k", 0, -1)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			b.Fatal(n, err)
		}
		r.Close()
	}
}

// BenchmarkWrite writes a large object to MinIO.
func BenchmarkWrite(b *testing.B) {
	const size = 128 << 20
	ctx := context.Background()
	bucket := open(b, miniotest.Start(b).URL(b))
	piece := make([]byte, 1<<20)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		w := bucket.NewWriter(ctx, "k")
		for range size >> 20 {
			if _, err := w.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
