// SPDX-License-Identifier: Apache-2.0

// Blobs: section "Pulling blobs" and "Deleting Blobs".

package registry

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

type blobHandlers struct {
	store BlobStore
}

// get answers GET and HEAD /v2/<name>/blobs/<digest>: end-2.
func (h blobHandlers) get(w http.ResponseWriter, r *http.Request, req Request) error {
	content, err := h.store.OpenBlob(r.Context(), req.Repo, req.Digest)
	if err != nil {
		return err
	}
	defer content.Close()
	return serveContent(w, r, "application/octet-stream", req.Digest, content)
}

// delete answers DELETE /v2/<name>/blobs/<digest>: end-10.
func (h blobHandlers) delete(w http.ResponseWriter, r *http.Request, req Request) error {
	if err := h.store.DeleteBlob(r.Context(), req.Repo, req.Digest); err != nil {
		return err
	}
	w.Header().Set("Docker-Content-Digest", string(req.Digest))
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// serveContent answers a GET or HEAD for content that is known by its digest:
// whole, in ranges or not at all, as RFC 9110 sections 13 and 14 have it.
func serveContent(w http.ResponseWriter, r *http.Request, mediaType string, d digest.Digest, content io.ReadSeeker) error {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("X-Content-Type-Options", "nosniff") // what a browser makes of a blob is not for its bytes to say
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	if r.Header.Get("Range") == "" && r.Header.Get("If-Match") == "" {
		http.ServeContent(w, r, "", time.Time{}, content)
		return nil
	}
	watch := &refusalWriter{ResponseWriter: w}
	http.ServeContent(watch, knownRange(r), "", time.Time{}, content)
	switch watch.refused {
	case 0:
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		size, err := content.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return errBlobRange
	default:
		return errPrecondition
	}
}

// knownRange returns r without its Range where that is to be ignored: unless
// the method is GET and the unit is bytes, in letters of any case (RFC 9110
// sections 14.1 and 14.2).
func knownRange(r *http.Request) *http.Request {
	unit, ranges, _ := strings.Cut(r.Header.Get("Range"), "=")
	known := *r
	known.Header = r.Header.Clone()
	known.Header.Del("Range")
	if r.Method == http.MethodGet && strings.EqualFold(unit, "bytes") {
		known.Header.Set("Range", "bytes="+ranges)
	}
	return &known
}

// refusalWriter holds back what ServeContent refuses, since it does so in plain
// text.
type refusalWriter struct {
	http.ResponseWriter
	refused int // the status
}

func (w *refusalWriter) WriteHeader(status int) {
	if status >= 400 {
		w.refused = status
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *refusalWriter) Write(p []byte) (int, error) {
	if w.refused != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps the connection's own way to send content.
func (w *refusalWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}
