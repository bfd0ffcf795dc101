// SPDX-License-Identifier: Apache-2.0

// The state of a repository, and the changes to it.

package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/tree"
)

// layout is the state of a repository: its index.json with the changes of its
// journal. It is immutable once it is published: a change makes a new one, which
// shares what is unchanged.
type layout struct {
	name    string
	noLists bool        // lists of referrers are ordinary tags
	info    fs.FileInfo // of the index.json that it was read from, or written to
	hash    digest.Digest
	dirty   bool // index.json lacks changes

	journal     fs.FileInfo // when it was read, nil if there was none
	journalSize int64       // of the lines that were read

	// manifests holds the manifests, tags and referrers, without the
	// manifests' content.
	manifests *registry.MemStore

	content   tree.Map[content]            // of files that are more than a blob, by digest
	pending   tree.Map[pendingContent]     // manifests and lists without a file yet, by digest
	condemned tree.Map[struct{}]           // files to remove once index.json does not name them, by digest
	next      uint64                       // the order of the next manifest
	lists     tree.Map[ocispec.Descriptor] // of referrers, by subject
	stale     tree.Map[struct{}]           // subjects whose list is out of date

	// Parts of index.json that another tool wrote: its members, the entries with
	// more than the store would write, and those whose manifest can't be read.
	// Keys are those of entryKey. The map index is never changed.
	index      map[string]json.RawMessage
	entries    tree.Map[json.RawMessage]
	unreadable tree.Map[json.RawMessage]

	unsaved    []fact // of manifests that had to be parsed
	cacheLines int    // in the cache, about
}

// content describes a file in a layout's blobs folder.
type content struct {
	use
	size  int64  // of a manifest
	order uint64 // of a manifest among those in index.json
}

// use is a set of uses of content. A file that index.json does not name is a
// blob; its use is 0.
type use uint8

const (
	asManifest use = 1 << iota
	asList         // of referrers
	asBlob         // too
)

// has reports whether u and other have a use in common.
func (u use) has(other use) bool { return u&other != 0 }

// pendingContent is content that is written to its file when the journal is folded.
type pendingContent struct {
	data []byte
	time time.Time // of the push
}

// entryKey identifies an entry of an index.json. A tag has no spaces.
func entryKey(d digest.Digest, tag string) string { return string(d) + " " + tag }

func emptyLayout(name string, noLists bool) *layout {
	return &layout{name: name, noLists: noLists, manifests: new(registry.MemStore)}
}

// clone returns a copy that can be changed.
func (l *layout) clone() *layout {
	c := *l
	c.manifests = l.manifests.Clone()
	c.unsaved = nil
	return &c
}

// uses returns the uses of content.
func (l *layout) uses(d digest.Digest) use {
	c, _ := l.content.Get(string(d))
	return c.use
}

// isBlob reports whether the file with the digest d, if it exists, is a blob.
func (l *layout) isBlob(d digest.Digest) bool {
	if _, ok := l.condemned.Get(string(d)); ok {
		return false
	}
	u := l.uses(d)
	return u == 0 || u.has(asBlob)
}

// addUse adds a use to content.
func (l *layout) addUse(d digest.Digest, u use) {
	c, _ := l.content.Get(string(d))
	c.use |= u
	l.content = l.content.With(string(d), c)
	l.condemned = l.condemned.Without(string(d))
}

// removeUse removes a use from content, and condemns its file if it was the last.
func (l *layout) removeUse(d digest.Digest, u use) {
	c, _ := l.content.Get(string(d))
	c.use &^= u
	if !c.has(asManifest | asList) { // at most a blob, which has a file
		l.pending = l.pending.Without(string(d))
		l.content = l.content.Without(string(d))
		if !c.has(asBlob) {
			l.condemned = l.condemned.With(string(d), struct{}{})
		}
		return
	}
	l.content = l.content.With(string(d), c)
}

// putManifest adds a manifest of the given size, and points tags at it. Its content
// is in a file or, unless data is nil, pending; or pending already.
func (l *layout) putManifest(m registry.Manifest, size int64, data []byte, tags []string, allow registry.AllowFunc, now time.Time) error {
	if err := (withoutContent{l.manifests}).PutManifest(context.Background(), l.name, m, tags, allow); err != nil {
		return err
	}
	c, _ := l.content.Get(string(m.Digest))
	if !c.has(asManifest) {
		c.use |= asManifest
		c.size = size
		c.order = l.next
		l.next++
		l.content = l.content.With(string(m.Digest), c)
		l.condemned = l.condemned.Without(string(m.Digest))
		if m.Subject != "" {
			l.stale = l.stale.With(string(m.Subject), struct{}{})
		}
	}
	if p, ok := l.pending.Get(string(m.Digest)); ok && data == nil {
		data = p.data
	}
	if data != nil {
		l.pending = l.pending.With(string(m.Digest), pendingContent{data, now})
	}
	l.replaceUnreadable(m.Digest, tags)
	return nil
}

// replaceUnreadable removes the entries of tags that have been moved, and makes
// those of a manifest that can be read again into tags.
func (l *layout) replaceUnreadable(d digest.Digest, tags []string) {
	if l.unreadable.Len() == 0 {
		return
	}
	for key, raw := range l.unreadable.After("") {
		e, err := parseEntry(raw)
		if err != nil {
			continue
		}
		_, tagErr := l.manifests.GetTag(context.Background(), l.name, e.tag)
		switch {
		case e.tag != "" && tagErr == nil: // moved
		case e.Digest != d:
			continue
		case e.tag != "":
			m := registry.Manifest{MediaType: e.MediaType, Digest: d}
			if stored, err := l.manifests.GetManifest(context.Background(), l.name, d); err == nil {
				m = stored
			}
			if l.manifests.PutManifest(context.Background(), l.name, m, []string{e.tag}, nil) != nil {
				continue
			}
		}
		l.unreadable = l.unreadable.Without(key)
	}
}

// deleteManifest deletes a manifest with its tags.
func (l *layout) deleteManifest(d digest.Digest) error {
	m, err := l.manifests.GetManifest(context.Background(), l.name, d)
	if err != nil {
		return err
	}
	if err := l.manifests.DeleteManifest(context.Background(), l.name, d); err != nil {
		return err
	}
	if m.Subject != "" {
		l.stale = l.stale.With(string(m.Subject), struct{}{})
	}
	l.removeUse(d, asManifest)
	return nil
}

// keepBlob makes a file a blob that is not one, since it is condemned or has
// another use.
func (l *layout) keepBlob(d digest.Digest) {
	if l.uses(d).has(asManifest | asList) {
		l.addUse(d, asBlob)
	}
	l.condemned = l.condemned.Without(string(d))
}

// deleteBlob deletes a blob, which may have other uses.
func (l *layout) deleteBlob(d digest.Digest) {
	if l.uses(d) != 0 {
		l.removeUse(d, asBlob)
		return
	}
	l.condemned = l.condemned.With(string(d), struct{}{})
}

// isEmpty reports whether the layout has neither manifests nor entries that may
// become some.
func (l *layout) isEmpty() bool {
	for _, err := range l.manifests.Manifests(context.Background(), l.name, "") {
		return errors.Is(err, registry.ErrNameUnknown) && l.unreadable.Len() == 0
	}
	return l.unreadable.Len() == 0
}

// withoutContent is a MemStore that stores manifests without their content.
type withoutContent struct{ *registry.MemStore }

func (s withoutContent) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	m.Content, m.Blobs = nil, nil
	return s.MemStore.PutManifest(ctx, repo, m, tags, allow)
}
