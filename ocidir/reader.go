// SPDX-License-Identifier: Apache-2.0

// The methods that read, from any file system.

package ocidir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// reader reads layouts. It caches each index.json until the file changes.
type reader struct {
	fsys fs.FS
	root string // the repository in the root folder, if any

	noLists bool // see Options.NoReferrers

	cacheMu  sync.Mutex         // guards the fields below
	cache    map[string]*layout // by repository
	notBlobs map[notBlob]int    // files that are not blobs, though no index.json names them: changes in progress
}

// notBlob is a file of a manifest or of a list that is being added or deleted.
type notBlob struct {
	repo   string
	digest digest.Digest
}

// countNotBlobs adds n for each of the digests to notBlobs.
func (r *reader) countNotBlobs(repo string, digests []digest.Digest, n int) {
	if len(digests) == 0 {
		return
	}
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	if r.notBlobs == nil {
		r.notBlobs = make(map[notBlob]int)
	}
	for _, d := range digests {
		key := notBlob{repo, d}
		if r.notBlobs[key] += n; r.notBlobs[key] == 0 {
			delete(r.notBlobs, key)
		}
	}
}

// mayBeBlob reports whether content may be a blob according to l, the repository's
// layout, and the changes in progress. Call it before looking for the file, since a
// deletion counts as in progress from before its new layout until the file is gone.
func (r *reader) mayBeBlob(l *layout, d digest.Digest) bool {
	if !l.isBlob(d) || l.content[d].has(asBlob) {
		return l.isBlob(d)
	}
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	return r.notBlobs[notBlob{l.name, d}] == 0
}

// isBlob reports whether a file that was found while l was the repository's
// layout, and after mayBeBlob, is a blob. A change that has begun since then is
// still counted, or it has made another layout: unless it is the same, the caller
// must look again.
func (r *reader) isBlob(l *layout, d digest.Digest) (is, same bool) {
	if !r.mayBeBlob(l, d) || l.content[d].has(asBlob) {
		return l.content[d].has(asBlob), true
	}
	now, err := r.load(l.name)
	return true, err != nil || now == l
}

// whileSame calls f with the repository's layout until the layout is the same
// after the call, as f reports.
func (r *reader) whileSame(repo string, f func(*layout) (same bool, err error)) error {
	for {
		l, err := r.load(repo)
		if err != nil {
			return err
		}
		if same, err := f(l); same || err != nil {
			return err
		}
	}
}

// maxCached is the maximum number of layouts in the cache.
const maxCached = 1000

// folder returns the folder of a repository.
func (r *reader) folder(repo string) string {
	if repo == r.root {
		return "."
	}
	return repoDir(repo)
}

// load returns the current layout of a repository.
// Errors: ErrNameUnknown.
func (r *reader) load(repo string) (*layout, error) {
	dir := r.folder(repo)
	info, err := fs.Stat(r.fsys, path.Join(dir, ocispec.ImageIndexFile))
	if isMissing(err) {
		return nil, registry.ErrNameUnknown
	}
	if err != nil {
		return nil, err
	}
	r.cacheMu.Lock()
	cached := r.cache[repo]
	r.cacheMu.Unlock()
	if cached != nil && isUnchanged(cached.info, info) {
		return cached, nil
	}
	l, err := readLayout(r.fsys, dir, repo, r.noLists)
	if isMissing(err) {
		return nil, registry.ErrNameUnknown // deleted meanwhile
	}
	if err != nil {
		return nil, err
	}
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	if r.cache[repo] == cached { // unless a push has written a newer one
		r.addToCache(l)
	}
	return l, nil
}

// isMissing reports whether err means that a file, or a folder above it, does not
// exist.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// addToCache adds a layout to the cache. It must be called with cacheMu held.
func (r *reader) addToCache(l *layout) {
	if r.cache == nil {
		r.cache = make(map[string]*layout)
	}
	r.cache[l.name] = l
	for name := range r.cache {
		if len(r.cache) <= maxCached {
			return
		}
		delete(r.cache, name)
	}
}

// isUnchanged reports whether a file is unchanged between a and b.
func isUnchanged(a, b fs.FileInfo) bool {
	if !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
		return false
	}
	return os.SameFile(a, b) || !os.SameFile(a, a) // SameFile knows only files of the operating system
}

func (r *reader) OpenBlob(_ context.Context, repo string, d digest.Digest) (content io.ReadSeekCloser, err error) {
	err = r.whileSame(repo, func(l *layout) (bool, error) {
		if !r.mayBeBlob(l, d) {
			return true, registry.ErrBlobUnknown
		}
		content, err = openSeeker(r.fsys, contentPath(r.folder(repo), d))
		if isMissing(err) {
			return true, registry.ErrBlobUnknown
		}
		if err != nil {
			return true, err
		}
		is, same := r.isBlob(l, d)
		if is && same {
			return true, nil
		}
		content.Close()
		if !is {
			return true, registry.ErrBlobUnknown
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	return content, nil
}

// FindBlob searches all repositories, at the cost of a stat for each.
func (r *reader) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range r.Repositories(ctx, "") {
			if err == nil {
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
		m.Content, err = readContent(r.fsys, r.folder(repo), m.Digest)
		switch {
		case err == nil:
			return m, nil
		case !errors.Is(err, fs.ErrNotExist):
			return registry.Manifest{}, err
		}
		// It was deleted meanwhile, and its tag may have moved. If the layout
		// is still the same, only the file is missing.
		if now, err := r.load(repo); err == nil && now == l {
			return registry.Manifest{}, registry.ErrManifestUnknown
		}
	}
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
		all := walkRepos(r.fsys, ".", "", after, func(name string, err error) bool {
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
