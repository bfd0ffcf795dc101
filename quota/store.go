// SPDX-License-Identifier: Apache-2.0

// The changes to content, which are counted.

package quota

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// stripes are locks of content. A change to whether a repository has some content
// holds its lock from the look whether it does to the end of the change. No lock is
// held while bytes of a client move.
type stripes struct {
	once  sync.Once
	seed  maphash.Seed
	locks [256]sync.Mutex
}

// lock locks content of a repository, and returns the function that unlocks it.
func (s *stripes) lock(repo string, content ...digest.Digest) (unlock func()) {
	s.once.Do(func() { s.seed = maphash.MakeSeed() })
	var held []int
	for _, d := range content {
		held = append(held, int(maphash.String(s.seed, repo+"@"+string(d))%uint64(len(s.locks))))
	}
	slices.Sort(held)
	held = slices.Compact(held)
	for _, i := range held {
		s.locks[i].Lock()
	}
	return func() {
		for _, i := range held {
			s.locks[i].Unlock()
		}
	}
}

// isUnknown reports whether err says that content does not exist.
func isUnknown(err error) bool {
	return errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, registry.ErrManifestUnknown) || errors.Is(err, registry.ErrNameUnknown)
}

// put stores content by calling f. It counts the content, unless the repository has it.
// It releases reserved bytes if f succeeds.
func (s *Store) put(repo string, d digest.Digest, more Usage, reserved int64, stat func() error, f func() error) error {
	defer s.locks.lock(repo, d)()
	err := stat()
	if err != nil && !isUnknown(err) {
		return err
	}
	if err == nil {
		more = Usage{}
	}
	if err := s.add(repo, more, reserved); err != nil {
		return err
	}
	if err := f(); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.change(repo, Usage{}.minus(more))
		s.reserveMore(repo, reserved)
		return err
	}
	return nil
}

func (s *Store) statBlob(ctx context.Context, repo string, d digest.Digest) func() error {
	return func() error {
		_, err := s.Store.StatBlob(ctx, repo, d)
		return err
	}
}

// MountBlob is a method of registry.Store.
// Errors: registry.ErrDenied if a limit would be exceeded.
func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	info, err := s.Store.StatBlob(ctx, from, d)
	if err != nil {
		return err
	}
	return s.put(repo, d, Usage{Blobs: 1, Bytes: info.Size}, 0, s.statBlob(ctx, repo, d), func() error {
		return s.Store.MountBlob(ctx, repo, from, d)
	})
}

// PutManifest is a method of registry.Store.
// Errors: registry.ErrDenied if a limit would be exceeded.
func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	stat := func() error {
		_, err := s.Store.StatManifest(ctx, repo, m.Digest)
		return err
	}
	return s.put(repo, m.Digest, Usage{Manifests: 1, Bytes: int64(len(m.Content))}, 0, stat, func() error {
		return s.Store.PutManifest(ctx, repo, m, tags, allow)
	})
}

// DeleteBlob is a method of registry.Store.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return s.delete(ctx, repo, d, Usage{Blobs: 1}, s.Store.StatBlob, s.Store.DeleteBlob)
}

// DeleteManifest is a method of registry.Store.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return s.delete(ctx, repo, d, Usage{Manifests: 1}, s.Store.StatManifest, s.Store.DeleteManifest)
}

// delete deletes content by calling f, and stops counting it. The usage is that of the
// content, without its bytes.
func (s *Store) delete(ctx context.Context, repo string, d digest.Digest, less Usage,
	stat func(context.Context, string, digest.Digest) (registry.Info, error), f func(context.Context, string, digest.Digest) error) error {
	defer s.locks.lock(repo, d)()
	info, err := stat(ctx, repo, d)
	if err != nil && !isUnknown(err) {
		return err
	}
	if err := f(ctx, repo, d); err != nil {
		return err
	}
	less.Bytes = info.Size
	s.remove(repo, less)
	return nil
}

// CollectBlobs is a method of registry.Store.
func (s *Store) CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]registry.Info, error) {
	defer s.locks.lock(repo, blobs...)()
	deleted, err := s.Store.CollectBlobs(ctx, repo, blobs, since)
	s.removeAll(repo, deleted, Usage{Blobs: 1})
	return deleted, err
}

// CollectManifests is a method of registry.Store.
func (s *Store) CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]registry.Info, error) {
	defer s.locks.lock(repo, manifests...)()
	deleted, err := s.Store.CollectManifests(ctx, repo, manifests, since)
	s.removeAll(repo, deleted, Usage{Manifests: 1})
	return deleted, err
}

// removeAll stops counting content. The usage is that of each, without its bytes.
func (s *Store) removeAll(repo string, content []registry.Info, less Usage) {
	for _, info := range content {
		less.Bytes = info.Size
		s.remove(repo, less)
	}
}

// CreateUpload is a method of registry.Store.
// Errors: registry.ErrDenied if no byte is left.
func (s *Store) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	s.mu.Lock()
	err := s.allow(repo, Usage{Bytes: 1})
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	u, err := s.Store.CreateUpload(ctx, repo, opts)
	if err != nil {
		return nil, err
	}
	return &upload{Upload: u, store: s, repo: repo}, nil
}

// ResumeUpload is a method of registry.Store.
func (s *Store) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	u, err := s.Store.ResumeUpload(ctx, repo, id)
	if err != nil {
		return nil, err
	}
	return &upload{Upload: u, store: s, repo: repo}, nil
}

// upload is a lease whose bytes are reserved while it lasts.
type upload struct {
	registry.Upload
	store    *Store
	repo     string
	reserved int64
}

// grow reserves bytes for the upload to have size bytes.
func (u *upload) grow(size int64) error {
	more := size - u.reserved
	if more <= 0 {
		return nil
	}
	if err := u.store.reserve(u.repo, more); err != nil {
		return err
	}
	u.reserved = size
	return nil
}

func (u *upload) release() {
	u.store.mu.Lock()
	defer u.store.mu.Unlock()
	u.store.reserveMore(u.repo, -u.reserved)
	u.reserved = 0
}

// ReadFrom is a method of registry.Upload.
// Errors: registry.ErrDenied if the bytes exceed a limit, or would.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	size := u.Size()
	if announced, ok := r.(interface{ Len() int }); ok {
		if err := u.grow(size + int64(announced.Len())); err != nil {
			return 0, err
		}
	}
	return u.Upload.ReadFrom(&limitedReader{upload: u, r: r, size: size})
}

// limitedReader reads the bytes for an upload as far as the limits allow.
type limitedReader struct {
	upload *upload
	r      io.Reader
	size   int64 // of the upload
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if full := l.upload.grow(l.size + int64(n)); full != nil {
		return 0, full
	}
	l.size += int64(n)
	return n, err
}

// Commit is a method of registry.Upload.
// Errors: registry.ErrDenied if a limit would be exceeded.
func (u *upload) Commit(ctx context.Context, d digest.Digest) error {
	s := u.store
	err := s.put(u.repo, d, Usage{Blobs: 1, Bytes: u.Size()}, u.reserved, s.statBlob(ctx, u.repo, d), func() error {
		return u.Upload.Commit(ctx, d)
	})
	if err == nil {
		u.reserved = 0
	}
	return err
}

// Close is a method of registry.Upload.
func (u *upload) Close() error {
	u.release()
	return u.Upload.Close()
}
