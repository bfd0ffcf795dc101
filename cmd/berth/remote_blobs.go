// SPDX-License-Identifier: Apache-2.0

// The blobs of a running registry.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

func (s *remote) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	return s.stat(ctx, repo, "blobs/", d, *registry.ErrBlobUnknown)
}

func (s *remote) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	s.forget(repo, d)
	return s.drop(ctx, request{method: "DELETE", repo: repo, path: "blobs/" + d.String(), want: *registry.ErrBlobUnknown})
}

// FindBlob yields nothing: a registry does not tell which repositories have a blob.
func (s *remote) FindBlob(context.Context, digest.Digest) iter.Seq2[string, error] {
	return func(func(string, error) bool) {}
}

func (s *remote) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	resp, err := s.do(ctx, request{method: "POST", repo: repo, path: "blobs/uploads/", also: from,
		query: url.Values{"mount": {d.String()}, "from": {s.prefix + from}}, want: *registry.ErrNameUnknown})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		size := int64(-1)
		if info, ok := s.recall(from, d); ok {
			size = info.Size
		}
		s.remember(repo, registry.Info{Digest: d, Size: size})
		return nil
	}
	// The registry has opened an upload instead.
	if location, err := resp.Location(); err == nil {
		s.drop(ctx, request{method: "DELETE", repo: repo, url: location})
	}
	return registry.ErrBlobUnknown
}

func (s *remote) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	b := &remoteBlob{ctx: ctx, s: s, repo: repo, digest: d, size: -1}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// remoteBlob reads a blob of a registry, and continues after broken connections.
type remoteBlob struct {
	ctx    context.Context
	s      *remote
	repo   string
	digest digest.Digest
	offset int64         // of the next byte
	size   int64         // -1 if it is unknown
	body   io.ReadCloser // at offset, or nil
}

// open sends a request for the bytes from offset on.
func (b *remoteBlob) open() error {
	r := request{method: "GET", repo: b.repo, path: "blobs/" + b.digest.String(), want: *registry.ErrBlobUnknown}
	if b.offset > 0 {
		r.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", b.offset)}}
	}
	resp, err := b.s.do(b.ctx, r)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		b.size = resp.ContentLength
		if _, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
			resp.Body.Close()
			return err
		}
	}
	b.body = resp.Body
	return nil
}

// maxReopen is how often a download is continued without progress.
const maxReopen = 5

func (b *remoteBlob) Read(p []byte) (int, error) {
	if b.size >= 0 && b.offset >= b.size {
		return 0, io.EOF
	}
	for attempt := 0; ; attempt++ {
		n, err := 0, error(nil)
		if b.body == nil {
			err = b.open()
		}
		if err == nil {
			n, err = b.body.Read(p)
		}
		b.offset += int64(n)
		if err == nil || err == io.EOF {
			return n, err
		}
		b.Close()
		if n > 0 {
			return n, nil
		}
		var fromServer *registry.Error
		if b.ctx.Err() != nil || attempt == maxReopen || errors.As(err, &fromServer) {
			return 0, requestError(b.ctx, unreachable{err})
		}
		if err := pause(b.ctx, attempt); err != nil {
			return 0, err
		}
	}
}

// pause waits before another attempt.
func pause(ctx context.Context, attempt int) error {
	timer := time.NewTimer(100 * time.Millisecond << attempt)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *remoteBlob) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.offset
	case io.SeekEnd:
		if b.size < 0 {
			return 0, errors.New("the size of the blob is unknown")
		}
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("negative offset")
	}
	if offset != b.offset {
		b.Close()
	}
	b.offset = offset
	return offset, nil
}

func (b *remoteBlob) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}
