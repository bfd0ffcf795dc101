// SPDX-License-Identifier: Apache-2.0

// Package tree implements an immutable ordered map, and a set. A change returns a new one,
// which shares its unchanged parts with the old one. So a reader, a list on its way
// to a slow client, or a clone of a store can keep the map that it has.
package tree

import (
	"iter"
	"slices"
)

// A Map is a B+ tree with strings as keys. Its zero value is empty. Lookups and
// changes cost O(log n), whatever keys a client chooses, and a page of a list
// lies in few nodes.
type Map[V any] struct {
	root *node[V] // nil: empty
	len  int
}

// A node is a leaf, with entries, or has children. All leaves are at the same
// depth, and none is empty.
type node[V any] struct {
	entries  []entry[V] // in order
	children []child[V] // in order
}

type entry[V any] struct {
	key   string
	value V
}

// child is a node with a bound: no key in it is less, and all keys in the child
// before it are. The bound of a node's first child is not used.
type child[V any] struct {
	bound string
	*node[V]
}

// width is the maximum number of entries or children of a node. Each change
// copies one node a level: wider nodes cost more to copy, narrower ones more to
// find.
const width = 24

// Len returns the number of entries.
func (t Map[V]) Len() int { return t.len }

// Get returns the value of a key, and reports whether the key exists.
func (t Map[V]) Get(key string) (value V, ok bool) {
	n := t.root
	if n == nil {
		return value, false
	}
	for n.children != nil {
		n = n.children[n.child(key)].node
	}
	i, ok := n.entry(key)
	if !ok {
		return value, false
	}
	return n.entries[i].value, true
}

// With returns a map in which key has the value.
func (t Map[V]) With(key string, value V) Map[V] {
	if t.root == nil {
		return Map[V]{&node[V]{entries: []entry[V]{{key, value}}}, 1}
	}
	root, right, added := t.root.with(key, value)
	if right.node != nil {
		root = &node[V]{children: []child[V]{{node: root}, right}}
	}
	return Map[V]{root, t.len + added}
}

// Without returns a map without keys, which must be in order, and no two the same. It
// copies each node once, however many of them are below it.
func (t Map[V]) Without(keys ...string) Map[V] {
	if t.root == nil {
		return t
	}
	root, removed := t.root.without(keys)
	for root != nil && len(root.children) == 1 {
		root = root.children[0].node
	}
	return Map[V]{root, t.len - removed}
}

// After iterates in order over the entries whose keys are greater than key. For
// all entries, key is "", which must not be the key of an entry.
func (t Map[V]) After(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.root != nil {
			t.root.after(key, yield)
		}
	}
}

// child returns the index of the only child that may contain key.
func (n *node[V]) child(key string) int {
	i, j := 0, len(n.children)-1
	for i < j {
		if m := (i + j + 1) / 2; key < n.children[m].bound {
			j = m - 1
		} else {
			i = m
		}
	}
	return i
}

// entry returns the index of the first entry whose key is not less than key, and
// reports whether the two are equal.
func (n *node[V]) entry(key string) (int, bool) {
	i, j := 0, len(n.entries)
	for i < j {
		if m := (i + j) / 2; n.entries[m].key < key {
			i = m + 1
		} else {
			j = m
		}
	}
	return i, i < len(n.entries) && n.entries[i].key == key
}

// with returns n with an entry, split in two halves if it would be too wide, and
// the number of entries added.
func (n *node[V]) with(key string, value V) (left *node[V], right child[V], added int) {
	if n.children == nil {
		i, ok := n.entry(key)
		e := entry[V]{key, value}
		if ok {
			return &node[V]{entries: replaced(n.entries, i, i+1, e)}, right, 0
		}
		entries, rest := halves(replaced(n.entries, i, i, e))
		if rest != nil {
			right = child[V]{rest[0].key, &node[V]{entries: rest}}
		}
		return &node[V]{entries: entries}, right, 1
	}
	i := n.child(key)
	l, r, added := n.children[i].with(key, value)
	c := child[V]{n.children[i].bound, l}
	if r.node == nil {
		return &node[V]{children: replaced(n.children, i, i+1, c)}, right, added
	}
	children, rest := halves(replaced(n.children, i, i+1, c, r))
	if rest != nil {
		right = child[V]{rest[0].bound, &node[V]{children: rest}}
	}
	return &node[V]{children: children}, right, added
}

// without returns n without the entries of some keys, nil if it had no others, and the
// number of entries removed. If that is zero, it returns n itself.
func (n *node[V]) without(keys []string) (left *node[V], removed int) {
	if n.children == nil {
		return n.withoutEntries(keys)
	}
	var children []child[V] // nil: the same as before
	shrunk := false         // the last of them, which may fit into its neighbour
	for i, c := range n.children {
		mine := keys
		if i+1 < len(n.children) {
			end, _ := slices.BinarySearch(keys, n.children[i+1].bound)
			mine, keys = keys[:end], keys[end:]
		}
		gone := 0
		if len(mine) > 0 {
			c.node, gone = c.without(mine)
		}
		if removed += gone; removed == 0 {
			continue
		}
		if children == nil {
			children = append(make([]child[V], 0, len(n.children)), n.children[:i]...)
		}
		if c.node == nil {
			continue
		}
		if last := len(children) - 1; last >= 0 && (shrunk || gone > 0) {
			if joined := children[last].join(c); joined != nil {
				children[last].node, shrunk = joined, true
				continue
			}
		}
		children, shrunk = append(children, c), gone > 0
	}
	switch {
	case removed == 0:
		return n, 0
	case len(children) == 0:
		return nil, removed
	}
	return &node[V]{children: children}, removed
}

// withoutEntries is without for a leaf.
func (n *node[V]) withoutEntries(keys []string) (left *node[V], removed int) {
	for _, key := range keys {
		if _, ok := n.entry(key); ok {
			removed++
		}
	}
	switch removed {
	case 0:
		return n, 0
	case len(n.entries):
		return nil, removed
	}
	entries := make([]entry[V], 0, len(n.entries)-removed)
	for _, e := range n.entries {
		if _, ok := slices.BinarySearch(keys, e.key); !ok {
			entries = append(entries, e)
		}
	}
	return &node[V]{entries: entries}, removed
}

// join returns a node with the entries or children of n and its neighbour r, or
// nil if that would be more than half full.
func (n *node[V]) join(r child[V]) *node[V] {
	if len(n.entries)+len(n.children)+len(r.entries)+len(r.children) > width/2 {
		return nil
	}
	if n.children == nil {
		return &node[V]{entries: slices.Concat(n.entries, r.entries)}
	}
	children := slices.Concat(n.children, r.children)
	children[len(n.children)].bound = r.bound
	return &node[V]{children: children}
}

func (n *node[V]) after(key string, yield func(string, V) bool) bool {
	if n.children == nil {
		i, found := n.entry(key)
		if found {
			i++
		}
		for _, e := range n.entries[i:] {
			if !yield(e.key, e.value) {
				return false
			}
		}
		return true
	}
	for _, c := range n.children[n.child(key):] {
		if !c.after(key, yield) {
			return false
		}
	}
	return true
}

// replaced returns a copy of s with v in place of s[i:j].
func replaced[T any](s []T, i, j int, v ...T) []T {
	c := make([]T, 0, len(s)-(j-i)+len(v))
	return append(append(append(c, s[:i]...), v...), s[j:]...)
}

// halves returns s, or its halves if it is too wide, each without spare
// capacity.
func halves[T any](s []T) (left, right []T) {
	if len(s) <= width {
		return s, nil
	}
	return slices.Clone(s[:len(s)/2]), slices.Clone(s[len(s)/2:])
}
