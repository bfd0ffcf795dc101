// SPDX-License-Identifier: Apache-2.0

// An archive as a store to copy from.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// archiveStore serves the images in an archive, read-only.
type archiveStore struct {
	registry.UnimplementedStore
	archiveSource
	repos map[string]*archiveRepo
}

// archiveRepo is what an archive has of a repository.
type archiveRepo struct {
	roots []reference
	tags  map[string]digest.Digest
	*closure
	sizes map[digest.Digest]int64 // of blobs
}

// newArchiveStore finds the images in an archive. Their names are those in the archive,
// unless as is not the zero value.
func newArchiveStore(ctx context.Context, a *archive, as ref, maxSize int64) (*archiveStore, error) {
	s := &archiveStore{archiveSource: archiveSource{archive: a}, repos: make(map[string]*archiveRepo)}
	images, err := a.readLayout(ctx, as.tag != "")
	if errors.Is(err, fs.ErrNotExist) {
		if images, err = s.readDocker(ctx, maxSize, as.tag != ""); errors.Is(err, fs.ErrNotExist) {
			err = errNotArchive
		}
	}
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, errors.New("it has no images")
	}
	s.referring = make(map[digest.Digest][]reference)
	for _, i := range images {
		if i.subject != "" {
			s.referring[i.subject] = append(s.referring[i.subject], i.root)
		}
	}
	if as.repo != "" {
		if images, err = s.rename(ctx, images, as); err != nil {
			return nil, err
		}
	}
	return s, s.plan(ctx, images)
}

// rename returns images with the name of --as. If that has no tag, they keep theirs.
func (s *archiveStore) rename(ctx context.Context, images []image, as ref) ([]image, error) {
	for n := range images {
		images[n].repo = as.repo
	}
	if as.tag == "" {
		return images, nil
	}
	// The image is the only one that is not part of another, or a referrer.
	var roots []reference
	for _, i := range images {
		roots = append(roots, i.root)
	}
	all, err := walk(ctx, s, roots, false)
	if err != nil {
		return nil, err
	}
	main := make(map[digest.Digest]bool)
	for n, i := range images {
		images[n].tag = ""
		if _, exists := all.manifests[i.subject]; !all.repeated[i.root.Digest] && !exists {
			main[i.root.Digest] = true
			images[n].tag = as.tag
		}
	}
	if len(main) != 1 {
		return nil, fmt.Errorf("it has %d images, and only one can be named %v: --as %s keeps their tags", len(main), as, as.repo)
	}
	return images, nil
}

// plan finds the content of each repository.
func (s *archiveStore) plan(ctx context.Context, images []image) error {
	var unnamed []image
	for _, i := range images {
		if i.repo == "" {
			if i.tag != "" {
				return fmt.Errorf("its image with the tag %s has no repository's name: use --as REPO", i.tag)
			}
			unnamed = append(unnamed, i)
			continue
		}
		r := s.repos[i.repo]
		if r == nil {
			r = &archiveRepo{tags: make(map[string]digest.Digest), sizes: make(map[digest.Digest]int64)}
			s.repos[i.repo] = r
		}
		r.roots = append(r.roots, i.root)
		if i.tag == "" {
			continue
		}
		if other, ok := r.tags[i.tag]; ok && other != i.root.Digest {
			return fmt.Errorf("two of its images are named %v", i.ref)
		}
		r.tags[i.tag] = i.root.Digest
	}
	found := make(map[digest.Digest]bool)
	for name, r := range s.repos {
		var err error
		if r.closure, err = walk(ctx, s, r.roots, true); err != nil {
			return err
		}
		for d := range r.manifests {
			found[d] = true
		}
		if err := s.stat(name, r); err != nil {
			return err
		}
	}
	for _, i := range unnamed {
		if !found[i.root.Digest] {
			return fmt.Errorf("its image %s has no name: use --as REPO or --as REPO:TAG", i.root.Digest)
		}
	}
	return nil
}

// stat finds the sizes of the blobs of a repository.
func (s *archiveStore) stat(name string, r *archiveRepo) error {
	for d, b := range r.blobs {
		size, err := s.size(s.blobFile(d))
		switch {
		case errors.Is(err, fs.ErrNotExist) && b.optional:
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%s: the archive does not contain the blob %s", name, d)
		case err != nil:
			return err
		default:
			r.sizes[d] = size
		}
	}
	return nil
}

// warnings describes what the images of the archive name and the archive lacks.
func (s *archiveStore) warnings() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(s.repos)) {
		r := s.repos[name]
		for _, d := range sortedKeys(r.missing) {
			list = append(list, fmt.Sprintf("%s: %s of the index %s is not in the archive, and is not loaded", name, d, r.missing[d]))
		}
	}
	return list
}

// images returns the names of the images in order.
func (s *archiveStore) images() (list []ref) {
	for _, name := range slices.Sorted(maps.Keys(s.repos)) {
		r := s.repos[name]
		tagged := make(map[digest.Digest]bool)
		for _, tag := range slices.Sorted(maps.Keys(r.tags)) {
			tagged[r.tags[tag]] = true
			list = append(list, ref{repo: name, tag: tag, digest: r.tags[tag]})
		}
		for _, root := range r.roots {
			if !tagged[root.Digest] {
				list = append(list, ref{repo: name, digest: root.Digest})
			}
		}
	}
	return list
}

func (s *archiveStore) Repositories(_ context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, name := range slices.Sorted(maps.Keys(s.repos)) {
			if name > after && !yield(name, nil) {
				return
			}
		}
	}
}

func (s *archiveStore) Tags(_ context.Context, repo, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, tag := range slices.Sorted(maps.Keys(s.repos[repo].tags)) {
			if tag > after && !yield(tag, nil) {
				return
			}
		}
	}
}

func (s *archiveStore) GetTag(ctx context.Context, repo, tag string) (registry.Manifest, error) {
	return s.GetManifest(ctx, repo, s.repos[repo].tags[tag])
}

func (s *archiveStore) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	r, ok := s.repos[repo].manifests[d]
	if !ok {
		return registry.Manifest{}, registry.ErrManifestUnknown
	}
	return s.manifest(ctx, r.MediaType, d)
}

func (s *archiveStore) Manifests(_ context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	manifests := s.repos[repo].manifests
	return infos(manifests, after, func(d digest.Digest) int64 { return manifests[d].Size })
}

func (s *archiveStore) Blobs(_ context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	sizes := s.repos[repo].sizes
	return infos(sizes, after, func(d digest.Digest) int64 { return sizes[d] })
}

// infos yields the keys of a map in order.
func infos[V any](m map[digest.Digest]V, after digest.Digest, size func(digest.Digest) int64) iter.Seq2[registry.Info, error] {
	return func(yield func(registry.Info, error) bool) {
		for _, d := range sortedKeys(m) {
			if d > after && !yield(registry.Info{Digest: d, Size: size(d)}, nil) {
				return
			}
		}
	}
}

func (s *archiveStore) Referrers(_ context.Context, _ string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		list := slices.Clone(s.referring[subject])
		slices.SortFunc(list, func(a, b reference) int { return cmp.Compare(a.Digest, b.Digest) })
		for _, r := range list {
			if r.Digest > after && !yield(registry.Referrer{Digest: r.Digest}, nil) {
				return
			}
		}
	}
}

func (s *archiveStore) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if _, ok := s.repos[repo].sizes[d]; !ok {
		return nil, registry.ErrBlobUnknown
	}
	f, _, err := s.open(s.blobFile(d))
	return f, err
}
