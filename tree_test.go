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

// TestTreeIsBalanced has keys come, and go, in order, which is the worst for a
// tree that does nothing about it.
func TestTreeIsBalanced(t *testing.T) {
	const keys = 100_000
	key := func(i int) string { return fmt.Sprintf("%06d", i) }
	var tr tree[struct{}]
	for i := range keys {
		tr = tr.with(key(i), struct{}{})
	}
	shape(t, tr, 6) // of half full nodes: 8^6 > 100,000
	for i := range keys {
		if i%100 > 0 {
			tr = tr.without(key(i))
		}
	}
	nodes := shape(t, tr, 5)
	qt.Check(t, qt.IsTrue(nodes <= tr.len), qt.Commentf("%d nodes for %d keys", nodes, tr.len))
	for i := range keys / 100 {
		tr = tr.without(key(100 * i))
	}
	qt.Check(t, qt.Equals(tr, tree[struct{}]{}))
}

// shape checks what is said of nodes, and returns their number.
func shape[V any](t *testing.T, tr tree[V], depth int) (nodes int) {
	t.Helper()
	leaves := -1 // their depth
	var walk func(n *node[V], at int)
	walk = func(n *node[V], at int) {
		nodes++
		qt.Assert(t, qt.IsTrue(at < depth), qt.Commentf("deeper than %d", depth))
		qt.Assert(t, qt.Equals(n.children == nil, n.entries != nil))
		qt.Assert(t, qt.IsTrue(len(n.entries)+len(n.children) <= width))
		if n.children == nil {
			if leaves < 0 {
				leaves = at
			}
			qt.Assert(t, qt.Equals(at, leaves))
		}
		for _, c := range n.children {
			walk(c.node, at+1)
		}
	}
	walk(tr.root, 0)
	return nodes
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
