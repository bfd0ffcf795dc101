// SPDX-License-Identifier: Apache-2.0

// Manifests and tags: from the store, or fetched.

package mirror

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// maxManifest is the size in bytes of the largest manifest that is fetched. The spec lets
// registries reject larger ones.
const maxManifest = 4 << 20

// GetManifest implements registry.Store.
func (m *Mirror) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return registry.Manifest{}, err
	}
	manifest, err := firstOf(ctx, m, t, func(repo string) (registry.Manifest, error) { return m.store.GetManifest(ctx, repo, d) })
	if err == nil {
		m.hit(t, d)
	}
	if err == nil || !isUnknown(err) || !m.mayFetch(ctx, t) {
		return manifest, err
	}
	manifest, err = m.fetchManifest(ctx, t, string(d), d)
	return manifest, m.failed(ctx, t, err, registry.ErrManifestUnknown)
}

// StatManifest implements registry.Store.
func (m *Mirror) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return registry.Info{}, err
	}
	info, err := firstOf(ctx, m, t, func(repo string) (registry.Info, error) { return m.store.StatManifest(ctx, repo, d) })
	if err == nil || !isUnknown(err) || !m.mayFetch(ctx, t) {
		return info, err
	}
	// A HEAD has just fetched it, but it could not be kept.
	manifest, err := m.GetManifest(ctx, repo, d)
	return registry.Info{Digest: d, Size: int64(len(manifest.Content)), Time: time.Now()}, err
}

// firstOf looks something up in the repositories of t in which it can be. Content of an
// upstream is likely to have been fetched; other content is likely to have been pushed.
func firstOf[T any](ctx context.Context, m *Mirror, t target, find func(repo string) (T, error)) (T, error) {
	if t.up == nil {
		return find(t.local)
	}
	first, second := t.cache, t.local
	if t.byDefault {
		first, second = second, first
	}
	found, err := find(first)
	if err == nil || !isUnknown(err) {
		return found, err
	}
	found, secondErr := find(second)
	return found, moreSpecific(err, secondErr)
}

// GetTag implements registry.Store.
func (m *Mirror) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return registry.Manifest{}, err
	}
	if t.up == nil {
		return m.store.GetTag(ctx, t.local, tag)
	}
	fresh, isFresh := m.freshTag(t, tag)
	pushed, fetched, pushedErr, fetchedErr := m.storedTags(ctx, t, tag, fresh.digest)
	switch {
	case pushedErr == nil:
		m.hit(t, pushed.Digest)
		return pushed, nil
	case !isUnknown(pushedErr):
		return registry.Manifest{}, pushedErr
	case fetchedErr != nil && !isUnknown(fetchedErr):
		return registry.Manifest{}, fetchedErr
	case fetchedErr == nil && (!goesUp(ctx) || isFresh):
		m.hit(t, fetched.Digest)
		return fetched, nil
	case fetchedErr != nil && !m.mayFetch(ctx, t):
		return registry.Manifest{}, pushedErr
	}
	manifest, err := m.revalidate(ctx, t, tag, fetched)
	if err == nil && manifest.Digest == fetched.Digest {
		m.hit(t, fetched.Digest)
	}
	var f *failure
	if errors.As(err, &f) && fetchedErr == nil && !f.hides(t.up) {
		t.up.stale.Add(1)
		m.hit(t, fetched.Digest)
		warn(ctx, f)
		return fetched, nil
	}
	return manifest, m.failed(ctx, t, err, registry.ErrManifestUnknown)
}

// storedTags returns the manifests of a tag that was pushed and of one that was fetched,
// each with its error. A store that must be waited for looks for both at once, and for the
// manifest that was fetched by its digest, if that is not empty.
func (m *Mirror) storedTags(ctx context.Context, t target, tag string, known digest.Digest) (pushed, fetched registry.Manifest, pushedErr, fetchedErr error) {
	if m.nearby {
		if pushed, pushedErr = m.store.GetTag(ctx, t.local, tag); pushedErr != nil {
			fetched, fetchedErr = m.store.GetTag(ctx, t.cache, tag)
		}
		return pushed, fetched, pushedErr, fetchedErr
	}
	type result struct {
		registry.Manifest
		error
	}
	other := make(chan result, 1)
	go func() {
		pushed, err := m.store.GetTag(ctx, t.local, tag)
		other <- result{pushed, err}
	}()
	fetchedErr = registry.ErrManifestUnknown
	if known != "" {
		fetched, fetchedErr = m.store.GetManifest(ctx, t.cache, known)
	}
	if isUnknown(fetchedErr) {
		fetched, fetchedErr = m.store.GetTag(ctx, t.cache, tag)
	}
	r := <-other
	return r.Manifest, fetched, r.error, fetchedErr
}

// tagKey is a tag of a repository of the store; without a tag, it is the repository, of which
// something has been fetched.
type tagKey struct{ repo, tag string }

// freshness is the manifest that a tag had upstream, and the end of its time to live.
type freshness struct {
	digest digest.Digest
	until  time.Time
}

// freshTag returns the freshness of a fetched tag. It reports false, without one, if the time
// to live has ended.
func (m *Mirror) freshTag(t target, tag string) (freshness, bool) {
	f, ok := m.fresh.Get(tagKey{t.cache, tag})
	if !ok || !time.Now().Before(f.until) {
		return freshness{}, false
	}
	return f, true
}

// revalidate returns the manifest that a tag has upstream. The manifest known has been
// fetched as that of the tag before, if it has a digest.
func (m *Mirror) revalidate(ctx context.Context, t target, tag string, known registry.Manifest) (registry.Manifest, error) {
	return flight(ctx, m, "tag "+t.cache+":"+tag, func(ctx context.Context) (registry.Manifest, error) {
		manifest, err := m.currentManifest(ctx, t, tag, known)
		var f *failure
		if errors.As(err, &f) && f.hides(t.up) && known.Digest != "" {
			// Another failure must not bring it back.
			if err := m.store.DeleteTag(ctx, t.cache, tag, nil); err != nil && !isUnknown(err) {
				m.log.Warn("a tag was not deleted", "repository", t.local, "tag", tag, "error", err)
			}
		}
		if err != nil {
			return registry.Manifest{}, err
		}
		// A manifest that was not kept is asked for again: the store has an older one.
		if manifest.Digest == known.Digest || m.keepManifest(ctx, t, manifest, tag) {
			m.fresh.Add(tagKey{t.cache, tag}, freshness{manifest.Digest, time.Now().Add(t.up.TTL)})
		}
		return manifest, nil
	})
}

// currentManifest returns the manifest that a tag has upstream, with as few calls as
// possible: known, if it is still that.
func (m *Mirror) currentManifest(ctx context.Context, t target, tag string, known registry.Manifest) (registry.Manifest, error) {
	if known.Digest == "" {
		return m.getManifest(ctx, t, tag, "")
	}
	resp, err := t.up.do(ctx, call{method: http.MethodHead, name: t.name, kind: "manifests", ref: tag})
	if err != nil {
		return registry.Manifest{}, err
	}
	resp.Body.Close()
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	switch {
	case d == known.Digest:
		return known, nil
	case d.Validate() == nil: // the header is optional
		if manifest, err := m.store.GetManifest(ctx, t.cache, d); err == nil {
			return manifest, nil
		}
	}
	// Asking for the digest would turn a header that is wrong, or that names a manifest
	// of a moment ago, into a tag that is unknown.
	m.unknown.Remove(unknownKey(t, call{name: t.name, kind: "manifests", ref: tag}))
	return m.getManifest(ctx, t, tag, "")
}

// fetchManifest fetches and keeps a manifest without a tag.
func (m *Mirror) fetchManifest(ctx context.Context, t target, ref string, d digest.Digest) (registry.Manifest, error) {
	return flight(ctx, m, "manifest "+t.cache+"@"+ref, func(ctx context.Context) (registry.Manifest, error) {
		manifest, err := m.getManifest(ctx, t, ref, d)
		if err == nil {
			m.keepManifest(ctx, t, manifest)
		}
		return manifest, err
	})
}

// getManifest gets a manifest from the upstream. If d is not empty, it is the digest of
// the manifest.
func (m *Mirror) getManifest(ctx context.Context, t target, ref string, d digest.Digest) (registry.Manifest, error) {
	c := call{method: http.MethodGet, name: t.name, kind: "manifests", ref: ref}
	if f := m.isUnknown(t, c); f != nil {
		return registry.Manifest{}, f
	}
	release, err := t.up.reserve(ctx)
	if err != nil {
		return registry.Manifest{}, err
	}
	defer release()
	t.up.misses.Add(1)
	resp, err := t.up.do(ctx, c)
	if err != nil {
		m.noteUnknown(t, c, err)
		return registry.Manifest{}, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	t.up.bytes.Add(uint64(len(content)))
	if err != nil {
		return registry.Manifest{}, t.up.failure(err)
	}
	if d == "" {
		if header := digest.Digest(resp.Header.Get("Docker-Content-Digest")); header.Validate() == nil {
			d = header
		}
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	manifest, err := parseManifest(mediaType, content, d)
	if err != nil && (mediaType == "text/plain" || mediaType == "application/octet-stream") {
		manifest, err = parseManifest("", content, d) // servers of files do not know it
	}
	if err != nil || len(content) > maxManifest {
		return registry.Manifest{}, t.up.failure(notContent("%d bytes that are no manifest: %w", len(content), err))
	}
	m.fresh.Add(tagKey{repo: t.cache}, freshness{})
	return manifest, nil
}

// parseManifest returns a manifest with the digest d, or with its own if that is empty.
func parseManifest(mediaType string, content []byte, d digest.Digest) (registry.Manifest, error) {
	// A MemStore checks, and keeps, a manifest as any store does.
	scratch := &registry.MemStore{}
	return registry.PushManifest(context.Background(), scratch, "manifest", registry.ManifestPush{MediaType: mediaType, Content: content, Digest: d, Sparse: true})
}

// keepManifest stores a manifest that was fetched, and reports whether it could. Its
// content may not be there yet.
func (m *Mirror) keepManifest(ctx context.Context, t target, manifest registry.Manifest, tags ...string) bool {
	_, err := registry.PushManifest(ctx, m.store, t.cache, registry.ManifestPush{
		MediaType: manifest.MediaType,
		Content:   manifest.Content,
		Digest:    manifest.Digest,
		Tags:      tags,
		Sparse:    true,
	})
	if err != nil {
		// The client gets what there is, even if the store is full.
		m.log.Warn("a manifest was not kept", "repository", t.local, "digest", manifest.Digest, "error", err)
		return false
	}
	m.stored(entry{digest: manifest.Digest, size: int64(len(manifest.Content)), manifest: true}, t.cache)
	return true
}

// flight calls fetch once for all callers with the same key, which get its result, unless
// their contexts end before.
func flight[T any](ctx context.Context, m *Mirror, key string, fetch func(context.Context) (T, error)) (T, error) {
	results := m.flights.DoChan(key, func() (any, error) {
		if !m.begin() {
			return nil, registry.ErrUnavailable
		}
		defer m.background.Done()
		// It outlives the client that began it.
		ctx, cancel := context.WithTimeoutCause(m.ctx, 2*m.opts.Timeout, context.DeadlineExceeded)
		defer cancel()
		return fetch(ctx)
	})
	select {
	case r := <-results:
		value, _ := r.Val.(T)
		return value, r.Err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// isUnknown returns a failure if the upstream has just said that it has no such content.
func (m *Mirror) isUnknown(t target, c call) *failure {
	until, ok := m.unknown.Get(unknownKey(t, c))
	if !ok || !time.Now().Before(until) {
		return nil
	}
	return &failure{kind: missing, upstream: t.up.Name, status: http.StatusNotFound}
}

// noteUnknown notes that the upstream has no such content, if err says that: see also
// failed.
func (m *Mirror) noteUnknown(t target, c call, err error) {
	var f *failure
	if errors.As(err, &f) && (f.kind == missing || f.kind == denied && t.byDefault) {
		m.unknown.Add(unknownKey(t, c), time.Now().Add(forgetUnknown))
	}
}

// unknownKey returns the key of unknown content, whatever the method of the call.
func unknownKey(t target, c call) string { return t.up.URL + c.path(t.up.prefix) }

// failed returns the error of the response for an error of a fetch, if there is one, and
// logs it.
func (m *Mirror) failed(ctx context.Context, t target, err, unknown error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if f.kind != missing && ctx.Err() == nil {
		m.log.Warn(f.Error(), "repository", t.local, "error", f.logged())
	}
	if r := requestOf(ctx); t.byDefault && (f.kind == denied || r != nil && r.head) {
		// The name need not be the upstream's: registries deny access to repositories
		// that do not exist, and clients look with HEAD before they push.
		return unknown
	}
	return f.response(unknown)
}

// hit notes that stored content was read.
func (m *Mirror) hit(t target, d digest.Digest) {
	if t.up != nil {
		t.up.hits.Add(1)
		m.usage.use(d)
	}
}
