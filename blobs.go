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
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if c != nil {
		content, err := h.store.OpenBlob(r.Context(), req.Repo, req.Digest)
		if err != nil {
			return err
		}
		content.Close()
		if err := c.check(req.Digest); err != nil {
			return err
		}
	}
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
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if c != nil && !c.matches(d) {
		return errPrecondition
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("X-Content-Type-Options", "nosniff") // what a browser makes of a blob is not for its bytes to say
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Etag", `"`+string(d)+`"`)
	if c != nil && !c.noneMatch(d) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if ranges := byteRanges(r, size); ranges != "" {
		return serveRanges(w, r, ranges, size, content)
	}
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		// A failure can't be told any more: the length that was announced has
		// net/http break the connection off.
		io.Copy(w, content)
	}
	return nil
}

// serveRanges answers a GET for ranges of content.
func serveRanges(w http.ResponseWriter, r *http.Request, ranges string, size int64, content io.ReadSeeker) error {
	ranged := *r
	ranged.Header = http.Header{"Range": {ranges}}
	if value := r.Header.Values("If-Range"); value != nil {
		ranged.Header["If-Range"] = value
	}
	watch := &refusalWriter{ResponseWriter: w}
	http.ServeContent(watch, &ranged, "", time.Time{}, content)
	switch watch.refused {
	case 0:
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
		return errBlobRange
	}
	return errInternal
}

// maxRanges is the most ranges in a request that are served as such: RFC 9110
// section 14.2 lets "a set of many small ranges" be ignored.
const maxRanges = 100

// byteRanges returns the Range of r in the form that http.ServeContent takes,
// empty where it is to be ignored: unless the method is GET and the unit is
// bytes, in letters of any case (RFC 9110 sections 14.1 and 14.2). It
// leaves out what no content can satisfy, and brings positions of any length
// into an int64.
func byteRanges(r *http.Request, size int64) string {
	unit, set, _ := strings.Cut(r.Header.Get("Range"), "=")
	if r.Method != http.MethodGet || !strings.EqualFold(unit, "bytes") || size == 0 {
		return "" // of nothing there is no range
	}
	specs := strings.Split(set, ",")
	if len(specs) > maxRanges {
		return ""
	}
	for i, spec := range specs {
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // a list may have such elements: section 5.6.1.2
		}
		first, last, _ := strings.Cut(spec, "-")
		first, last = position(first), position(last)
		if first == "" && last == "0" { // the last 0 bytes
			first, last = strconv.FormatInt(size, 10), ""
		}
		specs[i] = first + "-" + last
	}
	return "bytes=" + strings.Join(specs, ",")
}

// position returns a position in digits without leading zeros, at most the
// largest of 18 digits. What is no position becomes "x", which ServeContent
// refuses.
func position(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return "x"
		}
	}
	trimmed := strings.TrimLeft(s, "0")
	switch {
	case trimmed == "" && s != "":
		return "0"
	case len(trimmed) > 18:
		return strings.Repeat("9", 18)
	}
	return trimmed
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
