// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// TestUsesDoNotGoBack notes a use that began before another one was noted.
func TestUsesDoNotGoBack(t *testing.T) {
	var u lastUse
	later := time.Now().Add(time.Hour)
	u.Store(later.UnixNano())
	u.touch()
	qt.Check(t, qt.IsTrue(u.since(later)))
}

// TestUsesByPushes pushes content, and begins a collection just before it becomes visible:
// the content, and what it names, must count as used after that.
func TestUsesByPushes(t *testing.T) {
	s := new(MemStore)
	b, m := digest.FromString("b"), digest.FromString("m")
	pushBlob := func(c *memContent) error {
		c.addBlob("a", b, newStoredBlob(memBlob{}))
		return nil
	}
	pushManifest := func(c *memContent) error {
		return c.putManifest("a", Manifest{MediaType: "x/y", Digest: m, Content: []byte("m"), Blobs: []digest.Digest{b}}, nil, nil)
	}
	for _, step := range []struct {
		name string
		push func(*memContent) error
	}{
		{"a blob", pushBlob},
		{"the blob again", pushBlob},
		{"a manifest", pushManifest},
		{"the manifest again", pushManifest},
	} {
		t.Run(step.name, func(t *testing.T) {
			var since time.Time
			err := s.update(func(c *memContent) error {
				err := step.push(c)
				since = time.Now() // the lists of the collection follow, without the push
				return err
			})
			qt.Assert(t, qt.IsNil(err))
			c := s.load()
			link, err := c.link("a", b)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(link.used.since(since)))
			if mf, err := c.manifest("a", m); err == nil {
				qt.Check(t, qt.IsTrue(mf.used.since(since)))
			}
		})
	}
}

// endingContext is a context that ends when it has been asked a number of times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestCollectInOrder ends a collection after a batch: an index comes before the manifests
// that it names, and must not outlive them.
func TestCollectInOrder(t *testing.T) {
	s := new(MemStore)
	var all []digest.Digest
	for i := range collectBatch + 50 {
		content := fmt.Appendf(nil, "%d", i)
		d := digest.FromBytes(content)
		all = append(all, d)
		qt.Assert(t, qt.IsNil(s.PutManifest(t.Context(), "a", Manifest{MediaType: "x/y", Digest: d, Content: content}, nil, nil)))
	}
	slices.Sort(all)
	slices.Reverse(all)
	deleted, err := s.CollectManifests(&endingContext{t.Context(), 1}, "a", all, time.Now().Add(time.Hour))
	qt.Check(t, qt.ErrorIs(err, context.Canceled))
	qt.Assert(t, qt.HasLen(deleted, collectBatch))
	for i, info := range deleted {
		qt.Check(t, qt.Equals(info.Digest, all[i]))
	}
	_, err = s.StatManifest(t.Context(), "a", all[0])
	qt.Check(t, qt.ErrorIs(err, ErrManifestUnknown))
}

// TestCollectTwice collects a blob that is in the list twice.
func TestCollectTwice(t *testing.T) {
	s := new(MemStore)
	d := digest.FromString("x")
	qt.Assert(t, qt.IsNil(PushBlob(t.Context(), s, "a", d, strings.NewReader("x"))))
	deleted, err := s.CollectBlobs(t.Context(), "a", []digest.Digest{d, d}, time.Now().Add(time.Hour))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(deleted, 1))
	qt.Check(t, qt.Equals(s.load().bytes, memBytes{}))
}
