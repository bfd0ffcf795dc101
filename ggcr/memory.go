// SPDX-License-Identifier: Apache-2.0

// Blobs in memory.

package registry

import (
	"context"
	"errors"
	"io"

	berth "github.com/berth-oci/registry"

	"github.com/opencontainers/go-digest"
)

// NewInMemoryBlobHandler returns a BlobHandler that keeps blobs in memory,
// without a limit. It implements all three extensions.
func NewInMemoryBlobHandler() BlobHandler { return &memory{} }

// memory is a BlobHandler. Its store keeps a blob in the repository that it was
// pushed to; the methods read it through any.
type memory struct {
	store berth.MemStore
}

func (m *memory) Get(ctx context.Context, _ string, h Hash) (io.ReadCloser, error) {
	content, err := m.open(ctx, digestOf(h))
	if err != nil {
		return nil, err
	}
	return content, nil
}

func (m *memory) Stat(ctx context.Context, _ string, h Hash) (int64, error) {
	content, err := m.open(ctx, digestOf(h))
	if err != nil {
		return 0, err
	}
	defer content.Close()
	return content.Seek(0, io.SeekEnd)
}

func (m *memory) open(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, error) {
	for repo, err := range m.store.FindBlob(ctx, d) {
		if err != nil {
			return nil, err
		}
		content, err := m.store.OpenBlob(ctx, repo, d)
		if !unknown(err) { // deleted since
			return content, err
		}
	}
	return nil, ErrNotFound
}

func (m *memory) Put(ctx context.Context, _ string, h Hash, rc io.ReadCloser) error {
	defer rc.Close()
	const repo = "blobs" // any repository will do
	return berth.PushBlob(ctx, &m.store, repo, digestOf(h), rc)
}

func (m *memory) Delete(ctx context.Context, _ string, h Hash) error {
	result := ErrNotFound
	d := digestOf(h)
	for repo, err := range m.store.FindBlob(ctx, d) {
		if err == nil {
			err = m.store.DeleteBlob(ctx, repo, d)
		}
		switch {
		case err == nil:
			result = nil
		case !unknown(err):
			return err
		}
	}
	return result
}

// unknown reports whether a store returned err because it has no such blob.
func unknown(err error) bool {
	return errors.Is(err, berth.ErrBlobUnknown) || errors.Is(err, berth.ErrNameUnknown)
}
