// SPDX-License-Identifier: Apache-2.0

// The copy of a repository.

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// repoCopy is one comparison of a repository with its copy, and the copy of the
// differences. It holds digests and tags, but no content.
//
// The source may be in use. A push stores blobs before the manifest that names
// them, and children before their index. So the copy lists in the opposite order,
// tags, then manifests, then blobs, and finds all that a listed tag or manifest
// names. It pushes in the order of the source's clients.
type repoCopy struct {
	*copier
	name   string
	exists bool        // in the destination
	again  bool        // existing content has been counted
	moved  atomic.Bool // a tag has moved in the source since it was listed

	missing []digest.Digest // manifests without tags

	todo      counts // in a dry run
	todoBytes atomic.Int64

	mu       sync.Mutex                          // guards deferred, which is only read while manifests are pushed
	deferred map[digest.Digest]*deferredManifest // to be pushed after their children
}

// deferredManifest is a manifest with tags to move, or an index.
type deferredManifest struct {
	tags   []string
	exists bool // in the destination

	once sync.Once
	err  error
}

// later defers a manifest. It must be called with mu held.
func (r *repoCopy) later(d digest.Digest) *deferredManifest {
	p, ok := r.deferred[d]
	if !ok {
		p = new(deferredManifest)
		r.deferred[d] = p
	}
	return p
}

// copy compares and copies. It returns failures of the destination, and those of
// the source that make it useless to continue.
func (r *repoCopy) copy(ctx context.Context) error {
	if err := r.reportUnreadable(); err != nil {
		return err
	}
	err := forEach(ctx, r.copier, r.from.Tags(ctx, r.name, ""), r.compareTag)
	if err != nil {
		return err
	}
	if err := r.compareManifests(ctx); err != nil {
		return err
	}
	blobs := r.compare(ctx, r.from.Blobs(ctx, r.name, ""), r.to.Blobs, r.to.StatBlob)
	if err := r.tolerate("list of blobs", forEach(ctx, r.copier, blobs, r.blob)); err != nil {
		return err
	}
	if r.dryRun {
		r.print()
		return nil
	}
	return r.pushManifests(ctx)
}

// print prints what would be copied, unless it is nothing.
func (r *repoCopy) print() {
	tags, manifests, blobs, size := r.todo.tags.Load(), r.todo.manifests.Load(), r.todo.blobs.Load(), r.todoBytes.Load()
	if tags+manifests+blobs == 0 {
		return
	}
	fmt.Fprintf(r.stdout, "%s: %v (%s)\n", r.name, &r.todo, units.HumanSize(float64(size)))
	r.copied.tags.Add(tags)
	r.copied.manifests.Add(manifests)
	r.copied.blobs.Add(blobs)
	r.bytes.Add(size)
}

// tolerate records err, a failure to copy something, and returns nil if the rest
// of the repository can be copied.
func (r *repoCopy) tolerate(what string, err error) error {
	var failed destinationError
	var ended strictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &failed), errors.As(err, &ended), errors.Is(err, context.Canceled):
		return err
	case r.strict:
		return strictError{fmt.Errorf("%s: %w", what, err)}
	}
	return r.fail(r.name+": "+what, err)
}

// inCopy returns a list of the destination, empty if it has no such repository.
func (r *repoCopy) inCopy(list iter.Seq2[registry.Info, error]) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		if !r.exists {
			return
		}
		for info, err := range list {
			if errors.Is(err, registry.ErrNameUnknown) || !yield(info, inDestination(err)) {
				return
			}
		}
	}
}

// compareTag defers the manifest of a tag unless the tag is the same in the
// destination.
func (r *repoCopy) compareTag(ctx context.Context, tag string) error {
	m, err := r.from.GetTag(ctx, r.name, tag)
	if isUnknown(err) {
		err = r.checkDeleted(ctx, tag)
		return r.tolerate("tag "+tag, err)
	}
	if err != nil {
		return r.tolerate("tag "+tag, err)
	}
	if r.exists {
		current, err := r.to.GetTag(ctx, r.name, tag)
		if err != nil && !isUnknown(err) {
			return inDestination(err)
		}
		if err == nil && current.Digest == m.Digest {
			r.count(&r.copier.exists.tags)
			return nil
		}
	}
	if r.dryRun {
		r.todo.tags.Add(1)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.later(m.Digest)
	p.tags = append(p.tags, tag)
	return nil
}

// count counts something that exists in the destination.
func (r *repoCopy) count(n *atomic.Int64) {
	if !r.again {
		n.Add(1)
	}
}

// isUnknown reports whether err means that something does not exist.
func isUnknown(err error) bool {
	return errors.Is(err, registry.ErrManifestUnknown) || errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrNameUnknown)
}

// checkDeleted returns an error if a tag without a manifest is still listed.
func (r *repoCopy) checkDeleted(ctx context.Context, tag string) error {
	for name, err := range r.from.Tags(ctx, r.name, tag[:len(tag)-1]) {
		switch {
		case errors.Is(err, registry.ErrNameUnknown) || err == nil && name > tag:
			return nil
		case err != nil:
			return err
		case name == tag:
			if _, err := r.from.GetTag(ctx, r.name, tag); isUnknown(err) {
				return errors.New("its manifest is missing or damaged in the source")
			}
			r.moved.Store(true)
			return nil
		}
	}
	return nil
}

// checkDeletedManifest returns an error if a manifest that does not exist is still
// listed.
func (r *repoCopy) checkDeletedManifest(ctx context.Context, d digest.Digest) error {
	for info, err := range r.from.Manifests(ctx, r.name, d[:len(d)-1]) {
		if err != nil || info.Digest != d {
			return nil
		}
		if _, err := r.from.GetManifest(ctx, r.name, d); isUnknown(err) {
			return errors.New("it is missing or damaged in the source")
		}
		return nil
	}
	return nil
}

// reportUnreadable records what the source can't read.
func (r *repoCopy) reportUnreadable() error {
	from, ok := r.from.(interface {
		Unreadable(repo string) ([]string, error)
	})
	if !ok {
		return nil
	}
	entries, _ := from.Unreadable(r.name) // the list of tags has the same error
	for _, entry := range entries {
		if err := r.fail(r.name, fmt.Errorf("an entry of index.json can't be read: %s", entry)); err != nil {
			return err
		}
	}
	return nil
}

// compareManifests finds the manifests to copy.
func (r *repoCopy) compareManifests(ctx context.Context) error {
	manifests := r.compare(ctx, r.from.Manifests(ctx, r.name, ""), r.to.Manifests, r.to.StatManifest)
	existing := func(yield func(pair, error) bool) {
		for p, err := range manifests {
			if err == nil {
				r.compareManifest(p)
			}
			if (p.exists || err != nil) && !yield(p, err) {
				return
			}
		}
	}
	return r.tolerate("list of manifests", forEach(ctx, r.copier, existing, r.compareExisting))
}

// compareManifest adds a manifest to those to copy unless it exists.
func (r *repoCopy) compareManifest(p pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tagged := r.deferred[p.Digest]
	switch {
	case p.exists:
		r.count(&r.copier.exists.manifests)
		if tagged != nil {
			tagged.exists = true
		}
		return
	case tagged == nil:
		r.missing = append(r.missing, p.Digest)
	}
	if r.dryRun {
		r.todo.manifests.Add(1)
		r.todoBytes.Add(p.Size)
	}
}

// compareExisting defers an existing manifest if the destination's list of
// referrers lacks it: a bucket writes the list after the manifest, and a copy may
// have been killed in between.
func (r *repoCopy) compareExisting(ctx context.Context, p pair) error {
	m, err := r.from.GetManifest(ctx, r.name, p.Digest)
	if isUnknown(err) {
		return r.tolerate("manifest "+p.Digest.String(), r.checkDeletedManifest(ctx, p.Digest))
	}
	if err == nil {
		err = p.checkSize()
	}
	if err != nil {
		return r.tolerate("manifest "+p.Digest.String(), err)
	}
	subject := namedBy(m.Content).Subject.Digest
	if subject.Validate() != nil {
		return nil
	}
	has, err := hasReferrer(ctx, r.to, r.name, subject, m.Digest)
	if has || err != nil {
		return inDestination(err)
	}
	has, err = hasReferrer(ctx, r.from, r.name, subject, m.Digest)
	if !has || err != nil {
		return r.tolerate("referrers of "+subject.String(), err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later(m.Digest).exists = true
	return nil
}

// hasReferrer reports whether d is in a list of referrers.
func hasReferrer(ctx context.Context, s registry.Store, repo string, subject, d digest.Digest) (bool, error) {
	for referrer, err := range s.Referrers(ctx, repo, subject, d[:len(d)-1]) {
		if err != nil || referrer.Digest >= d {
			return referrer.Digest == d, err
		}
	}
	return false, nil
}

// pushManifests pushes the manifests without tags and children, and then the
// deferred ones.
func (r *repoCopy) pushManifests(ctx context.Context) error {
	if err := forEach(ctx, r.copier, values(r.missing), r.pushMissing); err != nil {
		return err
	}
	return forEach(ctx, r.copier, values(slices.Sorted(maps.Keys(r.deferred))), r.pushDeferred)
}

// values yields the elements of a list.
func values[T any](list []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
	}
}

// pushMissing pushes a manifest, or defers it if it has children.
func (r *repoCopy) pushMissing(ctx context.Context, d digest.Digest) error {
	m, err := r.from.GetManifest(ctx, r.name, d)
	if isUnknown(err) {
		return r.tolerate("manifest "+d.String(), r.checkDeletedManifest(ctx, d))
	}
	if err != nil {
		return r.tolerate("manifest "+d.String(), err)
	}
	if len(namedBy(m.Content).Manifests) == 0 {
		return r.push(ctx, m, new(deferredManifest))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.later(d)
	return nil
}

// pushDeferred pushes a deferred manifest after its children.
func (r *repoCopy) pushDeferred(ctx context.Context, d digest.Digest) error {
	p := r.deferred[d]
	p.once.Do(func() { p.err = r.pushWithChildren(ctx, d, p) })
	return p.err
}

func (r *repoCopy) pushWithChildren(ctx context.Context, d digest.Digest, p *deferredManifest) error {
	m, children, err := r.read(ctx, d)
	if len(children) > 0 {
		m = registry.Manifest{} // don't hold the content of each level
		for _, child := range children {
			if err := r.pushDeferred(ctx, child); err != nil {
				return err
			}
		}
		m, _, err = r.read(ctx, d)
	}
	if isUnknown(err) {
		if len(p.tags) > 0 {
			r.moved.Store(true)
		}
		return nil
	}
	if err != nil {
		return r.tolerate("manifest "+d.String(), err)
	}
	return r.push(ctx, m, p)
}

// read returns a manifest and its children that are deferred. Only children of
// content that has the right digest are returned, since other content could name
// itself.
func (r *repoCopy) read(ctx context.Context, d digest.Digest) (m registry.Manifest, children []digest.Digest, err error) {
	if m, err = r.from.GetManifest(ctx, r.name, d); err != nil {
		return m, nil, err
	}
	if !d.Algorithm().Available() || d != d.Algorithm().FromBytes(m.Content) {
		return m, nil, nil
	}
	for _, child := range namedBy(m.Content).Manifests {
		if r.deferred[child.Digest] != nil {
			children = append(children, child.Digest)
		}
	}
	return m, children, nil
}

// push pushes a manifest with its tags.
func (r *repoCopy) push(ctx context.Context, m registry.Manifest, p *deferredManifest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	what := "manifest " + m.Digest.String()
	_, err := registry.PushManifest(ctx, r.to, r.name, registry.ManifestPush{
		MediaType: m.MediaType, Content: m.Content, Digest: m.Digest, Tags: p.tags, Sparse: true, // it may be sparse in the source
	})
	if errors.Is(err, registry.ErrManifestInvalid) {
		if m.Digest != m.Digest.Algorithm().FromBytes(m.Content) {
			return r.tolerate(what, fmt.Errorf("corrupt in the source: %w", err))
		}
		// The source serves it as opaque bytes.
		opaque := registry.Manifest{MediaType: m.MediaType, Digest: m.Digest, Content: m.Content}
		err = r.to.PutManifest(ctx, r.name, opaque, p.tags, nil)
	}
	switch {
	case errors.Is(err, registry.ErrDigestInvalid):
		return r.tolerate(what, fmt.Errorf("corrupt in the source: %w", err))
	case errors.Is(err, registry.ErrManifestInvalid), errors.Is(err, registry.ErrNameInvalid):
		return r.tolerate(what, err) // the destination rejects only this one
	case err != nil:
		return inDestination(err)
	}
	if !p.exists {
		r.copied.manifests.Add(1)
		r.bytes.Add(int64(len(m.Content)))
	}
	r.copied.tags.Add(int64(len(p.tags)))
	r.succeed()
	return nil
}
