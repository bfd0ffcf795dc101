// SPDX-License-Identifier: Apache-2.0

// Uploads to a running registry, in chunks that can be repeated.

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// chunkSize is the size of the chunks of an upload, unless the registry requires
// larger ones, up to maxChunk. A smaller blob is sent in one request.
const (
	chunkSize = 8 << 20
	maxChunk  = 128 << 20
)

// remoteUpload is an upload to a registry.
type remoteUpload struct {
	s         *remote
	ctx       context.Context
	repo, id  string
	location  *url.URL
	sent      int64        // bytes that the registry has
	buf       bytes.Buffer // bytes after them
	chunk     int
	published bool
}

func (s *remote) CreateUpload(ctx context.Context, repo string, _ registry.UploadOptions) (registry.Upload, error) {
	resp, err := s.do(ctx, request{method: "POST", repo: repo, path: "blobs/uploads/", want: *registry.ErrNameUnknown})
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	u := &remoteUpload{s: s, ctx: ctx, repo: repo, chunk: chunkSize}
	if u.location, err = resp.Location(); err != nil {
		return nil, fmt.Errorf("the registry has not said where to send the blob: %w", err)
	}
	if n, err := strconv.Atoi(resp.Header.Get("OCI-Chunk-Min-Length")); err == nil && n > u.chunk {
		if u.chunk = n; n > maxChunk {
			return nil, fmt.Errorf("the registry requires chunks of %d bytes, more than %d", n, maxChunk)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	u.id = strconv.Itoa(s.lastID)
	s.uploads[u.id] = u
	return u, nil
}

func (s *remote) CancelUpload(ctx context.Context, repo, id string) error {
	s.mu.Lock()
	u := s.uploads[id]
	delete(s.uploads, id)
	s.mu.Unlock()
	if u == nil {
		return registry.ErrBlobUploadUnknown
	}
	return s.drop(ctx, request{method: "DELETE", repo: repo, url: u.location, want: *registry.ErrBlobUploadUnknown})
}

func (u *remoteUpload) ID() string  { return u.id }
func (u *remoteUpload) Size() int64 { return u.sent + int64(u.buf.Len()) }

// Rollback does nothing: a copy cancels an upload that fails.
func (u *remoteUpload) Rollback() error { return nil }

func (u *remoteUpload) Close() error {
	if u.published {
		u.s.mu.Lock()
		defer u.s.mu.Unlock()
		delete(u.s.uploads, u.id)
	}
	return nil
}

func (u *remoteUpload) ReadFrom(r io.Reader) (n int64, err error) {
	for {
		part, err := io.CopyN(&u.buf, r, int64(u.chunk-u.buf.Len()))
		n += part
		if err == io.EOF {
			return n, nil
		}
		if err == nil {
			err = u.flush()
		}
		if err != nil {
			return n, err
		}
	}
}

// maxAttempts is how often a chunk is sent after failures, beside the attempts that
// oras makes if the registry is busy.
const maxAttempts = 4

// flush sends the bytes in the buffer as a chunk.
func (u *remoteUpload) flush() error {
	for attempt := 0; u.buf.Len() > 0; attempt++ {
		data := u.buf.Bytes()
		resp, err := u.s.do(u.ctx, request{method: "PATCH", repo: u.repo, url: u.location, body: bytes.NewReader(data), want: *registry.ErrBlobUploadUnknown,
			header: http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", u.sent, u.sent+int64(len(data))-1)}}})
		if err == nil {
			resp.Body.Close()
			u.moved(resp)
			u.sent += int64(len(data))
			u.buf = bytes.Buffer{} // a request that failed may still read the old one
			u.buf.Grow(u.chunk)
			return nil
		}
		if attempt == maxAttempts || !u.canResume(err) {
			return err
		}
		if err := pause(u.ctx, attempt); err != nil {
			return err
		}
		if progress := u.resume(); progress != nil {
			return errors.Join(err, progress)
		}
	}
	return nil
}

// canResume reports whether the registry may have received some of the bytes of a
// request that has failed, or may receive them if it is repeated.
func (u *remoteUpload) canResume(err error) bool {
	var e *registry.Error
	return errors.Is(err, registry.ErrUnavailable) || errors.As(err, &e) && (e.Status == http.StatusRequestedRangeNotSatisfiable || e.Status >= 500)
}

// resume asks how many bytes the registry has, and drops them from the buffer.
func (u *remoteUpload) resume() error {
	resp, err := u.s.do(u.ctx, request{method: "GET", repo: u.repo, url: u.location, want: *registry.ErrBlobUploadUnknown})
	if err != nil {
		return err
	}
	resp.Body.Close()
	size := int64(0)
	if _, last, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-"); ok {
		if size, err = strconv.ParseInt(last, 10, 64); err != nil {
			return fmt.Errorf("the progress of an upload: %w", err)
		}
		if size != 0 || u.sent > 0 { // "0-0" means no bytes
			size++
		}
	}
	got := size - u.sent
	if got < 0 || got > int64(u.buf.Len()) {
		return fmt.Errorf("%w: the registry has %d bytes, of %d that were sent", registry.ErrBlobUploadInvalid, size, u.Size())
	}
	u.moved(resp)
	u.sent = size
	u.buf.Next(int(got))
	return nil
}

// moved notes the new location of an upload.
func (u *remoteUpload) moved(resp *http.Response) {
	if location, err := resp.Location(); err == nil {
		u.location = location
	}
}

// Commit sends the last bytes, and publishes the blob.
func (u *remoteUpload) Commit(ctx context.Context, d digest.Digest) error {
	for attempt := 0; ; attempt++ {
		location := *u.location
		query := location.Query()
		query.Set("digest", d.String())
		location.RawQuery = query.Encode()
		data := u.buf.Bytes()
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		if len(data) > 0 && u.sent > 0 {
			header.Set("Content-Range", fmt.Sprintf("%d-%d", u.sent, u.sent+int64(len(data))-1))
		}
		err := u.s.drop(ctx, request{method: "PUT", repo: u.repo, url: &location, body: bytes.NewReader(data), header: header, want: *registry.ErrBlobUploadUnknown})
		if err == nil {
			break
		}
		if attempt == maxAttempts || !u.canResume(err) {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
		// The response may have been lost.
		if _, statErr := u.s.StatBlob(ctx, u.repo, d); statErr == nil {
			break
		}
		if progress := u.resume(); progress != nil {
			return errors.Join(err, progress)
		}
	}
	u.s.remember(u.repo, registry.Info{Digest: d, Size: u.Size()})
	u.published = true
	return nil
}
