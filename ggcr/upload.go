// SPDX-License-Identifier: Apache-2.0

// Uploads: sessions in memory, whose content is passed to the handler once its
// digest is verified.

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	berth "github.com/berth-oci/registry"

	"github.com/opencontainers/go-digest"
)

var (
	errStreamed = &berth.Error{Status: http.StatusBadRequest, Code: "BLOB_UPLOAD_INVALID", Message: "the upload has content: a further chunk needs a Content-Range"}
	errChunk    = &berth.Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: "BLOB_UPLOAD_UNKNOWN", Message: "chunk out of order"}
)

func (s *store) CreateUpload(ctx context.Context, repo string, opts berth.UploadOptions) (berth.Upload, error) {
	if s.handler.put == nil {
		return nil, errUnsupported
	}
	u, err := s.uploads.CreateUpload(ctx, repo, opts)
	return s.lease(ctx, repo, u, err)
}

func (s *store) ResumeUpload(ctx context.Context, repo, id string) (berth.Upload, error) {
	if s.handler.put == nil {
		return nil, errUnsupported
	}
	u, err := s.uploads.ResumeUpload(ctx, repo, id)
	return s.lease(ctx, repo, u, err)
}

func (s *store) UploadSize(ctx context.Context, repo, id string) (int64, error) {
	return s.uploads.UploadSize(ctx, repo, id)
}

func (s *store) CancelUpload(ctx context.Context, repo, id string) error {
	return s.uploads.CancelUpload(ctx, repo, id)
}

func (s *store) PublishedUpload(ctx context.Context, repo, id string) (digest.Digest, error) {
	return s.uploads.PublishedUpload(ctx, repo, id)
}

func (s *store) lease(ctx context.Context, repo string, u berth.Upload, err error) (berth.Upload, error) {
	if err != nil {
		return nil, err
	}
	return &upload{Upload: u, store: s, repo: repo, start: u.Size(), exchange: exchangeOf(ctx)}, nil
}

// upload is a lease.
type upload struct {
	berth.Upload
	store    *store
	repo     string
	start    int64 // the size when it was leased
	exchange *exchange
}

// ReadFrom enforces go-containerregistry's rules for the order of chunks: one with
// a Content-Range must start at the upload's end, and one without must be the
// first.
func (u *upload) ReadFrom(r io.Reader) (int64, error) {
	chunk := u.exchange.chunk
	if chunk == nil {
		if u.exchange.req.Op == berth.OpUploadPatch && u.Size() > 0 {
			return 0, errStreamed
		}
		return u.Upload.ReadFrom(r)
	}
	if chunk.start != u.Size() {
		return 0, fmt.Errorf("%w: it starts at byte %d, but the upload has %d", errChunk, chunk.start, u.Size())
	}
	n, err := u.Upload.ReadFrom(io.LimitReader(r, chunk.length+1))
	if err == nil && n != chunk.length && n != chunk.length-1 {
		return n, fmt.Errorf("%w: its length is not that of its Content-Range", berth.ErrSizeInvalid)
	}
	return n, err
}

// Commit passes the blob to the handler. If the handler fails, Commit restores the
// session to its state before the lease.
func (u *upload) Commit(ctx context.Context, d digest.Digest) error {
	s := u.store
	if s.handler.memory != nil {
		return u.Upload.Commit(ctx, d)
	}
	release := s.stage(ctx, u.repo, d)
	defer release()
	if err := u.Upload.Commit(ctx, d); err != nil {
		return err
	}
	content, err := s.uploads.OpenBlob(ctx, u.repo, d)
	if err != nil {
		return err
	}
	defer content.Close()
	err = s.handler.put(ctx, u.repo, hashOf(d), io.NopCloser(content))
	if err == nil {
		return nil
	}
	if lost := u.restore(context.WithoutCancel(ctx), d); lost != nil {
		err = fmt.Errorf("%w; the session is lost: %v", err, lost)
	}
	u.exchange.internal = err
	return err
}

// stage keeps the blob d of repo in uploads, once committed, until release is
// called: another upload of the same content must not delete it meanwhile.
func (s *store) stage(ctx context.Context, repo string, d digest.Digest) (release func()) {
	b := stagedBlob{repo, d}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged[b]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.staged[b]--; s.staged[b] > 0 {
			return
		}
		delete(s.staged, b)
		s.uploads.DeleteBlob(context.WithoutCancel(ctx), repo, d) // fails only if it was not committed
	}
}

// restore reopens the session after its content was published as d.
func (u *upload) restore(ctx context.Context, d digest.Digest) error {
	content, err := u.store.uploads.OpenBlob(ctx, u.repo, d)
	if err != nil {
		return err
	}
	defer content.Close()
	again, err := u.store.uploads.CreateUpload(ctx, u.repo, berth.UploadOptions{ID: u.ID(), Algorithm: d.Algorithm()})
	if err != nil {
		return err
	}
	if _, err := again.ReadFrom(io.LimitReader(content, u.start)); err != nil {
		return errors.Join(err, again.Close())
	}
	if err := again.Close(); err != nil {
		return err
	}
	// Rollback returns to the size at the start of a lease, so begin a new one.
	again, err = u.store.uploads.ResumeUpload(ctx, u.repo, u.ID())
	if err == nil {
		u.Upload = again
	}
	return err
}
