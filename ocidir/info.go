// SPDX-License-Identifier: Apache-2.0

// Sizes and times of blobs and manifests, which are those of their files.

package ocidir

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

func (r *reader) StatBlob(_ context.Context, repo string, d digest.Digest) (registry.Info, error) {
	if err := r.isBlob(repo, d); err != nil {
		return registry.Info{}, err
	}
	info, err := r.stat(repo, d)
	if isMissing(err) {
		return registry.Info{}, registry.ErrBlobUnknown
	}
	if err != nil {
		return registry.Info{}, err
	}
	return info, r.isBlob(repo, d)
}

// stat returns the size and time of a file of content.
// Errors: fs.ErrNotExist.
func (r *reader) stat(repo string, d digest.Digest) (registry.Info, error) {
	name := contentPath(r.folder(repo), d)
	info, err := fs.Stat(r.fsys, name)
	if err != nil {
		return registry.Info{}, err
	}
	if !info.Mode().IsRegular() {
		return registry.Info{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	}
	return registry.Info{Digest: d, Size: info.Size(), Time: info.ModTime()}, nil
}

// Blobs reads the names of all files in the repository's blobs folder, but the
// sizes and times only of those that it yields.
func (r *reader) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		l, err := r.load(repo)
		if err != nil {
			yield(registry.Info{}, err)
			return
		}
		digests, err := r.digests(repo, after)
		if err != nil {
			yield(registry.Info{}, err)
			return
		}
		for _, d := range digests {
			if !l.isBlob(d) {
				continue
			}
			info, err := r.StatBlob(ctx, repo, d)
			if errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrNameUnknown) {
				continue // deleted meanwhile, or not a blob
			}
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// digests returns the digests in the names of a repository's files of content,
// in byte order after a digest.
func (r *reader) digests(repo string, after digest.Digest) ([]digest.Digest, error) {
	blobs := path.Join(r.folder(repo), ocispec.ImageBlobsDir)
	algorithms, err := fs.ReadDir(r.fsys, blobs)
	if err != nil && !isMissing(err) {
		return nil, err
	}
	var all []digest.Digest
	for _, algorithm := range algorithms {
		prefix := algorithm.Name() + ":"
		if !digest.Algorithm(algorithm.Name()).Available() || prefix < string(after) && !strings.HasPrefix(string(after), prefix) {
			continue
		}
		files, err := fs.ReadDir(r.fsys, path.Join(blobs, algorithm.Name()))
		if err != nil && !isMissing(err) {
			return nil, err
		}
		for _, file := range files {
			if d := digest.Digest(prefix + file.Name()); d > after && d.Validate() == nil {
				all = append(all, d)
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

func (r *reader) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		l, err := r.load(repo)
		if err != nil {
			yield(registry.Info{}, err)
			return
		}
		for m, err := range l.manifests.Manifests(ctx, repo, after) {
			if errors.Is(err, registry.ErrNameUnknown) { // the repository has only blobs
				return
			}
			if err != nil {
				yield(registry.Info{}, err)
				return
			}
			if p, ok := l.pending.Get(string(m.Digest)); ok {
				if !yield(registry.Info{Digest: m.Digest, Size: int64(len(p.data)), Time: p.time}, nil) {
					return
				}
				continue
			}
			if !r.yieldInfo(repo, m.Digest, yield) {
				return
			}
		}
	}
}

func (r *reader) StatManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	l, err := r.load(repo)
	if err != nil {
		return registry.Info{}, err
	}
	if _, err := l.manifests.GetManifest(ctx, repo, d); err != nil {
		return registry.Info{}, registry.ErrManifestUnknown
	}
	if p, ok := l.pending.Get(string(d)); ok {
		return registry.Info{Digest: d, Size: int64(len(p.data)), Time: p.time}, nil
	}
	info, err := r.stat(repo, d)
	if isMissing(err) {
		err = registry.ErrManifestUnknown
	}
	return info, err
}

// yieldInfo yields the size and time of a manifest's file, unless it was deleted
// meanwhile. It reports whether to go on.
func (r *reader) yieldInfo(repo string, d digest.Digest, yield func(registry.Info, error) bool) bool {
	info, err := r.stat(repo, d)
	if isMissing(err) {
		return true
	}
	return yield(info, err) && err == nil
}
