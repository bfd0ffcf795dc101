// SPDX-License-Identifier: Apache-2.0

// Blobs: from the store, or while they are fetched.

package mirror

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// StatBlob implements registry.Store. It asks the upstream for a blob that is not stored,
// in the way a GET would.
func (m *Mirror) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return registry.Info{}, err
	}
	info, err := firstOf(ctx, m, t, func(repo string) (registry.Info, error) { return m.store.StatBlob(ctx, repo, d) })
	if err == nil {
		m.hit(t, d)
		return info, nil
	}
	if r := requestOf(ctx); isUnknown(err) && t.up != nil && r != nil && r.put {
		if info, provideErr := m.provideBlob(ctx, t, d); provideErr == nil {
			return info, nil
		}
		return registry.Info{}, err
	}
	if !isUnknown(err) || !m.mayFetchBlob(ctx, t) {
		return registry.Info{}, err
	}
	if f := m.fetchOf(t, d); f != nil {
		defer f.release()
		size, err := f.wait(ctx, false)
		switch {
		case errors.Is(err, errStored):
			return m.store.StatBlob(ctx, f.target.cache, d)
		case err == nil || f.isOf(t):
			return registry.Info{Digest: d, Size: size, Time: time.Now()}, m.failed(ctx, t, err, registry.ErrBlobUnknown)
		}
	}
	size, err := m.headBlob(ctx, t, d)
	if err == nil && size < 0 {
		return m.measureBlob(ctx, repo, d)
	}
	return registry.Info{Digest: d, Size: size, Time: time.Now()}, m.failed(ctx, t, err, registry.ErrBlobUnknown)
}

// measureBlob is StatBlob for upstreams that do not say the length of a blob.
func (m *Mirror) measureBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	content, err := m.OpenBlob(ctx, repo, d)
	if err != nil {
		return registry.Info{}, err
	}
	defer content.Close()
	size, err := content.Seek(0, io.SeekEnd)
	return registry.Info{Digest: d, Size: size, Time: time.Now()}, err
}

// provideBlob fetches a blob that a pushed manifest names. A client that has asked for it,
// and so found the upstream's, has not pushed it.
func (m *Mirror) provideBlob(ctx context.Context, t target, d digest.Digest) (registry.Info, error) {
	if t.byDefault && !m.hasFetched(ctx, t) {
		return registry.Info{}, registry.ErrBlobUnknown // as the client was told
	}
	f, err := m.joinFetch(ctx, t, d)
	if err == nil {
		defer f.release()
		if _, err = f.wait(ctx, true); err == nil {
			err = registry.PushBlob(ctx, m.store, t.local, d, io.NewSectionReader(f.file, 0, f.size))
		}
	}
	if err != nil && !errors.Is(err, errStored) {
		return registry.Info{}, err
	}
	return firstOf(ctx, m, t, func(repo string) (registry.Info, error) { return m.store.StatBlob(ctx, repo, d) })
}

// OpenBlob implements registry.Store.
func (m *Mirror) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	t, err := m.resolve(repo)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		content, err := firstOf(ctx, m, t, func(repo string) (io.ReadSeekCloser, error) { return m.store.OpenBlob(ctx, repo, d) })
		if err == nil {
			m.hit(t, d)
			return content, nil
		}
		if !isUnknown(err) || !m.mayFetchBlob(ctx, t) {
			return nil, err
		}
		f, err := m.joinFetch(ctx, t, d)
		if err == nil {
			if _, err = f.wait(ctx, false); err == nil {
				return f.open(ctx, m, t), nil
			}
			f.release()
			if !f.isOf(t) && errors.As(err, new(*failure)) && try < maxOpens {
				continue
			}
		}
		if !errors.Is(err, errStored) || try == maxOpens {
			return nil, m.failed(ctx, t, err, registry.ErrBlobUnknown)
		}
	}
}

// maxOpens is the number of times that OpenBlob looks again. A store that is damaged may
// have a blob that it can't open.
const maxOpens = 10

// errStored says that a blob is in the store by now.
var errStored = errors.New("the blob is stored")

// mayFetchBlob reports whether a blob of t that is not stored can be fetched. Under a name
// that is not the upstream's, clients ask for the manifest first; others are about to push.
func (m *Mirror) mayFetchBlob(ctx context.Context, t target) bool {
	return t.up != nil && goesUp(ctx) && (!t.byDefault || m.hasFetched(ctx, t))
}

// mayFetch reports whether other content of t that is not stored can be fetched. A
// repository that clients have pushed to is not the upstream's just because its name could
// be.
func (m *Mirror) mayFetch(ctx context.Context, t target) bool {
	return t.up != nil && goesUp(ctx) && (!t.byDefault || m.hasFetched(ctx, t) || !m.hasManifest(ctx, t.local))
}

// hasFetched reports whether a manifest of t has been fetched. It need not be stored: the
// store may be full, or it has been evicted for the blobs that it names.
func (m *Mirror) hasFetched(ctx context.Context, t target) bool {
	return m.fresh.Contains(tagKey{repo: t.cache}) || m.hasManifest(ctx, t.cache)
}

func (m *Mirror) hasManifest(ctx context.Context, repo string) bool {
	return hasAny(m.store.Manifests(ctx, repo, ""))
}

// headBlob returns the size of a blob of the upstream, -1 if it does not say it.
func (m *Mirror) headBlob(ctx context.Context, t target, d digest.Digest) (int64, error) {
	return flight(ctx, m, "head "+t.cache+"@"+string(d), func(ctx context.Context) (int64, error) {
		c := call{method: http.MethodHead, name: t.name, kind: "blobs", ref: string(d)}
		if f := m.isUnknown(t, c); f != nil {
			return 0, f
		}
		t.up.misses.Add(1)
		resp, err := t.up.do(ctx, c)
		if err != nil {
			m.noteUnknown(t, c, err)
			return 0, err
		}
		resp.Body.Close()
		return resp.ContentLength, nil
	})
}

// fetchOf returns the fetch of a blob for t that is in progress, or nil. The caller uses
// it, and must release it.
func (m *Mirror) fetchOf(t target, d digest.Digest) *fetch {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.fetches[fetchKey{t.up.Name, d}]; f != nil && f.repos[t.cache] {
		f.use()
		return f
	}
	return nil
}

// joinFetch returns the fetch of a blob, and begins it if there is none. The caller uses it,
// and must release it. A blob that another repository has, or that is fetched for it, is not
// fetched again, but only after the upstream has said that this one has it too.
// Errors: errStored.
func (m *Mirror) joinFetch(ctx context.Context, t target, d digest.Digest) (*fetch, error) {
	if f := m.fetchOf(t, d); f != nil {
		return f, nil
	}
	select {
	case t.up.slots <- struct{}{}: // which the fetch gives back
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	from := m.fetchedElsewhere(ctx, t, d)
	if from == "" {
		if f := m.startFetch(t, d, false); f != nil {
			return f, nil
		}
	}
	if _, err := m.headBlob(ctx, t, d); err != nil {
		<-t.up.slots
		return nil, err
	}
	if from != "" && m.store.MountBlob(ctx, t.cache, from, d) == nil {
		<-t.up.slots
		if info, err := m.store.StatBlob(ctx, t.cache, d); err == nil {
			m.stored(entry{digest: d, size: info.Size}, t.cache)
		}
		return nil, errStored
	}
	return m.startFetch(t, d, true), nil
}

// startFetch returns the fetch of a blob, and begins it if there is none. Unless the
// repository is known to have the blob, it returns nil if the fetch is for others. If it
// does not, the caller's slot is taken.
func (m *Mirror) startFetch(t target, d digest.Digest, proven bool) *fetch {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := fetchKey{t.up.Name, d}
	f := m.fetches[key]
	switch {
	case f != nil && !proven && !f.repos[t.cache]:
		return nil
	case f != nil:
		<-t.up.slots
	case m.closed:
		<-t.up.slots
		return &fetch{finished: true, err: registry.ErrUnavailable, users: 1}
	default:
		f = newFetch(t, d)
		m.fetches[key] = f
		m.background.Go(func() { m.run(f) })
	}
	f.use()
	f.repos[t.cache] = true
	return f
}

// fetchedElsewhere returns a repository of fetched content that has a blob, or "". The word
// of t's upstream, that t has the blob, counts for blobs of its own, and for public ones.
func (m *Mirror) fetchedElsewhere(ctx context.Context, t target, d digest.Digest) string {
	all := m.current.Load()
	for repo, err := range m.store.FindBlob(ctx, d) {
		name, ok := strings.CutPrefix(repo, CachePrefix)
		if err != nil || !ok {
			continue
		}
		name, _, _ = strings.Cut(name, "/")
		if up := all.byName[name]; name == t.up.Name || up != nil && !up.Private {
			return repo
		}
	}
	return ""
}
