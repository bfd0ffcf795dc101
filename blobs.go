// SPDX-License-Identifier: Apache-2.0

// Blobs: sections "Pulling blobs" and "Deleting Blobs".

package registry

import (
	"io"
	"net/http"
)

type blobHandlers struct {
	store BlobStore
}

// get handles GET and HEAD /v2/<name>/blobs/<digest>: end-2.
func (h blobHandlers) get(w http.ResponseWriter, r *http.Request, req Request) error {
	c := content{mediaType: "application/octet-stream", digest: req.Digest}
	if r.Method == http.MethodHead {
		var err error
		if c.size, err = statBlob(r.Context(), h.store, req.Repo, req.Digest); err != nil {
			return err
		}
		return c.serve(w, r)
	}
	body, err := h.store.OpenBlob(r.Context(), req.Repo, req.Digest)
	if err != nil {
		return err
	}
	defer body.Close()
	if c.size, err = body.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.body = body
	return c.serve(w, r)
}

// delete handles DELETE /v2/<name>/blobs/<digest>: end-10.
func (h blobHandlers) delete(w http.ResponseWriter, r *http.Request, req Request) error {
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if c != nil {
		if _, err := statBlob(r.Context(), h.store, req.Repo, req.Digest); err != nil {
			return err
		}
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
