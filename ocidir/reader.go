// SPDX-License-Identifier: Apache-2.0

// The methods that read, from any file system.

package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// reader reads layouts. It caches each until its files change.
type reader struct {
	fsys fs.FS
	root string // the repository in the root folder, if any
	log  *slog.Logger

	noLists bool // see Options.NoReferrers

	// reload returns the current layout of a repository, if the cached one may
	// be out of date.
	reload func(repo string) (*layout, error)
	// othersWrite is set if another process may write journals.
	othersWrite bool

	loading keyedMutex // by repository

	cacheMu sync.Mutex         // guards cache
	cache   map[string]*layout // by repository
}

// maxCached is the maximum number of layouts in the cache, without those whose
// index.json lacks changes.
const maxCached = 1000

// folder returns the folder of a repository.
func (r *reader) folder(repo string) string {
	if repo == r.root {
		return "."
	}
	return repoDir(repo)
}

// load returns the current layout of a repository. Callers that need the same one
// wait for one of them to read it.
// Errors: ErrNameUnknown.
func (r *reader) load(repo string) (*layout, error) {
	if l, err := r.loadCached(repo); l != nil || err != nil {
		return l, err
	}
	defer r.loading.lock(repo)()
	if l, err := r.loadCached(repo); l != nil || err != nil {
		return l, err
	}
	return r.reload(repo)
}

// loadCached returns the cached layout of a repository, nil if there is none or
// its files have changed.
// Errors: ErrNameUnknown.
func (r *reader) loadCached(repo string) (*layout, error) {
	dir := r.folder(repo)
	info, err := fs.Stat(r.fsys, path.Join(dir, ocispec.ImageIndexFile))
	if isMissing(err) {
		return nil, registry.ErrNameUnknown
	}
	if err != nil {
		return nil, err
	}
	l := r.cached(repo)
	if l == nil || !isUnchanged(l.info, info) || r.othersWrite && !r.hasJournal(dir, l.journal) {
		return nil, nil
	}
	return l, nil
}

// hasJournal reports whether the journal in dir is unchanged.
func (r *reader) hasJournal(dir string, journal fs.FileInfo) bool {
	info, err := fs.Stat(r.fsys, path.Join(dir, journalFile))
	if err != nil || journal == nil {
		return err != nil && journal == nil
	}
	return isUnchanged(journal, info)
}

// read is the reload of a reader that does not write.
func (r *reader) read(repo string) (*layout, error) {
	var l *layout
	if cached := r.cached(repo); cached != nil {
		l, _ = cached.readOn(r.fsys, r.folder(repo))
	}
	if l == nil {
		var err error
		l, _, _, err = loadLayout(r.fsys, r.folder(repo), repo, r.noLists)
		if isMissing(err) {
			return nil, registry.ErrNameUnknown // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
	}
	l.dirty, l.unsaved = false, nil
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	r.addToCache(l)
	return l, nil
}

// isMissing reports whether err means that a file, or a folder above it, does not
// exist.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// cached returns the cached layout of a repository, nil if there is none.
func (r *reader) cached(repo string) *layout {
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	return r.cache[repo]
}

// addToCache adds a layout to the cache. It must be called with cacheMu held.
func (r *reader) addToCache(l *layout) {
	if r.cache == nil {
		r.cache = make(map[string]*layout)
	}
	r.cache[l.name] = l
	for name, other := range r.cache {
		if len(r.cache) <= maxCached {
			return
		}
		if !other.dirty && name != l.name {
			delete(r.cache, name)
		}
	}
}

// isUnchanged reports whether a file is unchanged between a and b.
func isUnchanged(a, b fs.FileInfo) bool {
	if !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
		return false
	}
	return os.SameFile(a, b) || !os.SameFile(a, a) // SameFile knows only files of the operating system
}

// isBlob reports whether the file with the digest d, if it exists, is a blob. To
// know that of a file, call it before and after looking for the file, since a
// manifest may be added or removed meanwhile.
func (r *reader) isBlob(repo string, d digest.Digest) error {
	l, err := r.load(repo)
	if err == nil && !l.isBlob(d) {
		err = registry.ErrBlobUnknown
	}
	return err
}

func (r *reader) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if err := r.isBlob(repo, d); err != nil {
		return nil, err
	}
	content, err := openSeeker(r.fsys, contentPath(r.folder(repo), d))
	if isMissing(err) {
		return nil, registry.ErrBlobUnknown
	}
	if err != nil {
		return nil, err
	}
	if err := r.isBlob(repo, d); err != nil {
		content.Close()
		return nil, err
	}
	return content, nil
}

// FindBlob searches all repositories, at the cost of two stats for each.
func (r *reader) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range r.Repositories(ctx, "") {
			if err == nil {
				if _, err := r.stat(repo, d); err != nil {
					continue // without loading the repository
				}
				if _, err := r.StatBlob(ctx, repo, d); err != nil {
					continue
				}
			}
			if !yield(repo, err) {
				return
			}
		}
	}
}

func (r *reader) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	return r.manifest(repo, func(l *layout) (registry.Manifest, error) {
		return l.manifests.GetManifest(ctx, repo, d)
	})
}

func (r *reader) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	return r.manifest(repo, func(l *layout) (registry.Manifest, error) {
		return l.manifests.GetTag(ctx, repo, tag)
	})
}

// manifest returns the manifest that find returns, with its content.
func (r *reader) manifest(repo string, find func(*layout) (registry.Manifest, error)) (registry.Manifest, error) {
	for {
		l, err := r.load(repo)
		if err != nil {
			return registry.Manifest{}, err
		}
		m, err := find(l)
		if errors.Is(err, registry.ErrNameUnknown) { // the repository has only blobs
			err = registry.ErrManifestUnknown
		}
		if err != nil {
			return registry.Manifest{}, err
		}
		m.Content, err = r.manifestContent(l, m)
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, registry.ErrTooLarge):
			return registry.Manifest{}, registry.ErrManifestUnknown
		case !isMissing(err):
			return registry.Manifest{}, err
		}
		// It was deleted meanwhile, and its tag may have moved. If the layout
		// is still the same, the file is missing or damaged.
		if now, err := r.load(repo); err == nil && now == l {
			return registry.Manifest{}, registry.ErrManifestUnknown
		}
	}
}

// manifestContent returns the content of a manifest.
// Errors: fs.ErrNotExist if the file is missing, or is damaged.
func (r *reader) manifestContent(l *layout, m registry.Manifest) ([]byte, error) {
	if p, ok := l.pending.Get(string(m.Digest)); ok {
		return p.data, nil
	}
	content, err := readContent(r.fsys, r.folder(l.name), m.Digest)
	if err == nil && !isIntact(m.MediaType, m.Digest, content) {
		r.log.Error("a manifest is damaged: push it again", "repository", l.name, "digest", m.Digest)
		err = fs.ErrNotExist
	}
	return content, err
}

// isIntact reports whether a manifest has the digest d, which is the payload's for
// a signed manifest of Docker schema 1.
func isIntact(mediaType string, d digest.Digest, content []byte) bool {
	if d.Algorithm().FromBytes(content) == d {
		return true
	}
	_, ok := parseFact(mediaType, d, content)
	return ok
}

func (r *reader) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		l, err := r.load(repo)
		if err != nil {
			yield("", err)
			return
		}
		for tag, err := range l.manifests.Tags(ctx, repo, after) {
			if errors.Is(err, registry.ErrNameUnknown) || !yield(tag, err) {
				return
			}
		}
	}
}

func (r *reader) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	l, err := r.load(repo)
	if err != nil {
		return func(yield func(registry.Referrer, error) bool) {
			if !errors.Is(err, registry.ErrNameUnknown) {
				yield(registry.Referrer{}, err)
			}
		}
	}
	return l.manifests.Referrers(ctx, repo, subject, after)
}

func (r *reader) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		pending := r.root > after
		all := r.walkRepos(".", "", after, func(name string, err error) bool {
			if pending && name > r.root {
				if pending = false; !yield(r.root, nil) {
					return false
				}
			}
			return yield(name, err)
		})
		if pending && all {
			yield(r.root, nil)
		}
	}
}

// keyedMutex is a mutex for each key.
type keyedMutex struct {
	mu   sync.Mutex
	held map[string]*countedMutex
}

type countedMutex struct {
	sync.Mutex
	users int
}

// lock locks the mutex of a key, and returns a function that unlocks it.
func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	m, ok := k.held[key]
	if !ok {
		m = new(countedMutex)
		if k.held == nil {
			k.held = make(map[string]*countedMutex)
		}
		k.held[key] = m
	}
	m.users++
	k.mu.Unlock()
	m.Lock()
	return func() {
		m.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if m.users--; m.users == 0 {
			delete(k.held, key)
		}
	}
}
