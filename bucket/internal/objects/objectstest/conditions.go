// SPDX-License-Identifier: Apache-2.0

// Tests of conditions.

package objectstest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

func testCreate(t *tester) {
	_, err := t.bucket.Put(t.ctx, "k", []byte("one"), objects.Condition{Absent: true})
	qt.Assert(t, qt.IsNil(err))
	t.is("k", "one")
	_, err = t.bucket.Put(t.ctx, "k", []byte("two"), objects.Condition{Absent: true})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition))
	t.is("k", "one")
	t.put("k", "three")
	t.is("k", "three")

	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")))
	_, err = t.bucket.Put(t.ctx, "k", []byte("four"), objects.Condition{Absent: true})
	qt.Assert(t, qt.IsNil(err))
	t.is("k", "four")

	_, err = t.bucket.Put(t.ctx, "k", []byte("five"), objects.Condition{Absent: true, Version: t.stat("k").Version})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition))
	t.is("k", "four")
}

func testCreateOnce(t *tester) {
	const n = 32
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = t.bucket.Put(t.ctx, "k", fmt.Append(nil, "creator ", i), objects.Condition{Absent: true})
		})
	}
	wg.Wait()
	data, _ := t.get("k")
	winners := 0
	for i, err := range errs {
		itself := string(data) == fmt.Sprint("creator ", i)
		switch {
		case err == nil:
			winners++
			qt.Check(t, qt.IsTrue(itself), qt.Commentf("creator %d has won, but the object has other bytes", i))
		case unknown(err):
			t.Logf("creator %d: %v", i, err)
			if itself {
				winners++
			}
		default:
			qt.Check(t, qt.ErrorIs(err, objects.ErrCondition))
			qt.Check(t, qt.IsFalse(itself), qt.Commentf("creator %d has lost, but the object has its bytes", i))
		}
	}
	qt.Assert(t, qt.Equals(winners, 1))
}

func testSwap(t *tester) {
	_, err := t.bucket.Put(t.ctx, "k", []byte("one"), objects.Condition{Version: t.otherVersion()})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition), qt.Commentf("no such object"))
	t.absent("k")

	t.put("k", "one")
	v1 := t.stat("k").Version
	_, err = t.bucket.Put(t.ctx, "k", []byte("two"), objects.Condition{Version: v1})
	qt.Assert(t, qt.IsNil(err))
	t.is("k", "two")
	_, err = t.bucket.Put(t.ctx, "k", []byte("six"), objects.Condition{Version: v1})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition), qt.Commentf("an old version"))
	t.is("k", "two")

	v2 := t.stat("k").Version
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")))
	_, err = t.bucket.Put(t.ctx, "k", []byte("one"), objects.Condition{Version: v2})
	qt.Assert(t, qt.ErrorIs(err, objects.ErrCondition), qt.Commentf("deleted"))
	t.absent("k")
}

// otherVersion returns a version that is valid in this bucket.
func (t *tester) otherVersion() string {
	t.put("other", "some bytes of another object")
	return t.stat("other").Version
}

// testSwapConcurrently appends lines to an object, as a counter that also tells
// whose increment was lost.
func testSwapConcurrently(t *tester) {
	const writers, lines = 16, 4
	t.put("k", "")
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for j := range lines {
				if err := t.appendLine(fmt.Sprintf("%d-%d\n", i, j)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	data, _ := t.get("k")
	got := strings.Fields(string(data))
	slices.Sort(got)
	qt.Assert(t, qt.Equals(len(got), writers*lines))
	qt.Assert(t, qt.Equals(len(slices.Compact(got)), writers*lines))
}

func (t *tester) appendLine(line string) error {
	for range 10000 {
		data, o, err := t.tryGet("k")
		if err != nil {
			return err
		}
		// True only if an earlier attempt has succeeded without our knowledge.
		if strings.Contains("\n"+data, "\n"+line) {
			return nil
		}
		_, err = t.bucket.Put(t.ctx, "k", []byte(data+line), objects.Condition{Version: o.Version})
		if err == nil || !unknown(err) && !errors.Is(err, objects.ErrCondition) {
			return err
		}
	}
	return errors.New("too many attempts")
}

func testVersions(t *tester) {
	seen := make(map[string]int)
	for i := range 30 {
		put := t.put("k", fmt.Sprintf("%02d", i))
		data, got := t.get("k")
		qt.Assert(t, qt.Equals(string(data), fmt.Sprintf("%02d", i)))
		start, part := t.getRange("k", 0, 1)
		qt.Assert(t, qt.Equals(string(start), string(data[:1])))
		stat := t.stat("k")
		qt.Assert(t, qt.Not(qt.Equals(got.Version, "")))
		qt.Assert(t, qt.Equals(part.Version, got.Version))
		qt.Assert(t, qt.Equals(stat.Version, got.Version))
		if put != "" {
			qt.Assert(t, qt.Equals(put, got.Version))
		}
		if before, ok := seen[got.Version]; ok {
			t.Fatalf("writes %d and %d of different bytes have the same version %s", before, i, got.Version)
		}
		seen[got.Version] = i
	}
}

func testDelete(t *tester) {
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")), qt.Commentf("no such object"))
	version := t.otherVersion()
	if err := t.bucket.Delete(t.ctx, "k", version); !errors.Is(err, objects.ErrUnsupported) && !errors.Is(err, objects.ErrCondition) {
		qt.Assert(t, qt.IsNil(err), qt.Commentf("no such object"))
	}
	t.put("k", "bytes")
	t.put("kk", "bytes")
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")))
	t.absent("k")
	t.is("kk", "bytes")
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")), qt.Commentf("deleted"))
}

func testDeleteVersion(t *tester) {
	t.put("k", "one")
	v1 := t.stat("k").Version
	t.put("k", "two")
	v2 := t.stat("k").Version
	switch err := t.bucket.Delete(t.ctx, "k", v1); {
	case errors.Is(err, objects.ErrUnsupported):
		t.Log("the bucket can't delete on a condition")
		t.is("k", "two")
		return
	case errors.Is(err, objects.ErrCondition):
		t.is("k", "two")
	case err == nil:
		t.Log("the bucket ignores the condition of a deletion")
		t.absent("k")
		t.put("k", "two")
		v2 = t.stat("k").Version
	default:
		t.Fatal(err)
	}
	qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", v2)))
	t.absent("k")
}
