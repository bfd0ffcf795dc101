// SPDX-License-Identifier: Apache-2.0

// GET and HEAD of content known by its digest: conditions and ranges (RFC 9110
// sections 13 and 14).

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

	start, length, status := int64(0), c.size, http.StatusOK
	switch specs := rangeSpecs(r, etag, c.size); len(specs) {
	default:
		setHeaders(w, "Content-Type", c.mediaType) // of the parts; without it, ServeContent guesses
		return c.serveRanges(w, r, specs)
	case 0: // all of it
	case 1:
		var ok bool
		if start, length, ok = resolveRange(specs[0], c.size); !ok {
			return unsatisfiable(w, c.size)
		}
		if _, err := c.body.Seek(start, io.SeekStart); err != nil {
			return err
		}
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, c.size))
	}
	if err := c.prepare(w, r); err != nil {
		return err
	}
	setHeaders(w, "Content-Type", c.mediaType, "Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	// The status has been sent: if the copy fails, net/http breaks the
	// connection, since the announced length was not reached.
	if length == c.size {
		io.Copy(w, c.body)
	} else {
		copyN(w, c.body, length)
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
		for _, name := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges", "Content-Range", "Content-Type"} {
			delete(w.Header(), name)
		}
	}
	return err
}

// copyN copies length bytes, without a buffer if the content can write itself.
func copyN(w io.Writer, body io.Reader, length int64) {
	if direct, ok := body.(interface {
		WriteToN(w io.Writer, n int64) (int64, error)
	}); ok {
		direct.WriteToN(w, length)
		return
	}
	io.CopyN(w, body, length)
}

func unsatisfiable(w http.ResponseWriter, size int64) error {
	w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(size, 10))
	return errBlobRange
}

// serveRanges responds to a GET for several ranges.
func (c content) serveRanges(w http.ResponseWriter, r *http.Request, specs []string) error {
	for _, spec := range specs {
		start, _, ok := resolveRange(spec, c.size)
		if !ok {
			continue
		}
		if _, err := c.body.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if err := c.prepare(w, r); err != nil {
			return err
		}
		break
	}
	ranged := *r
	ranged.Header = http.Header{"Range": {"bytes=" + strings.Join(specs, ",")}}
	interceptor := &errorInterceptor{ResponseWriter: w}
	http.ServeContent(interceptor, &ranged, "", time.Time{}, c.body)
	switch interceptor.status {
	case 0:
		return nil
	case http.StatusRequestedRangeNotSatisfiable:
		return unsatisfiable(w, c.size)
	}
	return errInternal
}

// maxRanges is the maximum number of ranges in a request. RFC 9110 section 14.2
// allows a server to ignore "many small ranges".
const maxRanges = 100

// rangeSpecs returns the ranges that r requests of size bytes. It returns none
// if the header must be ignored: unless the method is GET, the unit is bytes (in
// any case of letters), and If-Range, if any, is the current entity tag (RFC 9110
// sections 13.1.5, 14.1 and 14.2). Empty content has no ranges.
func rangeSpecs(r *http.Request, etag string, size int64) []string {
	header := r.Header.Get("Range")
	unit, set, _ := strings.Cut(header, "=")
	if r.Method != http.MethodGet || !strings.EqualFold(unit, "bytes") || size == 0 {
		return nil
	}
	if condition := r.Header.Values("If-Range"); condition != nil && (len(condition) > 1 || condition[0] != etag) {
		return nil
	}
	var specs []string
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue // a list may have empty elements: section 5.6.1.2
		}
		if len(specs) == maxRanges {
			return nil
		}
		first, last, ok := strings.Cut(spec, "-")
		first, last = parsePosition(first), parsePosition(last)
		switch {
		case !ok || first == "x" || last == "x":
			first, last = "x", "" // resolves to no range
		case first == "" && last == "0":
			first, last = strconv.FormatInt(size, 10), "" // the last 0 bytes: past the end
		}
		specs = append(specs, first+"-"+last)
	}
	return specs
}

// parsePosition returns a position in decimal without leading zeros, at most the
// largest number of 18 digits; "x" if s is not a position.
func parsePosition(s string) string {
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

// resolveRange returns the part of size bytes that a range of rangeSpecs
// selects.
func resolveRange(spec string, size int64) (start, length int64, ok bool) {
	first, last, _ := strings.Cut(spec, "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if first == "" { // a suffix
		length = min(end, size)
		return size - length, length, err == nil
	}
	if last == "" || end >= size {
		end, err = size-1, nil
	}
	start, err2 := strconv.ParseInt(first, 10, 64)
	return start, end - start + 1, err == nil && err2 == nil && start <= end
}

// errorInterceptor holds back the errors of http.ServeContent, which are plain
// text.
type errorInterceptor struct {
	http.ResponseWriter
	status int // of the error
}

func (w *errorInterceptor) WriteHeader(status int) {
	if status >= 400 {
		w.status = status
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *errorInterceptor) Write(p []byte) (int, error) {
	if w.status != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom preserves optimizations of the connection, such as sendfile.
func (w *errorInterceptor) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}
