// SPDX-License-Identifier: Apache-2.0

// The registry's Store: manifests in memory, blobs in a BlobHandler.

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"

	berth "github.com/berth-oci/registry"

	"github.com/opencontainers/go-digest"
)

// store keeps manifests and tags in the Store that it embeds.
type store struct {
	berth.Store
	handler handler

	// uploads holds the sessions. If blobs are in memory, it is the handler's
	// own store, so that the received bytes become the blob without a copy.
	// Otherwise it holds a blob only until the handler has stored it.
	uploads *berth.MemStore

	mu     sync.Mutex
	staged map[stagedBlob]int // the number of uploads that have the blob in uploads
}

type stagedBlob struct {
	repo   string
	digest digest.Digest
}

func newStore(h handler) *store {
	s := &store{
		Store:   new(berth.MemStore),
		handler: h,
		uploads: new(berth.MemStore),
		staged:  make(map[stagedBlob]int),
	}
	if h.memory != nil {
		s.uploads = &h.memory.store
	}
	return s
}

// errUnsupported is returned if the handler lacks a method.
var errUnsupported = &berth.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "the blob handler does not support this operation"}

// fail returns the store's error for an error of the handler. It records a
// redirect, or an internal error for the log, in the exchange.
func fail(ctx context.Context, err error) error {
	e := exchangeOf(ctx)
	reads := e.req.Op == berth.OpBlobGet || e.req.Op == berth.OpBlobHead
	var redirect RedirectError
	var pointer *RedirectError
	var shaped *berth.Error
	switch {
	case err == nil:
		return nil
	case reads && errors.As(err, &redirect):
		e.redirect = &redirect
	case reads && errors.As(err, &pointer) && pointer != nil:
		e.redirect = pointer
	case errors.Is(err, ErrNotFound):
		return berth.ErrBlobUnknown
	case errors.As(err, &shaped):
		return shaped // without the text that wraps it, which is not meant for clients
	default:
		e.internal = err
	}
	return err
}

// OpenBlob opens a blob through any repository.
func (s *store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	content, size, err := s.open(ctx, repo, d, false)
	if err != nil {
		return nil, fail(ctx, err)
	}
	if e := exchangeOf(ctx); e.rangeEnd >= size && size > 0 {
		content.Close()
		return nil, fmt.Errorf("%w: it ends at byte %d of %d", errRange, e.rangeEnd, size)
	}
	return content, nil
}

// open returns a blob and its size. If sizeOnly is set and the handler knows the
// size, open does not request the content.
func (s *store) open(ctx context.Context, repo string, d digest.Digest, sizeOnly bool) (io.ReadSeekCloser, int64, error) {
	h := s.handler
	c := &content{size: -1, open: func() (io.ReadCloser, error) {
		if h.get == nil {
			return nil, errors.New("the blob handler has no method Get")
		}
		rc, err := h.get(ctx, repo, hashOf(d))
		if err == nil && rc == nil {
			err = errors.New("the blob handler returned neither content nor an error")
		}
		return rc, err
	}}
	if h.stat != nil {
		size, err := h.stat(ctx, repo, hashOf(d))
		if err == nil && size < 0 {
			err = fmt.Errorf("the blob handler returned a size of %d", size)
		}
		if err != nil {
			return nil, 0, err
		}
		if c.size = size; sizeOnly {
			return c, size, nil
		}
	}
	rc, err := c.open()
	if err != nil {
		return nil, 0, err
	}
	if seeker, ok := rc.(io.ReadSeekCloser); ok {
		size, err := seeker.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = seeker.Seek(0, io.SeekStart)
		}
		if err != nil {
			rc.Close()
			return nil, 0, err
		}
		return seeker, size, nil
	}
	c.rc = rc
	if c.size < 0 {
		err = c.measure(sizeOnly)
	}
	return c, c.size, err
}

// StatBlob returns the size of a blob, through any repository. Handlers do not
// know its time.
func (s *store) StatBlob(ctx context.Context, repo string, d digest.Digest) (berth.Info, error) {
	content, size, err := s.open(ctx, repo, d, true)
	if err != nil {
		return berth.Info{}, fail(ctx, err)
	}
	return berth.Info{Digest: d, Size: size}, content.Close()
}

// Blobs is unsupported, since a handler can't list its blobs.
func (s *store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[berth.Info, error] {
	return berth.UnimplementedStore{}.Blobs(ctx, repo, after)
}

// MountBlob succeeds if the blob can be read through repo already, as with a
// handler that does not distinguish repositories.
func (s *store) MountBlob(ctx context.Context, repo, _ string, d digest.Digest) error {
	if s.handler.put == nil {
		return errUnsupported
	}
	content, _, err := s.open(ctx, repo, d, true)
	if err != nil {
		return berth.ErrBlobUnknown // the client falls back to an upload, which reports failures
	}
	return content.Close()
}

// FindBlob yields nothing, since a handler has no such index.
func (s *store) FindBlob(context.Context, digest.Digest) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

// DeleteBlob deletes a blob from all repositories.
func (s *store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	if s.handler.delete == nil {
		return errUnsupported
	}
	return fail(ctx, s.handler.delete(ctx, repo, hashOf(d)))
}
