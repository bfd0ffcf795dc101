// SPDX-License-Identifier: Apache-2.0

// Reading a blob while it is fetched.

package mirror

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// far is the number of bytes that a reader waits for. For bytes that are farther away it
// sends a request of its own.
const far = 1 << 20

// reader reads a blob that is being fetched.
type reader struct {
	ctx    context.Context
	mirror *Mirror
	target target
	fetch  *fetch
	size   int64
	offset int64

	flushed bool          // the header of the response has been sent
	ready   bool          // Prepare has looked where the bytes at offset come from
	body    io.ReadCloser // of a request of its own; nil without one
	closed  bool
}

// open returns a reader of the blob, whose Close ends the caller's use of the fetch. The
// size must be known.
func (f *fetch) open(ctx context.Context, m *Mirror, t target) io.ReadSeekCloser {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &reader{ctx: ctx, mirror: m, target: t, fetch: f, size: f.size}
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("mirror: seek to a negative position")
	}
	if offset != r.offset {
		r.closeBody()
		r.ready = false
	}
	r.offset = offset
	return offset, nil
}

// Prepare sends a request for bytes that are far from those that have come.
func (r *reader) Prepare() error {
	if r.ready {
		return nil
	}
	r.ready = true
	r.fetch.mu.Lock()
	distance := r.offset - r.fetch.readable
	r.fetch.mu.Unlock()
	if distance < far || r.offset >= r.size {
		return nil
	}
	ctx, progress, cancel := r.mirror.withStallTimeout(r.ctx)
	resp, err := r.target.up.do(ctx, call{method: http.MethodGet, name: r.target.name, kind: "blobs", ref: string(r.fetch.digest), from: r.offset})
	if err != nil {
		cancel()
		return nil // the bytes will come by the fetch, or it fails too
	}
	r.body = farBody{resp.Body, progress, cancel}
	if checkRange(resp, r.offset) != nil {
		r.closeBody()
	}
	return nil
}

// Read implements io.Reader. It waits for bytes that have not come.
func (r *reader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	r.Prepare()
	if r.body != nil {
		n, err := r.body.Read(p)
		r.offset += int64(n)
		r.target.up.bytes.Add(uint64(n))
		if n > 0 || err == nil {
			return n, nil
		}
		r.closeBody() // the fetch will bring the rest
	}
	for {
		r.fetch.mu.Lock()
		readable, err, changed := r.fetch.readable, r.fetch.err, r.fetch.changed
		r.fetch.mu.Unlock()
		switch {
		case r.offset < readable:
			n, err := r.fetch.file.ReadAt(p[:min(int64(len(p)), readable-r.offset)], r.offset)
			r.offset += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		case err != nil:
			return 0, err
		}
		if !r.flushed { // the header need not wait
			r.flushed = true
			if request := requestOf(r.ctx); request != nil {
				http.NewResponseController(request.w).Flush()
			}
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// Close implements io.Closer.
func (r *reader) Close() error {
	r.closeBody()
	if !r.closed {
		r.closed = true
		r.fetch.release()
	}
	return nil
}

func (r *reader) closeBody() {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}

// farBody is the body of a request of a reader's own.
type farBody struct {
	io.ReadCloser
	progress, cancel func()
}

func (b farBody) Read(p []byte) (int, error) {
	b.progress()
	return b.ReadCloser.Read(p)
}

func (b farBody) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
