// SPDX-License-Identifier: Apache-2.0

// Tests of writers.

package objectstest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

const mib = 1 << 20

func testWriterSizes(t *tester) {
	for _, size := range []int{0, 1, 8*mib - 1, 8 * mib, 8*mib + 1, 20 * mib} {
		key := fmt.Sprint("size-", size)
		data := random(size)
		t.write(key, data)
		t.same(key, data)
		qt.Assert(t, qt.Equals(t.stat(key).Size, int64(size)))
		if size > 8*mib {
			got, o := t.getRange(key, 8*mib-1, 2) // across the end of a chunk
			qt.Check(t, qt.DeepEquals(got, data[8*mib-1:8*mib+1]))
			qt.Check(t, qt.Equals(o.Size, int64(size)))
		}
		qt.Assert(t, qt.Equals(t.unfinished(key), 0))
	}
}

func testWriterReplaces(t *tester) {
	for _, size := range []int{5, 9 * mib} {
		t.put("k", "before")
		before := t.stat("k").Version
		data := random(size)
		t.write("k", data)
		t.same("k", data)
		qt.Assert(t, qt.Not(qt.Equals(t.stat("k").Version, before)))
	}
}

// testWriterInvisible checks that an object begins to exist when Close returns.
func testWriterInvisible(t *tester) {
	w := t.bucket.NewWriter(t.ctx, "k")
	defer w.Abort()
	data := random(20 * mib)
	_, err := w.Write(data)
	qt.Assert(t, qt.IsNil(err))
	t.absent("k")
	qt.Assert(t, qt.Equals(len(t.list(objects.ListQuery{}, 10)), 0))
	qt.Assert(t, qt.IsNil(w.Close()))
	t.same("k", data)
	w.Abort() // does nothing after Close
	t.same("k", data)
}

func testWriterAbort(t *tester) {
	t.bucket.NewWriter(t.ctx, "nothing").Abort()
	t.absent("nothing")
	for _, size := range []int{1, 8 * mib, 8*mib + 1, 20 * mib} {
		t.put("k", "before")
		for _, key := range []string{"k", "new"} {
			w := t.bucket.NewWriter(t.ctx, key)
			_, err := w.Write(random(size))
			qt.Check(t, qt.IsNil(err))
			w.Abort()
			qt.Assert(t, qt.Equals(t.unfinished(key), 0))
			qt.Assert(t, qt.IsNotNil(w.Close()))
			w.Abort()
		}
		t.absent("new")
		t.is("k", "before")
	}
	qt.Assert(t, qt.DeepEquals(keysOf(t.list(objects.ListQuery{}, 10)), []string{"k"}))
}

func testWriterCancelled(t *tester) {
	for i, size := range []int{0, 1, 9 * mib, 17 * mib} {
		for _, end := range []string{"close", "abort", "write"} {
			key := fmt.Sprint(end, i)
			ctx, cancel := context.WithCancel(t.ctx)
			w := t.bucket.NewWriter(ctx, key)
			_, err := w.Write(random(size))
			qt.Check(t, qt.IsNil(err))
			cancel()
			switch end {
			case "close":
				qt.Check(t, qt.IsNotNil(w.Close()))
			case "write":
				w.Write(random(17 * mib))
			}
			w.Abort()
			t.absent(key)
			qt.Assert(t, qt.Equals(t.unfinished(key), 0))
		}
	}
	qt.Assert(t, qt.Equals(len(t.list(objects.ListQuery{}, 10)), 0))
}

func testWritersConcurrently(t *tester) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			w := t.bucket.NewWriter(t.ctx, fmt.Sprint("k", i))
			defer w.Abort()
			if _, err := w.Write(random(9*mib + i)); err != nil {
				t.Error(err)
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 6 {
		t.same(fmt.Sprint("k", i), random(9*mib+i))
	}
}

// testAbortWriters abandons a writer, as a process that stops does. A bucket may
// lack the notion of unfinished objects.
func testAbortWriters(t *tester) {
	w := t.bucket.NewWriter(t.ctx, "k")
	defer w.Abort()
	_, err := w.Write(random(20 * mib))
	qt.Assert(t, qt.IsNil(err))

	n, err := t.bucket.AbortWriters(t.ctx, "k", time.Now().Add(-time.Hour))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	n, err = t.bucket.AbortWriters(t.ctx, "another", time.Now().Add(time.Hour))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
	if t.unfinished("k") == 0 {
		qt.Assert(t, qt.IsNil(w.Close()))
		return
	}
	qt.Assert(t, qt.IsNotNil(w.Close()))
	t.absent("k")
	qt.Assert(t, qt.Equals(t.unfinished("k"), 0))
}
