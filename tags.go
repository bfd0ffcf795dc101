// SPDX-License-Identifier: Apache-2.0

// Lists of names: section "Listing Tags", and the catalog of the Docker
// Registry API.

package registry

import (
	"fmt"
	"iter"
	"math"
	"net/http"
)

type tagHandlers struct {
	store   ManifestStore
	maxPage int // names; 0: no limit
}

// list answers GET /v2/<name>/tags/list: end-8a and end-8b.
func (h tagHandlers) list(w http.ResponseWriter, r *http.Request, req Request) error {
	// Neither a repository's name nor a tag has anything that JSON escapes.
	doc := fmt.Appendf(nil, `{"name":"%s","tags":[`, req.Repo)
	return h.page(w, req, doc, h.store.Tags(r.Context(), req.Repo, req.Last))
}

// catalog answers GET /v2/_catalog.
func (h tagHandlers) catalog(w http.ResponseWriter, r *http.Request, req Request) error {
	return h.page(w, req, []byte(`{"repositories":[`), h.store.Repositories(r.Context(), req.Last))
}

// page completes doc with the names that were asked for, and links to the next
// page where there are more.
func (h tagHandlers) page(w http.ResponseWriter, req Request, doc []byte, names iter.Seq2[string, error]) error {
	left := req.N
	if left < 0 {
		left = math.MaxInt
	}
	if h.maxPage > 0 {
		left = min(left, h.maxPage)
	}
	first := true
	for name, err := range names {
		if err != nil {
			return err
		}
		if left == 0 {
			if req.N != 0 { // "When n is zero [...] MUST NOT include a Link header"
				linkNext(w, req)
			}
			break
		}
		if !first {
			doc = append(doc, ',')
		}
		doc = append(append(append(doc, '"'), name...), '"')
		first = false
		left--
		req.Last = name
	}
	writeJSON(w, append(doc, "]}"...))
	return nil
}

// linkNext links to the page of a list that next asks for (RFC 8288).
func linkNext(w http.ResponseWriter, next Request) {
	w.Header().Set("Link", "<"+next.URL()+`>; rel="next"`)
}
