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
	budget  *budget
	prefix  string // of URLs
	maxPage int    // names; 0: unlimited
}

// list handles GET /v2/<name>/tags/list: end-8a and end-8b.
func (h tagHandlers) list(w http.ResponseWriter, r *http.Request, req Request) error {
	// Neither repository names nor tags contain anything that JSON escapes.
	doc := fmt.Appendf(make([]byte, 0, listBuffer), `{"name":"%s","tags":[`, req.Repo)
	return h.page(w, req, doc, h.store.Tags(r.Context(), req.Repo, req.Last))
}

// catalog handles GET /v2/_catalog.
func (h tagHandlers) catalog(w http.ResponseWriter, r *http.Request, req Request) error {
	return h.page(w, req, append(make([]byte, 0, listBuffer), `{"repositories":[`...), h.store.Repositories(r.Context(), req.Last))
}

// A page is kept in memory until it is known whether another follows. A list of
// all names is sent in pieces instead. All are in bytes.
const (
	maxPage    = 4 << 20
	listPiece  = 8 << 10
	listBuffer = 2 << 10 // initially
)

// page completes doc with the requested names, and links to the next page if
// there are more.
func (h tagHandlers) page(w http.ResponseWriter, req Request, doc []byte, names iter.Seq2[string, error]) error {
	used := reservation{budget: h.budget}
	defer used.release()
	left := req.N
	if left < 0 {
		left = math.MaxInt
	}
	if h.maxPage > 0 {
		left = min(left, h.maxPage)
	}
	all := left == math.MaxInt
	sent, first := false, true
	for name, err := range names {
		switch {
		case err != nil && sent:
			panic(http.ErrAbortHandler) // the status has been sent; abort the connection
		case err != nil:
			return err
		case all && len(doc) > listPiece:
			if !sent {
				setJSONHeaders(w)
			}
			if _, err := w.Write(doc); err != nil {
				return nil
			}
			doc, sent = doc[:0], true
		case !all:
			if err := used.grow(2 * int64(len(doc)+len(name))); err != nil {
				return err
			}
		}
		if left == 0 || !all && len(doc) > maxPage {
			if req.N != 0 { // "When n is zero [...] MUST NOT include a Link header"
				linkNext(w, h.prefix, req)
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
	doc = append(doc, "]}"...)
	if sent {
		w.Write(doc)
		return nil
	}
	writeJSON(w, doc)
	return nil
}
