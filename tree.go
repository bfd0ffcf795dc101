// SPDX-License-Identifier: Apache-2.0

// An immutable ordered map. A change returns a new one and shares with the old
// all that did not change, so that a reader, a list on its way to a slow
// client, or a Clone of a store simply keeps the one it has.

package registry

import (
	"hash/maphash"
	"iter"
)

// A tree is a treap with strings as keys: a search tree by key, and a heap by
// a keyed hash of the key, which keeps it balanced whatever keys a client
// chooses. Its zero value is empty. Lookups and changes cost O(log n).
type tree[V any] struct {
	root *node[V]
	len  int
}

type node[V any] struct {
	key         string
	value       V
	priority    uint64
	left, right *node[V]
}

var treeSeed = maphash.MakeSeed()

func (t tree[V]) get(key string) (value V, ok bool) {
	for n := t.root; n != nil; {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	return value, false
}

func (t tree[V]) with(key string, value V) tree[V] {
	root, added := t.root.with(&node[V]{key: key, value: value, priority: maphash.String(treeSeed, key)})
	return tree[V]{root, t.len + added}
}

func (t tree[V]) without(key string) tree[V] {
	if _, ok := t.get(key); !ok {
		return t
	}
	return tree[V]{t.root.without(key), t.len - 1}
}

// after iterates in order over the entries with keys after key: with "", which
// is no entry's key, over all.
func (t tree[V]) after(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.after(key, yield) }
}

func (n *node[V]) with(add *node[V]) (root *node[V], added int) {
	if n == nil {
		return add, 1
	}
	c := *n
	switch {
	case add.key < n.key:
		c.left, added = n.left.with(add)
		if l := c.left; l.priority > c.priority { // l is new: rotate in place
			c.left, l.right = l.right, &c
			return l, added
		}
	case add.key > n.key:
		c.right, added = n.right.with(add)
		if r := c.right; r.priority > c.priority {
			c.right, r.left = r.left, &c
			return r, added
		}
	default:
		c.value = add.value
	}
	return &c, added
}

func (n *node[V]) without(key string) *node[V] {
	c := *n
	switch {
	case key < n.key:
		c.left = n.left.without(key)
	case key > n.key:
		c.right = n.right.without(key)
	default:
		return merge(n.left, n.right)
	}
	return &c
}

// merge joins two trees, each key of a being less than each of b.
func merge[V any](a, b *node[V]) *node[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		c := *a
		c.right = merge(a.right, b)
		return &c
	default:
		c := *b
		c.left = merge(a, b.left)
		return &c
	}
}

func (n *node[V]) after(key string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key > key && !(n.left.after(key, yield) && yield(n.key, n.value)) {
		return false
	}
	return n.right.after(key, yield)
}
