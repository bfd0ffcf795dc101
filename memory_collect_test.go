// SPDX-License-Identifier: Apache-2.0

package registry

import (
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

// TestUsesOfNamedContent pushes a manifest, and begins a collection just before it
// becomes visible: content that it names must count as used after that.
func TestUsesOfNamedContent(t *testing.T) {
	ctx := t.Context()
	s := new(MemStore)
	d := digest.FromString("x")
	qt.Assert(t, qt.IsNil(PushBlob(ctx, s, "a", d, strings.NewReader("x"))))
	var since time.Time
	m := Manifest{MediaType: "x/y", Digest: digest.FromString("m"), Content: []byte("m"), Blobs: []digest.Digest{d}}
	err := s.update(func(c *memContent) error {
		err := c.putManifest("a", m, []string{"tag"}, nil)
		since = time.Now() // the lists of the collection follow, without m
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	deleted, err := s.CollectBlobs(ctx, "a", []digest.Digest{d}, since)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(deleted, 0))
}
