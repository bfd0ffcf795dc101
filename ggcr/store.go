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

// store has manifests and tags in the Store that it embeds.
type store struct {
	berth.Store
	handler handler

	// uploads has the sessions. It is the handler's own store if blobs are in
	// memory: what was received is the blob then, without a copy. Else a blob
	// is in it only until the handler has it.
	uploads *berth.MemStore

	mu     sync.Mutex
	staged map[stagedBlob]int // uploads that have the blob in uploads
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

// errUnsupported is returned for what the handler has no method for.
var errUnsupported = &berth.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "the blob handler does not support this operation"}

// fail returns the error that a store returns in place of a handler's, and
// takes note of a redirect, and of an error that is for the log alone.
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
		return shaped // without the text around it, which is not meant for clients
	default:
		e.internal = err
	}
	return err
}

// OpenBlob opens a blob through any repository.
func (s *store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	e := exchangeOf(ctx)
	content, size, err := s.open(ctx, repo, d, e.req.Op == berth.OpBlobHead)
	if err != nil {
		return nil, fail(ctx, err)
	}
	if e.rangeEnd >= size && size > 0 {
		content.Close()
		return nil, fmt.Errorf("%w: it ends at byte %d of %d", errRange, e.rangeEnd, size)
	}
	return content, nil
}

// open returns a blob and its size. If only the size is wanted, a handler that
// knows it is not asked for the content.
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

// StatBlob returns the size of a blob, through any repository.
func (s *store) StatBlob(ctx context.Context, repo string, d digest.Digest) (int64, error) {
	content, size, err := s.open(ctx, repo, d, true)
	if err != nil {
		return 0, fail(ctx, err)
	}
	return size, content.Close()
}

// MountBlob has nothing to do if the blob can be read through repo already, as
// it can with a handler that does not distinguish repositories.
func (s *store) MountBlob(ctx context.Context, repo, _ string, d digest.Digest) error {
	if s.handler.put == nil {
		return errUnsupported
	}
	content, _, err := s.open(ctx, repo, d, true)
	if err != nil {
		return berth.ErrBlobUnknown // an upload tells more
	}
	return content.Close()
}

// FindBlob yields nothing: a handler can't tell.
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
