// SPDX-License-Identifier: Apache-2.0

// Request bodies of uploads, and their Content-Range.

package registry

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// requestBody reads a request's body and distinguishes the client's mistakes
// from broken connections.
type requestBody struct {
	r       io.Reader
	left    int64 // the number of bytes that may still come
	tooLong error // if there are more
	exact   bool  // there may not be fewer
	length  int64 // that the headers announce, 0 if they don't
	broken  bool  // it could not be read to its end
}

// newUploadBody returns the body of r, which continues an upload of size bytes.
// A blob may have maxBlob bytes; 0 means unlimited. The headers are checked
// before the body is read, so that a client that sent "Expect: 100-continue"
// need not send a body that is rejected.
func newUploadBody(r *http.Request, size, maxBlob int64) (*requestBody, error) {
	chunk, err := parseContentRange(r.Header.Values("Content-Range"))
	if err != nil {
		return nil, err
	}
	b := &requestBody{r: r.Body, left: math.MaxInt64}
	if b.r == nil {
		b.r = http.NoBody
	}
	length := r.ContentLength // -1: unknown
	if length == 0 && chunk != nil && *chunk == (contentRange{0, 1}) {
		chunk.length = 0 // "0-0" for an empty body: there is no end before 0
	}
	if chunk != nil {
		switch {
		case chunk.start != size:
			return nil, fmt.Errorf("%w: it starts at byte %d, but the upload has %d", errUploadRange, chunk.start, size)
		case length >= 0 && length != chunk.length:
			return nil, fmt.Errorf("%w: Content-Range has %d bytes, Content-Length %d", ErrSizeInvalid, chunk.length, length)
		}
		length = chunk.length
		b.left, b.tooLong = chunk.length, ErrSizeInvalid
		b.exact = true
	}
	b.length = max(length, 0)
	if maxBlob > 0 && maxBlob-size < b.left {
		b.left, b.tooLong = maxBlob-size, fmt.Errorf("%w: a blob may have at most %d bytes", ErrTooLarge, maxBlob)
		if length > b.left {
			return nil, b.tooLong
		}
	}
	return b, nil
}

// Len returns the number of bytes that the headers announce, 0 if they don't: a store
// that has no space for them can tell before they come.
func (b *requestBody) Len() int { return int(min(b.length, math.MaxInt)) }

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return 0, b.tooLong
	}
	b.left -= int64(n)
	if err == nil || err == io.EOF {
		return n, err
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return n, fmt.Errorf("%w: a body may have at most %d bytes", ErrTooLarge, tooLarge.Limit)
	}
	b.broken = true
	return n, errBodyBroken
}

// end returns an error if the body, which has been read to its end, was too
// short.
func (b *requestBody) end() error {
	if b.exact && b.left > 0 {
		return fmt.Errorf("%w: the body is %d bytes short of its Content-Range", ErrSizeInvalid, b.left)
	}
	return nil
}

// contentRange is the range of a chunk.
type contentRange struct {
	start, length int64
}

// parseContentRange parses a Content-Range in the spec's form,
// ^[0-9]+-[0-9]+$, which is not HTTP's. Without one it returns nil. The form
// can't express an empty range; some clients send an end before the start
// instead (cuelabs' ociregistry does so when it closes an upload).
func parseContentRange(values []string) (*contentRange, error) {
	if values == nil {
		return nil, nil
	}
	first, last, _ := strings.Cut(strings.Join(values, ","), "-")
	start, err1 := strconv.ParseUint(first, 10, 62)
	end, err2 := strconv.ParseUint(last, 10, 62)
	if err1 != nil || err2 != nil || end+1 < start {
		return nil, errContentRange
	}
	return &contentRange{int64(start), int64(end+1) - int64(start)}, nil
}
