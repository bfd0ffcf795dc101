// SPDX-License-Identifier: Apache-2.0

// Headers and bodies that the handlers' responses share.

package registry

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// Values of headers that are always the same, shared by all responses.
var (
	apiVersion  = []string{"registry/2.0"}
	acceptBytes = []string{"bytes"}
)

// setHeaders sets headers given as pairs of a canonical name and a value, at
// the cost of one allocation.
func setHeaders(w http.ResponseWriter, pairs ...string) {
	h := w.Header()
	for i := 0; i+1 < len(pairs); i += 2 {
		h[pairs[i]] = pairs[i+1 : i+2 : i+2]
	}
}

// writeCreated sends a 201 for content that is now at location.
func writeCreated(w http.ResponseWriter, location string, d digest.Digest) {
	setHeaders(w, "Location", location, "Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// writeJSON sends a JSON document with the status 200.
func writeJSON(w http.ResponseWriter, doc []byte) {
	setJSONHeaders(w)
	w.Header().Set("Content-Length", strconv.Itoa(len(doc)))
	w.Write(doc)
}

// setJSONHeaders sets the headers of a JSON document, and its type unless it is
// set.
func setJSONHeaders(w http.ResponseWriter) {
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = typeJSON
	}
	h["X-Content-Type-Options"] = noSniff
}

// linkNext links to the next page of a list, which next requests below the path
// prefix (RFC 8288).
func linkNext(w http.ResponseWriter, prefix string, next Request) {
	w.Header().Set("Link", "<"+prefix+next.RequestURI()+`>; rel="next"`)
}

// warning is a Warning header (section "Warnings").
type warning struct {
	probability float64
	value       string
}

// maxWarnings is the spec's limit of all Warning headers of a response, in
// bytes. A longer warning is truncated; one that exceeds the rest is omitted.
const maxWarnings = 4096

func newWarning(probability float64, msg string) warning {
	// A quoted-string (RFC 9110 section 5.6.4) has no control characters.
	msg = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, msg)
	const frame = len(`299 - ""`)
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	for frame+len(escape.Replace(msg)) > maxWarnings {
		_, last := utf8.DecodeLastRuneInString(msg)
		msg = msg[:len(msg)-last]
	}
	return warning{probability, `299 - "` + escape.Replace(msg) + `"`}
}

// addWarnings adds each warning with its probability, if it fits.
func addWarnings(h http.Header, warnings []warning) {
	size := 0
	for _, warning := range warnings {
		if warning.probability > rand.Float64() && size+len(warning.value) <= maxWarnings {
			h.Add("Warning", warning.value)
			size += len(warning.value)
		}
	}
}
