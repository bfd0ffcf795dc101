// SPDX-License-Identifier: Apache-2.0

// The half of the contract that reads, from any file system.

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

// reader reads layouts. What it knows of them it has from their files, and
// reads anew when those have changed.
type reader struct {
	fsys fs.FS
	root string // the name of a layout in the root, if any is to be served

	cacheMu sync.Mutex
	cache   map[string]*layout // by repository
}

// maxCached is the number of layouts that are kept in memory.
const maxCached = 1000

// folder returns the folder of a repository.
func (r *reader) folder(repo string) string {
	if repo == r.root {
		return "."
	}
	return repoDir(repo)
}

// layout returns what a repository's index.json says now.
// Errors: ErrNameUnknown.
func (r *reader) layout(repo string) (*layout, error) {
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
	if cached != nil && same(cached.info, info) {
		return cached, nil
	}
	l, err := readLayout(r.fsys, dir, repo)
	if isMissing(err) {
		return nil, registry.ErrNameUnknown // deleted since
	}
	if err != nil {
		return nil, err
	}
	r.cacheMu.Lock()
	defer r.cacheMu.Unlock()
	if r.cache[repo] == cached { // and not what a push has written since
		r.keep(l)
	}
	return l, nil
}

// isMissing reports whether there is no such file, nor perhaps its folder.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// keep puts a layout into the cache. It must be called with cacheMu held.
func (r *reader) keep(l *layout) {
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

// same reports whether two looks at a file saw the same content.
func same(a, b fs.FileInfo) bool {
	if !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
		return false
	}
	return os.SameFile(a, b) || !os.SameFile(a, a) // it knows only files of the system
}

func (r *reader) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	l, err := r.layout(repo)
	if err != nil {
		return nil, err
	}
	if !l.isBlob(d) {
		return nil, registry.ErrBlobUnknown
	}
	content, err := openSeeker(r.fsys, contentPath(r.folder(repo), d))
	if errors.Is(err, fs.ErrNotExist) {
		err = registry.ErrBlobUnknown
	}
	return content, err
}

// FindBlob asks each repository, a question to the file system each.
func (r *reader) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range r.Repositories(ctx, "") {
			if err == nil {
				if _, err := fs.Stat(r.fsys, contentPath(r.folder(repo), d)); err != nil {
					continue
				}
				if l, err := r.layout(repo); err != nil || !l.isBlob(d) {
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

// manifest returns the manifest that find finds, with its content.
func (r *reader) manifest(repo string, find func(*layout) (registry.Manifest, error)) (registry.Manifest, error) {
	for {
		l, err := r.layout(repo)
		if err != nil {
			return registry.Manifest{}, err
		}
		m, err := find(l)
		if errors.Is(err, registry.ErrNameUnknown) { // there are blobs alone
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
		// It was deleted since, and its tag may have moved: unless the file
		// alone is gone, there is another layout now.
		if now, err := r.layout(repo); err == nil && now == l {
			return registry.Manifest{}, registry.ErrManifestUnknown
		}
	}
}

func (r *reader) Tags(ctx context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		l, err := r.layout(repo)
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
	l, err := r.layout(repo)
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

// openSeeker opens a file for reading in any order.
func openSeeker(fsys fs.FS, name string) (io.ReadSeekCloser, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	if s, ok := f.(io.ReadSeekCloser); ok {
		return s, nil
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &reopener{fsys: fsys, name: name, size: info.Size(), file: f}, nil
}

// reopener reads a file that can only be read from its start, as those in a
// zip.
type reopener struct {
	fsys fs.FS
	name string
	size int64

	file   fs.File
	at     int64 // in file
	offset int64 // that is asked for
}

func (r *reopener) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if r.offset < r.at {
		f, err := r.fsys.Open(r.name)
		if err != nil {
			return 0, err
		}
		r.file.Close()
		r.file, r.at = f, 0
	}
	if r.at < r.offset {
		n, err := io.CopyN(io.Discard, r.file, r.offset-r.at)
		if r.at += n; err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p)
	r.at += int64(n)
	r.offset = r.at
	return n, err
}

func (r *reopener) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, errors.New("ocidir: invalid seek")
	}
	r.offset = offset
	return offset, nil
}

func (r *reopener) Close() error { return r.file.Close() }
