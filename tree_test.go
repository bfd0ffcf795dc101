// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestTreeAgainstMap makes random changes to a tree and to a map, and compares
// the two, and each old tree with what it was.
func TestTreeAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type version struct {
		tree tree[int]
		want map[string]int
	}
	var versions []version
	var tr tree[int]
	want := make(map[string]int)
	for i := range 3000 {
		key := fmt.Sprint(rnd.IntN(500))
		if rnd.IntN(3) == 0 {
			tr = tr.without(key)
			delete(want, key)
		} else {
			tr = tr.with(key, i)
			want[key] = i
		}
		if i%100 == 0 {
			versions = append(versions, version{tr, maps.Clone(want)})
		}
	}
	for _, v := range append(versions, version{tr, want}) {
		qt.Assert(t, qt.Equals(v.tree.len, len(v.want)))
		qt.Assert(t, qt.DeepEquals(maps.Collect(v.tree.after("")), v.want))
		for key, value := range v.want {
			got, ok := v.tree.get(key)
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.Equals(got, value))
		}
		_, ok := v.tree.get("none")
		qt.Assert(t, qt.IsFalse(ok))
		keys := slices.Sorted(maps.Keys(v.want))
		for _, after := range []string{"", "0", "2", "25", "250", "2500", "499", "x"} {
			var got, wantKeys []string
			for key := range v.tree.after(after) {
				got = append(got, key)
			}
			i, found := slices.BinarySearch(keys, after)
			if found {
				i++
			}
			wantKeys = append(wantKeys, keys[i:]...)
			qt.Assert(t, qt.DeepEquals(got, wantKeys))
		}
	}
}

// TestTreeIsBalanced has keys come in order, which is the worst for a tree that
// does nothing about it.
func TestTreeIsBalanced(t *testing.T) {
	var tr tree[struct{}]
	for i := range 100_000 {
		tr = tr.with(fmt.Sprintf("%06d", i), struct{}{})
	}
	var depth func(n *node[struct{}]) int
	depth = func(n *node[struct{}]) int {
		if n == nil {
			return 0
		}
		return 1 + max(depth(n.left), depth(n.right))
	}
	// About 2 log2(n) is usual; the chance of more than 80 is nil.
	qt.Check(t, qt.IsTrue(depth(tr.root) < 80), qt.Commentf("%d", depth(tr.root)))
}

func TestTreeStopsEarly(t *testing.T) {
	var tr tree[int]
	for i := range 100 {
		tr = tr.with(fmt.Sprintf("%02d", i), i)
	}
	n := 0
	for range tr.after("10") {
		if n++; n == 5 {
			break
		}
	}
	qt.Check(t, qt.Equals(n, 5))
}
