// SPDX-License-Identifier: Apache-2.0

// Referrers: section "Listing Referrers".

package registry

import (
	"bufio"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type referrerHandlers struct {
	store    ManifestStore
	budget   *budget
	prefix   string // of URLs
	maxBytes int    // of a response
}

// list handles GET /v2/<name>/referrers/<digest>: end-12a and end-12b. It is
// never a 404: a subject without referrers has an empty list.
func (h referrerHandlers) list(w http.ResponseWriter, r *http.Request, req Request) error {
	const begin, end = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`, "]}"
	used := reservation{budget: h.budget}
	defer used.release()
	var entries []json.RawMessage // as the store keeps them
	size := len(begin) + len(end)
	for referrer, err := range h.store.Referrers(r.Context(), req.Repo, req.Digest, digest.Digest(req.Last)) {
		if err != nil {
			return err
		}
		if req.ArtifactTypes != nil && !slices.Contains(req.ArtifactTypes, referrer.ArtifactType) {
			continue
		}
		entry := referrer.Descriptor
		full := len(entries) > 0 && size+len(",")+len(entry) > h.maxBytes
		if full || len(entries) == req.N {
			if req.N != 0 {
				linkNext(w, h.prefix, req)
			}
			break
		}
		if size += len(entry); len(entries) > 0 {
			size += len(",")
		}
		if err := used.grow(int64(size)); err != nil { // a store outside memory allocates them for this request
			return err
		}
		entries = append(entries, entry)
		req.Last = string(referrer.Digest)
	}
	if req.ArtifactTypes != nil {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	setHeaders(w, "Content-Type", ocispec.MediaTypeImageIndex, "Content-Length", strconv.Itoa(size))
	setJSONHeaders(w)
	if r.Method == http.MethodHead {
		return nil
	}
	out := listWriters.Get().(*bufio.Writer)
	out.Reset(w)
	defer func() {
		out.Reset(nil) // the pool keeps the buffer alone
		listWriters.Put(out)
	}()
	out.WriteString(begin)
	for i, entry := range entries {
		if i > 0 {
			out.WriteByte(',')
		}
		out.Write(entry)
	}
	out.WriteString(end)
	out.Flush() // the status has been sent: an error can't be reported
	return nil
}

// listWriters buffer the parts of lists that are written together.
var listWriters = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}
