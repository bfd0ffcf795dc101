// SPDX-License-Identifier: Apache-2.0

// Package objectstest tests implementations of objects.Bucket.
package objectstest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// Test tests that a bucket keeps the promises of objects.Bucket. open returns an
// empty bucket, which Test closes. The tests run in parallel.
//
// A bucket may ignore the conditions of deletions, as MinIO does: Test logs that.
func Test(t *testing.T, open func(t *testing.T) objects.Bucket) {
	for _, test := range []struct {
		name string
		f    func(*tester)
	}{
		{"Create", testCreate},
		{"CreateOnce", testCreateOnce},
		{"Swap", testSwap},
		{"SwapConcurrently", testSwapConcurrently},
		{"Versions", testVersions},
		{"Delete", testDelete},
		{"DeleteVersion", testDeleteVersion},
		{"Ranges", testRanges},
		{"Empty", testEmpty},
		{"Missing", testMissing},
		{"Cancelled", testCancelled},
		{"Times", testTimes},
		{"Copy", testCopy},
		{"CopyReplaces", testCopyReplaces},
		{"SignedURL", testSignedURL},
		{"ListOrder", testListOrder},
		{"ListPages", testListPages},
		{"ListAfter", testListAfter},
		{"ListWrites", testListWrites},
		{"ListDuringDeletes", testListDuringDeletes},
		{"WriterSizes", testWriterSizes},
		{"WriterReplaces", testWriterReplaces},
		{"WriterInvisible", testWriterInvisible},
		{"WriterAbort", testWriterAbort},
		{"WriterCancelled", testWriterCancelled},
		{"WritersConcurrently", testWritersConcurrently},
		{"AbortWriters", testAbortWriters},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			defer func() { qt.Check(t, qt.IsNil(b.Close())) }()
			test.f(&tester{t, context.Background(), b})
		})
	}
}

// tester calls a bucket, and fails the test if that fails.
type tester struct {
	*testing.T
	ctx    context.Context
	bucket objects.Bucket
}

// put writes an object without a condition.
func (t *tester) put(key, data string) (version string) {
	t.Helper()
	version, err := t.bucket.Put(t.ctx, key, []byte(data), objects.Condition{})
	qt.Assert(t, qt.IsNil(err))
	return version
}

// get reads an object.
func (t *tester) get(key string) ([]byte, objects.Object) {
	t.Helper()
	return t.getRange(key, 0, -1)
}

func (t *tester) getRange(key string, offset, n int64) ([]byte, objects.Object) {
	t.Helper()
	r, err := t.bucket.Get(t.ctx, key, offset, n)
	qt.Assert(t, qt.IsNil(err))
	data, err := io.ReadAll(r)
	qt.Check(t, qt.IsNil(r.Close()))
	qt.Assert(t, qt.IsNil(err))
	return data, r.Object
}

// is checks an object's bytes.
func (t *tester) is(key, want string) {
	t.Helper()
	data, o := t.get(key)
	if string(data) != want {
		t.Fatalf("%q has %d bytes, not the %d expected: %.100q", key, len(data), len(want), data)
	}
	qt.Check(t, qt.Equals(o.Size, int64(len(want))))
}

func (t *tester) stat(key string) objects.Object {
	t.Helper()
	o, err := t.bucket.Stat(t.ctx, key)
	qt.Assert(t, qt.IsNil(err))
	return o
}

// absent checks that an object does not exist.
func (t *tester) absent(key string) {
	t.Helper()
	_, err := t.bucket.Stat(t.ctx, key)
	qt.Assert(t, qt.ErrorIs(err, objects.ErrNotExist))
	r, err := t.bucket.Get(t.ctx, key, 0, -1)
	if err == nil {
		r.Close()
	}
	qt.Assert(t, qt.ErrorIs(err, objects.ErrNotExist))
}

// write writes an object with a Writer, in pieces of an odd size.
func (t *tester) write(key string, data []byte) {
	t.Helper()
	w := t.bucket.NewWriter(t.ctx, key)
	for piece := range slices.Chunk(data, 1<<20+3) {
		if n, err := w.Write(piece); err != nil || n != len(piece) {
			w.Abort()
			t.Fatalf("%d, %v; want %d", n, err, len(piece))
		}
	}
	qt.Assert(t, qt.IsNil(w.Close()))
}

// list returns the list of a query, in pages of n.
func (t *tester) list(q objects.ListQuery, n int) (all []objects.Object) {
	t.Helper()
	for range 1000 {
		page, next, err := t.bucket.List(t.ctx, q, n)
		qt.Assert(t, qt.IsNil(err))
		if len(page) > n {
			t.Fatalf("%d objects on a page of up to %d", len(page), n)
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		q.Token = next
	}
	t.Fatal("the list does not end")
	return nil
}

func keysOf(list []objects.Object) []string {
	keys := make([]string, len(list))
	for i, o := range list {
		keys[i] = o.Key
	}
	return keys
}

// unfinished returns the number of unfinished objects under a key, and discards
// them.
func (t *tester) unfinished(key string) int {
	t.Helper()
	n, err := t.bucket.AbortWriters(t.ctx, key, time.Now().Add(time.Hour))
	qt.Assert(t, qt.IsNil(err))
	return n
}

// unknown reports whether an error leaves the outcome of a write open.
func unknown(err error) bool {
	return err != nil && !errors.Is(err, objects.ErrCondition) && !errors.Is(err, objects.ErrNotExist) &&
		!errors.Is(err, objects.ErrRejected) && !errors.Is(err, objects.ErrUnsupported)
}

// noise are bytes without a pattern, of a length that no chunk is a multiple of.
var noise = func() []byte {
	b := make([]byte, 65537)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}()

// random returns n bytes, others for each small n.
func random(n int) []byte {
	b := make([]byte, 0, n)
	for start := n % len(noise); len(b) < n; start = 0 {
		b = append(b, noise[start:min(len(noise), start+n-len(b))]...)
	}
	return b
}

// same checks large objects without printing them.
func (t *tester) same(key string, want []byte) {
	t.Helper()
	data, o := t.get(key)
	if !bytes.Equal(data, want) {
		t.Fatalf("%q: %d other bytes than the %d written", key, len(data), len(want))
	}
	qt.Check(t, qt.Equals(o.Size, int64(len(want))))
}
