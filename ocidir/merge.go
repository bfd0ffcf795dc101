// SPDX-License-Identifier: Apache-2.0

// Merging an index.json that another tool wrote while the store has changed the
// repository too.

package ocidir

import (
	"context"
	"errors"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// difference counts how much two layouts differ.
func difference(a, b *layout) int {
	n := 0
	for range changes(a, b) {
		n++
	}
	return n
}

// edit is a difference between two layouts: of a tag or, if the tag is empty, of a
// manifest. The digests are empty for none.
type edit struct {
	tag      string
	from, to digest.Digest
}

// changes yields how b differs from a: deleted tags and manifests first.
func changes(a, b *layout) iter.Seq[edit] {
	return func(yield func(edit) bool) {
		for tag, from := range a.allTags() {
			if to := b.tagged(tag); to == "" && !yield(edit{tag: tag, from: from}) {
				return
			}
		}
		for d := range a.allManifests() {
			if !b.uses(d).has(asManifest) && !yield(edit{from: d}) {
				return
			}
		}
		for d := range b.allManifests() {
			if !a.uses(d).has(asManifest) && !yield(edit{to: d}) {
				return
			}
		}
		for tag, to := range b.allTags() {
			if from := a.tagged(tag); from != to && !yield(edit{tag, from, to}) {
				return
			}
		}
	}
}

// allTags yields the tags with the digests that they point at.
func (l *layout) allTags() iter.Seq2[string, digest.Digest] {
	return func(yield func(string, digest.Digest) bool) {
		for tag, err := range l.manifests.Tags(context.Background(), l.name, "") {
			if err != nil || !yield(tag, l.tagged(tag)) { // a layout without manifests
				return
			}
		}
	}
}

// tagged returns the digest that a tag points at, "" if there is no such tag.
func (l *layout) tagged(tag string) digest.Digest {
	m, _ := l.manifests.GetTag(context.Background(), l.name, tag)
	return m.Digest
}

func (l *layout) allManifests() iter.Seq[digest.Digest] {
	return func(yield func(digest.Digest) bool) {
		for d, c := range l.content.After("") {
			if c.has(asManifest) && !yield(digest.Digest(d)) {
				return
			}
		}
	}
}

// merge returns theirs with the changes from base to ours, and those changes. The
// tags in touched were changed too, though they may be the same again. If both have
// changed a tag, ours wins, and conflict is called.
func merge(base, ours, theirs *layout, touched map[string]bool, conflict func(tag string, ours, theirs digest.Digest)) (*layout, []record, error) {
	merged := theirs.clone()
	merged.next = max(ours.next, theirs.next)
	var records []record
	apply := func(e edit) error {
		if now := theirs.tagged(e.tag); e.tag != "" && now != e.from && now != e.to {
			conflict(e.tag, e.to, now)
		}
		r := ours.recordOf(e)
		records = append(records, r)
		return merged.edit(ours, r)
	}
	for e := range changes(base, ours) {
		if err := apply(e); err != nil {
			return nil, nil, err
		}
	}
	for tag := range touched {
		if now := ours.tagged(tag); now != merged.tagged(tag) {
			if err := apply(edit{tag, base.tagged(tag), now}); err != nil {
				return nil, nil, err
			}
		}
	}
	if err := merged.keepPending(ours); err != nil {
		return nil, nil, err
	}
	for d := range ours.condemned.After("") {
		if merged.uses(digest.Digest(d)) == 0 {
			merged.condemned = merged.condemned.With(d, struct{}{})
		}
	}
	for d := range merged.allManifests() {
		switch was, is := base.uses(d).has(asBlob), ours.uses(d).has(asBlob); {
		case is:
			merged.addUse(d, asBlob)
		case was:
			merged.removeUse(d, asBlob)
		}
	}
	for subject, list := range ours.lists.After("") {
		theirList, _ := merged.lists.Get(subject)
		if _, isPending := ours.pending.Get(string(list.Digest)); isPending || theirList.Digest != list.Digest {
			merged.stale = merged.stale.With(subject, struct{}{})
		}
	}
	for subject := range ours.stale.After("") {
		merged.stale = merged.stale.With(subject, struct{}{})
	}
	merged.dirty = ours.dirty || len(records) > 0 || merged.condemned.Len() > 0
	return merged, records, nil
}

// keepPending adds the manifests of ours that have no file yet: they were pushed
// since any index.json was written.
func (l *layout) keepPending(ours *layout) error {
	for key, p := range ours.pending.After("") {
		d := digest.Digest(key)
		if !ours.uses(d).has(asManifest) {
			continue // a list, which is written anew
		}
		m, err := ours.manifests.GetManifest(context.Background(), l.name, d)
		if err != nil {
			return err
		}
		var tags []string
		if !l.uses(d).has(asManifest) { // the tool has deleted an earlier one
			for tag, to := range ours.allTags() {
				if to == d && l.tagged(tag) == "" {
					tags = append(tags, tag)
				}
			}
		}
		err = l.putManifest(m, int64(len(p.data)), p.data, tags, nil, p.time)
		if err != nil && !errors.Is(err, registry.ErrManifestInvalid) { // theirs has another media type
			return err
		}
	}
	return nil
}

// recordOf returns the record of a change to the state in l.
func (l *layout) recordOf(e edit) record {
	switch {
	case e.to == "" && e.tag != "":
		return record{Op: opUntag, Tags: []string{e.tag}}
	case e.to == "":
		return record{Op: opDelete, Digest: e.from, Blob: l.isBlob(e.from)}
	}
	m, _ := l.manifests.GetManifest(context.Background(), l.name, e.to) // e is a change to it
	c, _ := l.content.Get(string(e.to))
	p, _ := l.pending.Get(string(e.to))
	r := record{Op: opPush, Digest: e.to, MediaType: m.MediaType, Size: c.size, Content: p.data, Time: p.time}
	if e.tag != "" {
		r.Tags = []string{e.tag}
	}
	return r
}

// edit makes a change of recordOf.
func (l *layout) edit(ours *layout, r record) error {
	switch r.Op {
	case opUntag:
		return ignoreUnknown(l.manifests.DeleteTag(context.Background(), l.name, r.Tags[0], nil))
	case opDelete:
		return ignoreUnknown(l.deleteManifest(r.Digest))
	}
	m, err := ours.manifests.GetManifest(context.Background(), l.name, r.Digest)
	if err != nil {
		return err
	}
	err = l.putManifest(m, r.Size, r.Content, r.Tags, nil, r.Time)
	if errors.Is(err, registry.ErrManifestInvalid) {
		return nil // theirs has another media type
	}
	return err
}

func ignoreUnknown(err error) error {
	if isUnknown(err) {
		return nil
	}
	return err
}
