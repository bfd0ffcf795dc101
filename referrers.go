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
	maxBytes int // of an answer
}

// list answers GET /v2/<name>/referrers/<digest>: end-12a and end-12b. It is
// never 404: what nobody refers to has an empty list.
func (h referrerHandlers) list(w http.ResponseWriter, r *http.Request, req Request) error {
	const begin, end = `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`, "]}"
	held := hold{budget: h.budget}
	defer held.release()
	var entries []json.RawMessage // as the store has them
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
				linkNext(w, req)
			}
			break
		}
		if size += len(entry); len(entries) > 0 {
			size += len(",")
		}
		if err := held.grow(int64(size)); err != nil { // a store that is no memory makes them for us
			return err
		}
		entries = append(entries, entry)
		req.Last = string(referrer.Digest)
	}
	if req.ArtifactTypes != nil {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	w.Header().Set("Content-Length", strconv.Itoa(size))
	jsonHeader(w)
	if r.Method == http.MethodHead {
		return nil
	}
	out := listWriters.Get().(*bufio.Writer)
	out.Reset(w)
	defer func() {
		out.Reset(nil) // what is kept is the buffer
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
	out.Flush() // what can't be written can't be told
	return nil
}

// listWriters have buffers for what of a list is written at once.
var listWriters = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 64<<10) }}
