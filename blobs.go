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
	if ranges := r.Header.Get("Range"); ranges != "" {
		// Range is for GET, and a unit that we do not know is to be ignored:
		// RFC 9110 section 14.2. ServeContent does neither.
		unit, rest, _ := strings.Cut(ranges, "=")
		copied := *r
		r = &copied
		r.Header = r.Header.Clone()
		if r.Method == http.MethodGet && strings.EqualFold(unit, "bytes") {
			r.Header.Set("Range", "bytes="+rest)
		} else {
			r.Header.Del("Range")
		}
		size, err := content.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		watch := &rangeWriter{ResponseWriter: w}
		http.ServeContent(watch, r, "", time.Time{}, content)
		if watch.refused {
			h.Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
			return errBlobRange
		}
		return nil
	}
	http.ServeContent(w, r, "", time.Time{}, content)
	return nil
}

// rangeWriter holds back the 416 of ServeContent, which is plain text.
type rangeWriter struct {
	http.ResponseWriter
	refused bool
}

func (w *rangeWriter) WriteHeader(status int) {
	if status == http.StatusRequestedRangeNotSatisfiable {
		w.refused = true
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *rangeWriter) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps the connection's own way to send content.
func (w *rangeWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}
