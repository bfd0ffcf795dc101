// SPDX-License-Identifier: Apache-2.0

// Referrers: section "Listing Referrers".

package registry

import (
	"net/http"
	"slices"

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
	doc := append(make([]byte, 0, listBuffer), `{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":[`...)
	const end = "]}"
	held := hold{budget: h.budget}
	defer held.release()
	count := 0
	for referrer, err := range h.store.Referrers(r.Context(), req.Repo, req.Digest, digest.Digest(req.Last)) {
		if err != nil {
			return err
		}
		if req.ArtifactTypes != nil && !slices.Contains(req.ArtifactTypes, referrer.ArtifactType) {
			continue
		}
		entry := referrer.Descriptor
		full := count > 0 && len(doc)+len(",")+len(entry)+len(end) > h.maxBytes
		if full || count == req.N {
			if req.N != 0 {
				linkNext(w, req)
			}
			break
		}
		if err := held.grow(2 * int64(len(doc)+len(entry))); err != nil {
			return err
		}
		if count > 0 {
			doc = append(doc, ',')
		}
		doc = append(doc, entry...)
		count++
		req.Last = string(referrer.Digest)
	}
	if req.ArtifactTypes != nil {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	writeJSON(w, append(doc, end...))
	return nil
}
