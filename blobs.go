// SPDX-License-Identifier: Apache-2.0

// Blobs: section "Pulling blobs" and "Deleting Blobs".

package registry

import (
	"fmt"
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

// The values of fields that are always the same, shared by all answers.
var (
	noSniff     = []string{"nosniff"}
	acceptBytes = []string{"bytes"}
)

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
	etag := `"` + string(d) + `"`
	setFields(w, "Docker-Content-Digest", string(d), "Etag", etag)
	h["X-Content-Type-Options"] = noSniff // what a browser makes of a blob is not for its bytes to say
	if c != nil && !c.noneMatch(d) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Accept-Ranges"] = acceptBytes

	start, length, status := int64(0), size, http.StatusOK
	switch specs := rangeSpecs(r, etag, size); len(specs) {
	default:
		return serveRanges(w, r, specs, size, content)
	case 0: // all of it
	case 1:
		var ok bool
		if start, length, ok = span(specs[0], size); !ok {
			return unsatisfiable(w, size)
		}
		if _, err := content.Seek(start, io.SeekStart); err != nil {
			return err
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, size))
	}
	setFields(w, "Content-Type", mediaType, "Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	// A failure can't be told any more: the length that was announced has
	// net/http break the connection off.
	if length == size {
		io.Copy(w, content)
	} else {
		copyPart(w, content, length)
	}
	return nil
}

// copyPart copies length bytes, in pieces that it asks content for.
func copyPart(w io.Writer, content io.Reader, length int64) {
	if m, ok := content.(*memReader); ok {
		m.writeTo(w, m.offset+length) // without a buffer between
		return
	}
	io.CopyN(w, content, length)
}

func unsatisfiable(w http.ResponseWriter, size int64) error {
	w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
	return errBlobRange
}

// serveRanges answers a GET for several ranges of content.
func serveRanges(w http.ResponseWriter, r *http.Request, specs []string, size int64, content io.ReadSeeker) error {
	ranged := *r
	ranged.Header = http.Header{"Range": {"bytes=" + strings.Join(specs, ",")}}
	watch := &refusalWriter{ResponseWriter: w}
	http.ServeContent(watch, &ranged, "", time.Time{}, content)
	switch watch.refused {
	case 0:
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		return unsatisfiable(w, size)
	}
	return errInternal
}

// maxRanges is the most ranges in a request that are served as such: RFC 9110
// section 14.2 lets "a set of many small ranges" be ignored.
const maxRanges = 100

// rangeSpecs returns the ranges that r asks for of size bytes, none where they
// are to be ignored: unless the method is GET, the unit is bytes, in letters of
// any case, and If-Range, if any, is the present entity tag (RFC 9110 sections
// 13.1.5, 14.1 and 14.2). Of nothing there is no range.
func rangeSpecs(r *http.Request, etag string, size int64) []string {
	field := r.Header.Get("Range")
	unit, set, _ := strings.Cut(field, "=")
	if r.Method != http.MethodGet || !strings.EqualFold(unit, "bytes") || size == 0 {
		return nil
	}
	if condition := r.Header.Values("If-Range"); condition != nil && (len(condition) > 1 || condition[0] != etag) {
		return nil
	}
	var specs []string
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue // a list may have such elements: section 5.6.1.2
		}
		if len(specs) == maxRanges {
			return nil
		}
		first, last, ok := strings.Cut(spec, "-")
		first, last = position(first), position(last)
		switch {
		case !ok || first == "x" || last == "x":
			first, last = "x", "" // which is no range
		case first == "" && last == "0":
			first, last = strconv.FormatInt(size, 10), "" // the last 0 bytes: past the end
		}
		specs = append(specs, first+"-"+last)
	}
	return specs
}

// position returns a position in digits without leading zeros, at most the
// largest of 18 digits. What is no position becomes "x".
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

// span returns what of size bytes one of rangeSpecs asks for.
func span(spec string, size int64) (start, length int64, ok bool) {
	first, last, _ := strings.Cut(spec, "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if first == "" { // the last so many
		length = min(end, size)
		return size - length, length, err == nil
	}
	if last == "" || end >= size {
		end, err = size-1, nil
	}
	start, err2 := strconv.ParseInt(first, 10, 64)
	return start, end - start + 1, err == nil && err2 == nil && start <= end
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
