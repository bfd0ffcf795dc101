// SPDX-License-Identifier: Apache-2.0

// Uploads: section "Pushing blobs", "Cancel a blob upload" and "Mounting a blob
// from another repository".

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

type uploadHandlers struct {
	store     BlobStore
	maxBytes  int64 // of a blob; 0: no limit
	clientIDs bool
}

// PushBlob stores what content gives as the blob d of repo, as a push over
// HTTP does.
//
// Errors: ErrNameInvalid, ErrDigestInvalid, those of the store and those of
// content. Nothing is stored then.
func PushBlob(ctx context.Context, s BlobStore, repo string, d digest.Digest, content io.Reader) error {
	if !validName(repo) {
		return ErrNameInvalid
	}
	if err := checkDigest(d); err != nil {
		return err
	}
	return pushBlob(ctx, s, repo, d, content, func() error { return nil })
}

// pushBlob is PushBlob of what was checked. Once content is at its end, end
// tells whether that is all.
func pushBlob(ctx context.Context, s BlobStore, repo string, d digest.Digest, content io.Reader, end func() error) error {
	u, err := s.CreateUpload(ctx, repo, UploadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return err
	}
	defer u.Close()
	if _, err = u.ReadFrom(content); err == nil {
		err = end()
	}
	if err == nil {
		err = u.Commit(ctx, d)
	}
	if err != nil {
		s.CancelUpload(context.WithoutCancel(ctx), repo, u.ID())
	}
	return err
}

// push answers POST /v2/<name>/blobs/uploads/?digest=<digest>: end-4b, section
// "Single POST".
func (h uploadHandlers) push(w http.ResponseWriter, r *http.Request, req Request) error {
	body, err := h.body(r, 0)
	if err != nil {
		return err
	}
	if err := pushBlob(r.Context(), h.store, req.Repo, req.Digest, body, body.end); err != nil {
		return err
	}
	created(w, blobURL(req.Repo, req.Digest), req.Digest)
	return nil
}

// mount answers POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<other_name>:
// end-11.
func (h uploadHandlers) mount(w http.ResponseWriter, r *http.Request, req Request) error {
	switch err := h.mountFrom(r.Context(), req); {
	case err == nil:
		created(w, blobURL(req.Repo, req.Digest), req.Digest)
		return nil
	case errors.Is(err, ErrBlobUnknown) || errors.Is(err, ErrNameUnknown):
		// "unable to mount the requested blob, it SHOULD return a 202", an
		// upload session for the same blob.
		if req.Algorithm == "" {
			req.Algorithm = req.Digest.Algorithm()
		}
		return h.start(w, r, req)
	default:
		return err
	}
}

// mountFrom mounts a blob from the repository that the request names, or, as
// "the registry MAY treat the from parameter as optional", from any that has
// it. It looks only where the client may pull.
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

// start answers POST /v2/<name>/blobs/uploads/: end-4a and end-4c.
func (h uploadHandlers) start(w http.ResponseWriter, r *http.Request, req Request) error {
	u, err := h.store.CreateUpload(r.Context(), req.Repo, UploadOptions{Algorithm: req.Algorithm})
	if err != nil {
		return err
	}
	if err := u.Close(); err != nil { // before the client can come back
		return err
	}
	progress(w, req.Repo, u.ID(), 0)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// patch answers PATCH <blob-push-location>: end-5, section "Pushing a blob in
// chunks".
func (h uploadHandlers) patch(w http.ResponseWriter, r *http.Request, req Request) error {
	size, err := h.receive(r, req)
	if err != nil {
		return h.refused(w, r, req, err)
	}
	progress(w, req.Repo, req.UploadID, size)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// put answers PUT <blob-push-location>?digest=<digest>: end-6. It publishes the
// blob and closes the session, or changes nothing.
func (h uploadHandlers) put(w http.ResponseWriter, r *http.Request, req Request) error {
	if _, err := h.receive(r, req); err != nil {
		return h.refused(w, r, req, err)
	}
	created(w, blobURL(req.Repo, req.Digest), req.Digest)
	return nil
}

// status answers GET <blob-push-location>: end-13.
func (h uploadHandlers) status(w http.ResponseWriter, r *http.Request, req Request) error {
	size, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID)
	if err != nil {
		return err
	}
	progress(w, req.Repo, req.UploadID, size)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// conditions checks those of r on a session, which has no entity tag.
func (uploadHandlers) conditions(r *http.Request) error {
	c, err := parseConditions(r)
	if err != nil || c == nil {
		return err
	}
	return c.check("")
}

// cancel answers DELETE <blob-push-location>: end-14.
func (h uploadHandlers) cancel(w http.ResponseWriter, r *http.Request, req Request) error {
	if _, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID); err != nil {
		return err
	}
	if err := h.conditions(r); err != nil {
		return err
	}
	if err := h.store.CancelUpload(r.Context(), req.Repo, req.UploadID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// receive appends the body of a PATCH or PUT to its session, commits it if it
// is a PUT, and returns the session's size. The lease has ended when it
// returns: a client that has its answer may come back at once.
func (h uploadHandlers) receive(r *http.Request, req Request) (size int64, err error) {
	u, opened, err := h.lease(r.Context(), req)
	if err != nil {
		return 0, err
	}
	defer u.Close() // if something panics
	err = h.conditions(r)
	if err == nil && req.Op == OpUploadPut {
		err = checkDigest(req.Digest)
	}
	var body *requestBody
	if err == nil {
		body, err = h.body(r, u.Size())
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
	// A request that is refused changes nothing. Only what came in a PATCH
	// before its connection broke is kept, for the client to go on from.
	if err != nil && !(body != nil && body.broken && req.Op == OpUploadPatch) {
		err = errors.Join(err, u.Rollback())
	}
	if size = u.Size(); err != nil && opened && size == 0 {
		// The client may be gone already.
		err = errors.Join(err, h.store.CancelUpload(context.WithoutCancel(r.Context()), req.Repo, req.UploadID))
	}
	return size, errors.Join(err, u.Close())
}

// lease resumes the session of a request, or, where clients may choose IDs,
// opens it.
func (h uploadHandlers) lease(ctx context.Context, req Request) (u Upload, opened bool, err error) {
	u, err = h.store.ResumeUpload(ctx, req.Repo, req.UploadID)
	if h.clientIDs && errors.Is(err, ErrBlobUploadUnknown) && validUploadID(req.UploadID) {
		u, err = h.store.CreateUpload(ctx, req.Repo, UploadOptions{ID: req.UploadID})
		opened = true
	}
	return u, opened, err
}

// validUploadID reports whether a client may choose an ID: it is a part of a
// path, in Locations and perhaps in a store.
func validUploadID(id string) bool {
	const word = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-="
	return id != "." && id != ".." && len(id) <= 128 && strings.Trim(id, word) == ""
}

// refused adds to a 416 where the upload stands, as the status does.
func (h uploadHandlers) refused(w http.ResponseWriter, r *http.Request, req Request, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		if size, err := h.store.UploadSize(r.Context(), req.Repo, req.UploadID); err == nil {
			progress(w, req.Repo, req.UploadID, size)
		}
	}
	return err
}

// progress sets the headers that tell a client where its upload stands.
func progress(w http.ResponseWriter, repo, id string, size int64) {
	// In Range is the last byte's position; the spec has no way to say that
	// there is none.
	setFields(w, "Location", uploadURL(repo, id), "Range", "0-"+strconv.FormatInt(max(size-1, 0), 10), "Docker-Upload-Uuid", id)
}

// created answers 201 for content that is now at location.
func created(w http.ResponseWriter, location string, d digest.Digest) {
	setFields(w, "Location", location, "Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// contentRange is the range of a chunk.
type contentRange struct {
	start, length int64
}

// parseContentRange parses a Content-Range in the spec's form,
// ^[0-9]+-[0-9]+$, which is not HTTP's. Without one it returns nil. The form
// has no way to say that there is nothing; some clients say so by an end before
// the start (cuelabs' ociregistry closes its uploads so).
func parseContentRange(fields []string) (*contentRange, error) {
	if fields == nil {
		return nil, nil
	}
	first, last, _ := strings.Cut(strings.Join(fields, ","), "-")
	start, err1 := strconv.ParseUint(first, 10, 62)
	end, err2 := strconv.ParseUint(last, 10, 62)
	if err1 != nil || err2 != nil || end+1 < start {
		return nil, errContentRange
	}
	return &contentRange{int64(start), int64(end+1) - int64(start)}, nil
}

// body returns the body of r, which is to follow the first size bytes of a
// blob. What r announces is checked before anything is read: a client that
// sent "Expect: 100-continue" need not send it at all.
func (h uploadHandlers) body(r *http.Request, size int64) (*requestBody, error) {
	chunk, err := parseContentRange(r.Header.Values("Content-Range"))
	if err != nil {
		return nil, err
	}
	b := &requestBody{r: r.Body, left: math.MaxInt64}
	if b.r == nil {
		b.r = http.NoBody
	}
	length := r.ContentLength // -1: unknown
	if length == 0 && chunk != nil && *chunk == (contentRange{0, 1}) {
		chunk.length = 0 // "0-0" of nothing: there is no end before 0
	}
	if chunk != nil {
		switch {
		case chunk.start != size:
			return nil, fmt.Errorf("%w: it starts at byte %d, the upload has %d", errUploadRange, chunk.start, size)
		case length >= 0 && length != chunk.length:
			return nil, fmt.Errorf("%w: Content-Range has %d bytes, Content-Length %d", ErrSizeInvalid, chunk.length, length)
		}
		length = chunk.length
		b.left, b.tooLong = chunk.length, ErrSizeInvalid
		b.exact = true
	}
	if h.maxBytes > 0 && h.maxBytes-size < b.left {
		b.left, b.tooLong = h.maxBytes-size, fmt.Errorf("%w: the limit of a blob is %d bytes", ErrTooLarge, h.maxBytes)
		if length > b.left {
			return nil, b.tooLong
		}
	}
	return b, nil
}

// requestBody reads a request's body and tells what is the client's fault.
type requestBody struct {
	r       io.Reader
	left    int64 // how much it may still give
	tooLong error // if it gives more
	exact   bool  // it may not give less
	broken  bool  // it could not be read to its end
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return 0, b.tooLong
	}
	b.left -= int64(n)
	if err == nil || err == io.EOF {
		return n, err
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return n, fmt.Errorf("%w: the limit is %d bytes", ErrTooLarge, tooLarge.Limit)
	}
	b.broken = true
	return n, errBodyBroken
}

// end tells, once the body has been read to its end, whether it was too short.
func (b *requestBody) end() error {
	if b.exact && b.left > 0 {
		return fmt.Errorf("%w: the body is %d bytes short of its Content-Range", ErrSizeInvalid, b.left)
	}
	return nil
}
