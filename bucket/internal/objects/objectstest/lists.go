// SPDX-License-Identifier: Apache-2.0

// Tests of lists.

package objectstest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// oddKeys are in an order other than that of directories, or of languages.
var oddKeys = []string{
	"A", "B/x", "a!", "a", "dir!x", "dir-x", "dir.x/y", "dir.x/z", "dir/a", "dir/a-b", "dir/sub/x", "dir0",
	"hex__0x41__", "hex__0x2f__0x41__/x", "z", "zz/1", "zz/10", "zz/2", "ä", "ü/ß",
}

func testListOrder(t *tester) {
	want := slices.Sorted(slices.Values(oddKeys))
	for i, key := range oddKeys {
		t.put(key, strings.Repeat("x", i))
	}
	for _, n := range []int{1, 2, 3, 7, 1000} {
		list := t.list(objects.ListQuery{}, n)
		qt.Assert(t, qt.DeepEquals(keysOf(list), want), qt.Commentf("pages of %d", n))
		for _, o := range list {
			qt.Check(t, qt.Equals(o.Size, int64(slices.Index(oddKeys, o.Key))))
			qt.Check(t, qt.IsFalse(o.Time.IsZero()))
			qt.Check(t, qt.Equals(o.Version, ""))
		}
	}
	for _, prefix := range []string{"d", "dir", "dir/", "dir/a", "dir.x/", "zz/1", "ä", "none", "a!!", "hex__0x2f__0x41__/"} {
		for _, after := range []string{"", "A", "dir-x", "dir/a", "dir/a-", "zz/1", "~"} {
			var want []string
			for _, key := range slices.Sorted(slices.Values(oddKeys)) {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			for _, n := range []int{1, 2, 100} {
				got := keysOf(t.list(objects.ListQuery{Prefix: prefix, After: after}, n))
				if !slices.Equal(got, want) {
					t.Errorf("prefix %q, after %q, pages of %d: %q; want %q", prefix, after, n, got, want)
				}
			}
		}
	}
}

func testListPages(t *tester) {
	var want []string
	for i := range 25 {
		key := fmt.Sprintf("page/%02d", i)
		want = append(want, key)
		t.put(key, "x")
	}
	t.put("other", "x")
	for _, n := range []int{1, 5, 7, 24, 25, 26, 2000} {
		qt.Assert(t, qt.DeepEquals(keysOf(t.list(objects.ListQuery{Prefix: "page/"}, n)), want))
	}

	// A list goes on behind a page's end, even if that is deleted meanwhile.
	page, next, err := t.bucket.List(t.ctx, objects.ListQuery{Prefix: "page/"}, 10)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(keysOf(page), want[:10]))
	qt.Assert(t, qt.Not(qt.Equals(next, "")))
	for _, key := range want[5:11] {
		qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, key, "")))
	}
	t.put("page/105", "x")
	rest := keysOf(t.list(objects.ListQuery{Prefix: "page/", Token: next}, 10))
	qt.Assert(t, qt.DeepEquals(rest, append([]string{"page/105"}, want[11:]...)))
}

func testListAfter(t *tester) {
	for i := range 12 {
		t.put(fmt.Sprintf("p/%02d", i), "x")
	}
	for _, test := range []struct {
		after string
		first int // index of the first object listed
	}{
		{"p/", 0}, {"o", 0}, {"p/00", 1}, {"p/005", 1}, {"p/05", 6}, {"p/10", 11}, {"p/11", 12}, {"p/99", 12}, {"q", 12},
	} {
		for _, n := range []int{1, 3, 6, 100} {
			list := t.list(objects.ListQuery{Prefix: "p/", After: test.after}, n)
			qt.Assert(t, qt.Equals(len(list), 12-test.first), qt.Commentf("after %q", test.after))
			if len(list) > 0 {
				qt.Assert(t, qt.Equals(list[0].Key, fmt.Sprintf("p/%02d", test.first)))
			}
		}
	}
}

// testListWrites lists right after writes.
func testListWrites(t *tester) {
	qt.Assert(t, qt.Equals(len(t.list(objects.ListQuery{}, 10)), 0))
	for i := range 5 {
		size := func() int64 {
			list := t.list(objects.ListQuery{Prefix: "k"}, 10)
			qt.Assert(t, qt.Equals(len(list), 1))
			return list[0].Size
		}
		t.put("k", "one")
		qt.Assert(t, qt.Equals(size(), 3))
		t.put("k", "three")
		qt.Assert(t, qt.Equals(size(), 5))
		t.write("k", random(1000+i))
		qt.Assert(t, qt.Equals(size(), int64(1000+i)))
		qt.Assert(t, qt.IsNil(t.bucket.Copy(t.ctx, "copy", "k", int64(1000+i))))
		qt.Assert(t, qt.DeepEquals(keysOf(t.list(objects.ListQuery{}, 10)), []string{"copy", "k"}))
		qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "k", "")))
		qt.Assert(t, qt.DeepEquals(keysOf(t.list(objects.ListQuery{}, 10)), []string{"copy"}))
		qt.Assert(t, qt.IsNil(t.bucket.Delete(t.ctx, "copy", "")))
		qt.Assert(t, qt.Equals(len(t.list(objects.ListQuery{}, 10)), 0))
	}
}

// testListDuringDeletes lists while other objects with the prefix are deleted.
func testListDuringDeletes(t *tester) {
	t.put("p/stays", "x")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("p/goes/%d/%d", i, n)
				_, err := t.bucket.Put(t.ctx, key, nil, objects.Condition{})
				qt.Check(t, qt.IsNil(err))
				qt.Check(t, qt.IsNil(t.bucket.Delete(t.ctx, key, "")))
			}
		})
	}
	for range 300 {
		list, _, err := t.bucket.List(t.ctx, objects.ListQuery{Prefix: "p/"}, 1000)
		if !qt.Check(t, qt.IsNil(err)) {
			break
		}
		qt.Check(t, qt.IsTrue(slices.Contains(keysOf(list), "p/stays")))
	}
	close(stop)
	wg.Wait()
}
