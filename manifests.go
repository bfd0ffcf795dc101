// SPDX-License-Identifier: Apache-2.0

// Manifests: sections "Pulling manifests", "Pushing Manifests" and "Deleting
// Manifests".

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
)

type manifestHandlers struct {
	store     Store // with the blobs, which a manifest may refer to
	budget    *budget
	prefix    string // of URLs
	maxBytes  int64
	sparse    bool
	referrers bool
}

// get handles GET and HEAD /v2/<name>/manifests/<tag-or-digest>: end-3. It
// serves the pushed bytes, whatever Accept says.
func (h manifestHandlers) get(w http.ResponseWriter, r *http.Request, req Request) error {
	m, err := h.lookup(r.Context(), req)
	if err == nil && r.Method == http.MethodHead && req.Digest != "" {
		// The client may be about to push an index that names the manifest.
		_, err = statManifest(r.Context(), h.store, req.Repo, req.Digest)
	}
	if err != nil {
		return err
	}
	if !isManifest(m.MediaType) {
		// A client chose this type, and a browser may render it.
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	}
	// A slow client keeps the content even if it is deleted meanwhile.
	used := reservation{budget: h.budget}
	defer used.release()
	if err := used.grow(int64(len(m.Content))); err != nil {
		return err
	}
	return content{m.MediaType, m.Digest, int64(len(m.Content)), bytes.NewReader(m.Content)}.serve(w, r)
}

func (h manifestHandlers) lookup(ctx context.Context, req Request) (Manifest, error) {
	if req.Tag != "" {
		return h.store.GetTag(ctx, req.Repo, req.Tag)
	}
	return h.store.GetManifest(ctx, req.Repo, req.Digest)
}

// put handles PUT /v2/<name>/manifests/<tag-or-digest>: end-7a and end-7b. With
// tag parameters, conditions apply to each of the tags.
func (h manifestHandlers) put(w http.ResponseWriter, r *http.Request, req Request) error {
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if types := r.Header.Values("Content-Type"); len(types) > 1 { // RFC 9110 section 8.3: other servers would choose another
		return fmt.Errorf("%w: %d Content-Types", ErrManifestInvalid, len(types))
	}
	if r.Header.Values("Content-Range") != nil { // RFC 9110 section 14.5: there is no partial PUT
		return fmt.Errorf("%w: a manifest is pushed in one piece", errContentRange)
	}
	used := reservation{budget: h.budget}
	defer used.release()
	content, err := h.read(r, &used)
	if err != nil {
		return err
	}
	push := ManifestPush{
		MediaType: r.Header.Get("Content-Type"),
		Content:   content,
		Digest:    req.Digest,
		Tags:      req.Tags,
		Sparse:    h.sparse,
	}
	if req.Tag != "" {
		push.Tags = []string{req.Tag}
	}
	if c != nil {
		push.Allow = func(_ string, current digest.Digest) error { return c.check(current) }
	}
	if c != nil && len(push.Tags) == 0 {
		if err := h.checkConditions(r.Context(), req, c); err != nil {
			return err
		}
	}
	m, err := PushManifest(r.Context(), h.store, req.Repo, push)
	if err != nil {
		return err
	}
	if m.Subject != "" && h.referrers {
		w.Header().Set("OCI-Subject", m.Subject.String())
	}
	for _, tag := range req.Tags {
		w.Header().Add("OCI-Tag", tag)
	}
	writeCreated(w, h.prefix+manifestURL(req.Repo, string(m.Digest)), m.Digest)
	return nil
}

// checkConditions checks the conditions of a push by digest without tags, which
// apply to the manifest itself.
func (h manifestHandlers) checkConditions(ctx context.Context, req Request, c *conditions) error {
	current := req.Digest
	switch _, err := h.store.GetManifest(ctx, req.Repo, req.Digest); {
	case errors.Is(err, ErrManifestUnknown) || errors.Is(err, ErrNameUnknown):
		current = ""
	case err != nil:
		return err
	}
	return c.check(current)
}

// delete handles DELETE /v2/<name>/manifests/<tag-or-digest>: end-9. By tag, it
// deletes the tag alone; by digest, the manifest with its tags.
func (h manifestHandlers) delete(w http.ResponseWriter, r *http.Request, req Request) error {
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if req.Tag != "" {
		err = h.deleteTag(r.Context(), req, c)
	} else {
		err = h.deleteManifest(r.Context(), req, c)
	}
	if err != nil {
		return err
	}
	if req.Digest != "" {
		w.Header().Set("Docker-Content-Digest", string(req.Digest))
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h manifestHandlers) deleteTag(ctx context.Context, req Request, c *conditions) error {
	var allow AllowFunc
	if c != nil {
		allow = func(_ string, current digest.Digest) error { return c.check(current) }
	}
	return h.store.DeleteTag(ctx, req.Repo, req.Tag, allow)
}

func (h manifestHandlers) deleteManifest(ctx context.Context, req Request, c *conditions) error {
	if c != nil {
		if _, err := h.store.GetManifest(ctx, req.Repo, req.Digest); err != nil {
			return err
		}
		if err := c.check(req.Digest); err != nil {
			return err
		}
	}
	return h.store.DeleteManifest(ctx, req.Repo, req.Digest)
}

// read returns the body of a push. It reserves memory for the bytes as they
// arrive, and then for parsing them.
func (h manifestHandlers) read(r *http.Request, used *reservation) ([]byte, error) {
	if r.Body == nil { // as in a client's request
		return nil, nil
	}
	tooLarge := fmt.Errorf("%w: a manifest may have at most %d bytes", ErrTooLarge, h.maxBytes)
	if r.ContentLength > h.maxBytes {
		return nil, tooLarge
	}
	body := &requestBody{r: r.Body, left: h.maxBytes, tooLong: tooLarge}
	content := make([]byte, 0, 1<<10)
	for {
		n, err := body.Read(content[len(content):cap(content)])
		content = content[:len(content)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(content) == cap(content) {
			if err := used.grow(2 * int64(cap(content))); err != nil {
				return nil, err
			}
			content = append(make([]byte, 0, 2*cap(content)), content...)
		}
	}
	if err := used.grow(manifestCost * int64(len(content))); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(content)), content...), nil // a store keeps it: no spare capacity
}
