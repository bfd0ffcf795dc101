// SPDX-License-Identifier: Apache-2.0

// The parts of the Store contract that need no upstream: pushes and deletes, which stay
// here, and collections.

package mirror

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// MountBlob implements registry.Store.
func (m *Mirror) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	t, err := m.resolve(repo)
	if err != nil {
		return err
	}
	source, err := m.resolve(from)
	if err != nil {
		return err
	}
	_, err = firstOf(ctx, m, source, func(from string) (struct{}, error) { return struct{}{}, m.store.MountBlob(ctx, t.local, from, d) })
	return err
}

// DeleteBlob implements registry.Store.
func (m *Mirror) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return m.deleteFrom(repo, d, func(repo string) error { return m.store.DeleteBlob(ctx, repo, d) })
}

// DeleteManifest implements registry.Store.
func (m *Mirror) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return m.deleteFrom(repo, d, func(repo string) error { return m.store.DeleteManifest(ctx, repo, d) })
}

// deleteFrom deletes content wherever a repository has it.
func (m *Mirror) deleteFrom(repo string, d digest.Digest, remove func(repo string) error) error {
	t, err := m.resolve(repo)
	if err != nil {
		return err
	}
	err = remove(t.local)
	if t.up == nil || err != nil && !isUnknown(err) {
		return err
	}
	fetchedErr := remove(t.cache)
	switch {
	case fetchedErr == nil:
		m.usage.remove(t.cache, d)
		return nil
	case err == nil && isUnknown(fetchedErr):
		return nil
	}
	return moreSpecific(err, fetchedErr)
}

// DeleteTag implements registry.Store. It deletes a tag that was pushed, or else one that
// was fetched.
func (m *Mirror) DeleteTag(ctx context.Context, repo, tag string, allow registry.AllowFunc) error {
	t, err := m.resolve(repo)
	if err != nil {
		return err
	}
	err = m.store.DeleteTag(ctx, t.local, tag, allow)
	if t.up == nil || err == nil || !isUnknown(err) {
		return err
	}
	fetchedErr := m.store.DeleteTag(ctx, t.cache, tag, allow)
	m.fresh.Remove(tagKey{t.cache, tag})
	return moreSpecific(err, fetchedErr)
}

// CreateUpload implements registry.Store.
func (m *Mirror) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return nil, err
	}
	return m.store.CreateUpload(ctx, t.local, opts)
}

// ResumeUpload implements registry.Store.
func (m *Mirror) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return nil, err
	}
	return m.store.ResumeUpload(ctx, t.local, id)
}

// UploadSize implements registry.Store.
func (m *Mirror) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return 0, err
	}
	return m.store.UploadSize(ctx, t.local, id)
}

// CancelUpload implements registry.Store.
func (m *Mirror) CancelUpload(ctx context.Context, repo, id string) error {
	t, err := m.resolve(repo)
	if err != nil {
		return err
	}
	return m.store.CancelUpload(ctx, t.local, id)
}

// PublishedUpload implements registry.Store.
func (m *Mirror) PublishedUpload(ctx context.Context, repo, id string) (digest.Digest, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return "", err
	}
	return m.store.PublishedUpload(ctx, t.local, id)
}

// PutManifest implements registry.Store. A pushed manifest may name content that was
// fetched.
func (m *Mirror) PutManifest(ctx context.Context, repo string, manifest registry.Manifest, tags []string, allow registry.AllowFunc) error {
	t, err := m.resolve(repo)
	if err != nil {
		return err
	}
	if t.up == nil {
		return m.store.PutManifest(ctx, t.local, manifest, tags, allow)
	}
	if err := m.takeOver(ctx, t, manifest); err != nil {
		return err
	}
	if allow == nil {
		return m.store.PutManifest(ctx, t.local, manifest, tags, nil)
	}
	// Clients see a tag that was fetched where none was pushed.
	fetched := make(map[string]digest.Digest)
	for _, tag := range tags {
		if old, err := m.store.GetTag(ctx, t.cache, tag); err == nil {
			fetched[tag] = old.Digest
		}
	}
	return m.store.PutManifest(ctx, t.local, manifest, tags, func(tag string, current digest.Digest) error {
		if current == "" {
			current = fetched[tag]
		}
		return allow(tag, current)
	})
}

// takeOver gives the repository of pushes the content that a manifest names, and that
// which its children name, if it was fetched.
func (m *Mirror) takeOver(ctx context.Context, t target, manifest registry.Manifest) error {
	for _, d := range manifest.Blobs {
		if _, err := m.store.StatBlob(ctx, t.local, d); err == nil || !isUnknown(err) {
			continue
		}
		if err := m.store.MountBlob(ctx, t.local, t.cache, d); err != nil && !isUnknown(err) {
			return err
		}
	}
	for _, d := range manifest.Manifests {
		if _, err := m.store.StatManifest(ctx, t.local, d); err == nil || !isUnknown(err) {
			continue
		}
		child, err := m.store.GetManifest(ctx, t.cache, d)
		if err != nil {
			if isUnknown(err) {
				continue
			}
			return err
		}
		if parsed, err := parseManifest(child.MediaType, child.Content, d); err == nil {
			child = parsed
		}
		if err := m.takeOver(ctx, t, child); err != nil {
			return err
		}
		child.Sparse = true
		if err := m.store.PutManifest(ctx, t.local, child, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// Now implements registry.Collector.
func (m *Mirror) Now(ctx context.Context) (time.Time, error) { return m.store.Now(ctx) }

// CollectBlobs implements registry.Collector.
func (m *Mirror) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	return m.collect(repo, func(repo string) ([]registry.Info, error) { return m.store.CollectBlobs(ctx, repo, blobs, since) })
}

// CollectManifests implements registry.Collector.
func (m *Mirror) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	return m.collect(repo, func(repo string) ([]registry.Info, error) {
		return m.store.CollectManifests(ctx, repo, manifests, since)
	})
}

// collect collects the pushed and the fetched content of a repository.
func (m *Mirror) collect(repo string, collect func(repo string) ([]registry.Info, error)) ([]registry.Info, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return nil, err
	}
	collected, err := collect(t.local)
	if t.up == nil || t.byDefault || err != nil && !isUnknown(err) {
		return collected, err
	}
	fetched, err := collect(t.cache)
	for _, info := range fetched {
		m.usage.remove(t.cache, info.Digest)
	}
	if isUnknown(err) {
		err = nil
	}
	return slices.Concat(collected, fetched), err
}

// CollectRest implements registry.Collector.
func (m *Mirror) CollectRest(ctx context.Context, since time.Time) (registry.Collected, error) {
	return m.store.CollectRest(ctx, since)
}
