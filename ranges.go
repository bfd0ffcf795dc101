// SPDX-License-Identifier: Apache-2.0

// The header Range: RFC 9110 section 14.

package registry

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// byteRange is a part of some content.
type byteRange struct{ start, length int64 }

// contentRange returns the value of the header Content-Range for a part of size bytes.
func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.start, b.start+b.length-1, size)
}

// maxRanges is the maximum number of ranges in a request. RFC 9110 section 14.2
// allows a server to ignore "many small ranges".
const maxRanges = 100

// parseRanges returns the ranges that r requests of size bytes. It returns none
// if the header must be ignored: unless the method is GET, the unit is bytes (in
// any case of letters), and If-Range, if any, is the current entity tag (RFC 9110
// sections 13.1.5, 14.1 and 14.2). Empty content has no ranges, and ranges that
// overlap so much that they are longer than the content are ignored: section 17.15.
//
// Errors: errBlobRange if a range is invalid, or none can be satisfied.
func parseRanges(r *http.Request, etag string, size int64) ([]byteRange, error) {
	unit, set, _ := strings.Cut(r.Header.Get("Range"), "=")
	if r.Method != http.MethodGet || !strings.EqualFold(unit, "bytes") || size == 0 {
		return nil, nil
	}
	if condition := r.Header.Values("If-Range"); condition != nil && (len(condition) > 1 || condition[0] != etag) {
		return nil, nil
	}
	var ranges []byteRange
	n, total, valid := 0, int64(0), true
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue // a list may have empty elements: section 5.6.1.2
		}
		if n++; n > maxRanges {
			return nil, nil
		}
		part, ok := parseRange(spec, size)
		valid = valid && ok
		if part.length > 0 {
			ranges = append(ranges, part)
			total += part.length
		}
	}
	switch {
	case n == 0 || valid && total > size:
		return nil, nil
	case !valid || len(ranges) == 0:
		return nil, errBlobRange
	}
	return ranges, nil
}

// parseRange returns the part of size bytes that a range selects, which is empty if
// the range can't be satisfied. ok reports whether the range is valid: section 14.1.1.
func parseRange(spec string, size int64) (part byteRange, ok bool) {
	first, last, ok := strings.Cut(spec, "-")
	start, okFirst := parsePosition(first, 0)
	end, okLast := parsePosition(last, math.MaxInt64)
	switch {
	case !ok || !okFirst || !okLast || start > end || first == "" && last == "":
		return byteRange{}, false
	case first == "": // a suffix, of end bytes
		length := min(end, size)
		return byteRange{size - length, length}, true
	}
	return byteRange{start, max(min(end, size-1)-start+1, 0)}, true
}

// parsePosition returns a position, at most the largest int64, or one for the empty
// string.
func parsePosition(s string, empty int64) (int64, bool) {
	if s == "" {
		return empty, true
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil || errors.Is(err, strconv.ErrRange)
}
