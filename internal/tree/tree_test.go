// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestTreeAgainstMap makes random changes to a Map and to a Go map, and compares
// the two; old versions of the Map must not change.
func TestTreeAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	type version struct {
		tree Map[int]
		want map[string]int
	}
	var versions []version
	var tr Map[int]
	want := make(map[string]int)
	for i := range 3000 {
		key := fmt.Sprint(rnd.IntN(500))
		switch {
		case rnd.IntN(50) == 0:
			var some []string
			for range rnd.IntN(100) {
				some = append(some, fmt.Sprint(rnd.IntN(1000)))
			}
			slices.Sort(some)
			some = slices.Compact(some)
			tr = tr.Without(some...)
			for _, key := range some {
				delete(want, key)
			}
		case rnd.IntN(3) == 0:
			tr = tr.Without(key)
			delete(want, key)
		default:
			tr = tr.With(key, i)
			want[key] = i
		}
		if i%100 == 0 {
			versions = append(versions, version{tr, maps.Clone(want)})
		}
	}
	for _, v := range append(versions, version{tr, want}) {
		qt.Assert(t, qt.Equals(v.tree.len, len(v.want)))
		qt.Assert(t, qt.DeepEquals(maps.Collect(v.tree.After("")), v.want))
		for key, value := range v.want {
			got, ok := v.tree.Get(key)
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.Equals(got, value))
		}
		_, ok := v.tree.Get("none")
		qt.Assert(t, qt.IsFalse(ok))
		keys := slices.Sorted(maps.Keys(v.want))
		for _, after := range []string{"", "0", "2", "25", "250", "2500", "499", "x"} {
			var got, wantKeys []string
			for key := range v.tree.After(after) {
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

// TestTreeIsBalanced adds and removes keys in order, the worst case for a tree
// without rebalancing.
func TestTreeIsBalanced(t *testing.T) {
	const keys = 100_000
	key := func(i int) string { return fmt.Sprintf("%06d", i) }
	var tr Map[struct{}]
	for i := range keys {
		tr = tr.With(key(i), struct{}{})
	}
	shape(t, tr, 6) // with nodes about half full: 8^6 > 100,000
	for i := range keys {
		if i%100 > 0 {
			tr = tr.Without(key(i))
		}
	}
	nodes := shape(t, tr, 5)
	qt.Check(t, qt.IsTrue(nodes <= tr.len), qt.Commentf("%d nodes for %d keys", nodes, tr.len))
	var others []string
	for i := range keys {
		if i%100 > 0 {
			others = append(others, key(i))
		}
	}
	full := tr
	for _, key := range others {
		full = full.With(key, struct{}{})
	}
	atOnce := full.Without(others...)
	qt.Check(t, qt.Equals(atOnce.len, tr.len))
	nodes = shape(t, atOnce, 5)
	qt.Check(t, qt.IsTrue(nodes <= tr.len), qt.Commentf("%d nodes for %d keys", nodes, tr.len))
	for i := range keys / 100 {
		tr = tr.Without(key(100 * i))
	}
	qt.Check(t, qt.Equals(tr, Map[struct{}]{}))
}

// shape checks the invariants of the nodes, and returns their number.
func shape[V any](t *testing.T, tr Map[V], depth int) (nodes int) {
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
	var tr Map[int]
	for i := range 100 {
		tr = tr.With(fmt.Sprintf("%02d", i), i)
	}
	n := 0
	for range tr.After("10") {
		if n++; n == 5 {
			break
		}
	}
	qt.Check(t, qt.Equals(n, 5))
}

// TestSetAgainstMap makes random changes to a small Set and to a Go map, and compares the two.
func TestSetAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var s Set
	want := make(map[string]bool)
	for range 3000 {
		before, all := s, slices.Collect(s.All())
		key := fmt.Sprint(rnd.IntN(5))
		if rnd.IntN(2) == 0 {
			s = s.With(key)
			want[key] = true
		} else {
			s = s.Without(key)
			delete(want, key)
		}
		qt.Assert(t, qt.Equals(s.Len(), len(want)))
		qt.Assert(t, qt.DeepEquals(slices.Collect(s.All()), slices.Sorted(maps.Keys(want))))
		qt.Assert(t, qt.DeepEquals(slices.Collect(before.All()), all))
	}
}
