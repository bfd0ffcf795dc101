// SPDX-License-Identifier: Apache-2.0

// Uploads: sections "Pushing blobs", "Cancel a blob upload" and "Mounting a
// blob from another repository".

package registry

import (
	"context"
	"errors"
	"net/http"
	"strconv"
)

type uploadHandlers struct {
	store     BlobStore
	prefix    string // of URLs
	maxBlob   int64  // bytes; 0: unlimited
	clientIDs bool
}

// push handles POST /v2/<name>/blobs/uploads/?digest=<digest>: end-4b, section
// "Single POST".
func (h uploadHandlers) push(w http.ResponseWriter, r *http.Request, req Request) error {
	body, err := newUploadBody(r, 0, h.maxBlob)
	if err != nil {
		return err
	}
	if err := pushBlob(r.Context(), h.store, req.Repo, req.Digest, body, body.end); err != nil {
		return err
	}
	writeCreated(w, h.prefix+blobURL(req.Repo, req.Digest), req.Digest)
	return nil
}

// mount handles POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<other_name>:
// end-11.
func (h uploadHandlers) mount(w http.ResponseWriter, r *http.Request, req Request) error {
	switch err := h.mountFrom(r.Context(), req); {
	case err == nil:
		writeCreated(w, h.prefix+blobURL(req.Repo, req.Digest), req.Digest)
		return nil
	case errors.Is(err, ErrBlobUnknown) || errors.Is(err, ErrNameUnknown) || errors.Is(err, ErrUnsupported):
		// A registry "unable to mount the requested blob [...] SHOULD return a
		// 202", with an upload session for the same blob.
		if req.Algorithm == "" {
			req.Algorithm = req.Digest.Algorithm()
		}
		return h.start(w, r, req)
	default:
		return err
	}
}

// mountFrom mounts a blob from the repository that the request names or, since
// "the registry MAY treat the from parameter as optional", from any that has
// it. It considers only repositories that the client may pull from.
func (h uploadHandlers) mountFrom(ctx context.Context, req Request) error {
	if req.From != "" {
		if !mayPull(ctx, req.From) {
			return ErrBlobUnknown
		}
		return h.store.MountBlob(ctx, req.Repo, req.From, req.Digest)
	}
	for from, err := range h.store.FindBlob(ctx, req.Digest) {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !mayPull(ctx, from) {
			continue
		}
		err := h.store.MountBlob(ctx, req.Repo, from, req.Digest)
		if errors.Is(err, ErrBlobUnknown) || errors.Is(err, ErrNameUnknown) {
			continue // deleted since
		}
		return err
	}
	return ErrBlobUnknown
}

// start handles POST /v2/<name>/blobs/uploads/: end-4a and end-4c.
func (h uploadHandlers) start(w http.ResponseWriter, r *http.Request, req Request) error {
	u, err := h.store.CreateUpload(r.Context(), req.Repo, UploadOptions{Algorithm: req.Algorithm})
	if err != nil {
		return err
	}
	if err := u.Close(); err != nil { // before the client can use the session
		return err
	}
	h.setProgress(w, req.Repo, u.ID(), 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// patch handles PATCH <blob-push-location>: end-5, section "Pushing a blob in
// chunks".
func (h uploadHandlers) patch(w http.ResponseWriter, r *http.Request, req Request) error {
	size, err := h.receive(r, req)
	if err != nil {
		return h.outOfOrder(w, r, req, err)
	}
	h.setProgress(w, req.Repo, req.UploadID, size)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// put handles PUT <blob-push-location>?digest=<digest>: end-6. It publishes the
// blob and ends the session, or changes nothing.
func (h uploadHandlers) put(w http.ResponseWriter, r *http.Request, req Request) error {
	size, err := h.receive(r, req)
	if errors.Is(err, ErrBlobUploadUnknown) {
		size, err = -1, h.checkRepeated(r.Context(), req, err)
	}
	if err != nil {
		return h.outOfOrder(w, r, req, err)
	}
	if report := reportOf(r.Context()); report != nil {
		report.size = size
	}
	writeCreated(w, h.prefix+blobURL(req.Repo, req.Digest), req.Digest)
	return nil
}

// checkRepeated returns nil if a request before has published the session of a PUT, as
// the same digest, and unknown if not.
func (h uploadHandlers) checkRepeated(ctx context.Context, req Request, unknown error) error {
	d, err := h.store.PublishedUpload(ctx, req.Repo, req.UploadID)
	switch {
	case err == nil && d == req.Digest:
		return nil
	case err == nil, errors.Is(err, ErrBlobUploadUnknown), errors.Is(err, ErrUnsupported):
		return unknown
	}
	return err
}

// status handles GET <blob-push-location>: end-13.
func (h uploadHandlers) status(w http.ResponseWriter, r *http.Request, req Request) error {
	size, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID)
	if err != nil {
		return err
	}
	h.setProgress(w, req.Repo, req.UploadID, size)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cancel handles DELETE <blob-push-location>: end-14.
func (h uploadHandlers) cancel(w http.ResponseWriter, r *http.Request, req Request) error {
	if _, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID); err != nil {
		return err
	}
	if err := checkSessionConditions(r); err != nil {
		return err
	}
	if err := h.store.CancelUpload(r.Context(), req.Repo, req.UploadID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// receive appends the body of a PATCH or PUT to its session, commits a PUT, and
// returns the session's size. The lease has ended when it returns, since a client
// that has the response may use the session at once.
func (h uploadHandlers) receive(r *http.Request, req Request) (size int64, err error) {
	u, opened, err := h.lease(r.Context(), req)
	if err != nil {
		return 0, err
	}
	defer u.Close() // if something panics
	err = checkSessionConditions(r)
	if err == nil && req.Op == OpUploadPut {
		err = checkDigest(req.Digest)
	}
	var body *requestBody
	if err == nil {
		body, err = newUploadBody(r, u.Size(), h.maxBlob)
	}
	if err == nil {
		_, err = u.ReadFrom(body)
	}
	if err == nil {
		err = body.end()
	}
	if err == nil && req.Op == OpUploadPut {
		err = u.Commit(r.Context(), req.Digest)
	}
	// A rejected request changes nothing. But if the connection of a PATCH
	// breaks, the session keeps the received bytes, and the client can resume.
	if err != nil && !(body != nil && body.broken && req.Op == OpUploadPatch) {
		err = errors.Join(err, u.Rollback())
	}
	if size = u.Size(); err != nil && opened && size == 0 {
		// The client may have disconnected.
		err = errors.Join(err, h.store.CancelUpload(context.WithoutCancel(r.Context()), req.Repo, req.UploadID))
	}
	return size, errors.Join(err, u.Close())
}

// lease resumes the session of a request. It opens the session if clients may
// choose IDs.
func (h uploadHandlers) lease(ctx context.Context, req Request) (u Upload, opened bool, err error) {
	u, err = h.store.ResumeUpload(ctx, req.Repo, req.UploadID)
	if h.clientIDs && errors.Is(err, ErrBlobUploadUnknown) && validUploadID(req.UploadID) {
		u, err = h.store.CreateUpload(ctx, req.Repo, UploadOptions{ID: req.UploadID})
		opened = true
	}
	return u, opened, err
}

// checkSessionConditions checks the conditions of r for a session, which has no
// entity tag.
func checkSessionConditions(r *http.Request) error {
	c, err := parseConditions(r)
	if err != nil || c == nil {
		return err
	}
	return c.check("")
}

// outOfOrder adds the upload's progress to the response if err is a 416.
func (h uploadHandlers) outOfOrder(w http.ResponseWriter, r *http.Request, req Request, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		if size, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID); err == nil {
			h.setProgress(w, req.Repo, req.UploadID, size)
		}
	}
	return err
}

// setProgress sets the headers that report an upload's location and size.
func (h uploadHandlers) setProgress(w http.ResponseWriter, repo, id string, size int64) {
	// Range ends with the last byte's position. The spec has no form for an
	// empty range.
	setHeaders(w, "Location", h.prefix+uploadURL(repo, id), "Range", "0-"+strconv.FormatInt(max(size-1, 0), 10), "Docker-Upload-Uuid", id)
}
