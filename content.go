// SPDX-License-Identifier: Apache-2.0

// GET and HEAD of content known by its digest, and parts of it: RFC 9110 sections 13
// and 14.

package registry

import (
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// content is a body to serve, known by its digest.
type content struct {
	mediaType string
	digest    digest.Digest
	size      int64
	body      io.ReadSeeker // may be nil for HEAD
}

// serve responds to a GET or HEAD with all of the content, with ranges of it, or
// with a status alone.
func (c content) serve(w http.ResponseWriter, r *http.Request) error {
	cond, err := parseConditions(r)
	if err != nil {
		return err
	}
	if cond != nil && !cond.matches(c.digest) {
		return errPrecondition
	}
	h := w.Header()
	etag := `"` + string(c.digest) + `"`
	setHeaders(w, "Docker-Content-Digest", string(c.digest), "Etag", etag)
	h["X-Content-Type-Options"] = noSniff // a blob's bytes must not decide what a browser does with it
	if cond != nil && !cond.noneMatch(c.digest) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Accept-Ranges"] = acceptBytes

	ranges, err := parseRanges(r, etag, c.size)
	if err != nil {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(c.size, 10))
		return err
	}
	part, status := byteRange{0, c.size}, http.StatusOK
	if len(ranges) > 0 {
		part, status = ranges[0], http.StatusPartialContent
		if _, err := c.body.Seek(part.start, io.SeekStart); err != nil {
			return err
		}
	}
	if err := c.prepare(w, r); err != nil {
		return err
	}
	switch len(ranges) {
	case 0:
	case 1:
		h.Set("Content-Range", part.contentRange(c.size))
	default:
		c.serveRanges(w, ranges)
		return nil
	}
	setHeaders(w, "Content-Type", c.mediaType, "Content-Length", strconv.FormatInt(part.length, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	// The status has been sent: if the copy fails, net/http breaks the
	// connection, since the announced length was not reached.
	if part.length == c.size {
		io.Copy(w, c.body)
	} else {
		copyN(w, c.body, part.length)
	}
	return nil
}

// prepare makes sure, before the status is sent, that the content can be read from
// where it is, if its reader can tell.
func (c content) prepare(w http.ResponseWriter, r *http.Request) error {
	reader, ok := c.body.(interface{ Prepare() error })
	if !ok || r.Method == http.MethodHead {
		return nil
	}
	err := reader.Prepare()
	if err != nil { // the response is not about the content anymore
		for _, name := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges"} {
			delete(w.Header(), name)
		}
	}
	return err
}

// copyN copies length bytes, without a buffer if the content can write itself.
func copyN(w io.Writer, body io.Reader, length int64) error {
	if direct, ok := body.(interface {
		WriteToN(w io.Writer, n int64) (int64, error)
	}); ok {
		_, err := direct.WriteToN(w, length)
		return err
	}
	_, err := io.CopyN(w, body, length)
	return err
}

// serveRanges responds to a GET for several ranges: RFC 9110 section 14.6. Unlike
// http.ServeContent, it reads the content in the goroutine of the handler, since the
// content is closed when the handler returns, and its reader may use the response.
func (c content) serveRanges(w http.ResponseWriter, ranges []byteRange) {
	parts := multipart.NewWriter(w)
	var length counter
	measured := multipart.NewWriter(&length)
	measured.SetBoundary(parts.Boundary())
	c.writeParts(measured, ranges, func(part byteRange) error {
		length += counter(part.length)
		return nil
	})
	setHeaders(w, "Content-Type", "multipart/byteranges; boundary="+parts.Boundary(), "Content-Length", strconv.FormatInt(int64(length), 10))
	w.WriteHeader(http.StatusPartialContent)
	c.writeParts(parts, ranges, func(part byteRange) error {
		if _, err := c.body.Seek(part.start, io.SeekStart); err != nil {
			return err
		}
		return copyN(w, c.body, part.length)
	})
}

// writeParts writes a part for each of the ranges, whose bytes write writes.
func (c content) writeParts(w *multipart.Writer, ranges []byteRange, write func(byteRange) error) {
	for _, part := range ranges {
		header := textproto.MIMEHeader{"Content-Range": {part.contentRange(c.size)}, "Content-Type": {c.mediaType}}
		if _, err := w.CreatePart(header); err != nil {
			return
		}
		if err := write(part); err != nil {
			return
		}
	}
	w.Close()
}

// counter counts the bytes that are written to it.
type counter int64

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}
