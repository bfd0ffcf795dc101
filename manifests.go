// SPDX-License-Identifier: Apache-2.0

// Manifests: section "Pulling manifests", "Pushing Manifests" and "Deleting
// Manifests".

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
)

type manifestHandlers struct {
	store     Store // the blobs that a manifest names must be there
	budget    *budget
	maxBytes  int64
	sparse    bool
	referrers bool
}

// get answers GET and HEAD /v2/<name>/manifests/<tag-or-digest>: end-3. What
// was pushed is what is served, whatever Accept says.
func (h manifestHandlers) get(w http.ResponseWriter, r *http.Request, req Request) error {
	m, err := h.lookup(r.Context(), req)
	if err != nil {
		return err
	}
	if !isManifest(m.MediaType) {
		// A client chose this type, and a browser may render it.
		w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox")
	}
	return serveContent(w, r, m.MediaType, m.Digest, bytes.NewReader(m.Content))
}

func (h manifestHandlers) lookup(ctx context.Context, req Request) (Manifest, error) {
	if req.Tag != "" {
		return h.store.GetTag(ctx, req.Repo, req.Tag)
	}
	return h.store.GetManifest(ctx, req.Repo, req.Digest)
}

// put answers PUT /v2/<name>/manifests/<tag-or-digest>: end-7a and end-7b. With
// tag parameters, conditions are on each of the tags.
func (h manifestHandlers) put(w http.ResponseWriter, r *http.Request, req Request) error {
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	if types := r.Header.Values("Content-Type"); len(types) > 1 { // RFC 9110 section 8.3: others would take another
		return fmt.Errorf("%w: %d Content-Types", ErrManifestInvalid, len(types))
	}
	if r.Header.Values("Content-Range") != nil { // RFC 9110 section 14.5: there is no partial PUT
		return fmt.Errorf("%w: a manifest is pushed whole", errContentRange)
	}
	held := hold{budget: h.budget}
	defer held.release()
	content, err := h.read(r, &held)
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
		// The condition is on the manifest itself, which never changes.
		current := req.Digest
		switch _, err := h.store.GetManifest(r.Context(), req.Repo, req.Digest); {
		case errors.Is(err, ErrManifestUnknown) || errors.Is(err, ErrNameUnknown):
			current = ""
		case err != nil:
			return err
		}
		if err := c.check(current); err != nil {
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
	created(w, manifestURL(req.Repo, string(m.Digest)), m.Digest)
	return nil
}

// delete answers DELETE /v2/<name>/manifests/<tag-or-digest>: end-9. With a
// tag, the manifest stays; with a digest, its tags go.
func (h manifestHandlers) delete(w http.ResponseWriter, r *http.Request, req Request) error {
	c, err := parseConditions(r)
	if err != nil {
		return err
	}
	switch {
	case req.Tag != "" && c != nil:
		err = h.store.DeleteTag(r.Context(), req.Repo, req.Tag, func(_ string, current digest.Digest) error { return c.check(current) })
	case req.Tag != "":
		err = h.store.DeleteTag(r.Context(), req.Repo, req.Tag, nil)
	default:
		if c != nil {
			if _, err := h.store.GetManifest(r.Context(), req.Repo, req.Digest); err != nil {
				return err
			}
			err = c.check(req.Digest)
		}
		if err == nil {
			err = h.store.DeleteManifest(r.Context(), req.Repo, req.Digest)
		}
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

// manifestCost is about what it takes to look into a manifest, as a multiple of
// its size.
const manifestCost = 4

// read returns the body of a push. Of the budget, it holds as much as has come
// in, and then what it takes to look into it.
func (h manifestHandlers) read(r *http.Request, held *hold) ([]byte, error) {
	if r.Body == nil { // as a client's request may have it
		return nil, nil
	}
	tooLarge := fmt.Errorf("%w: the limit of a manifest is %d bytes", ErrTooLarge, h.maxBytes)
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
			if err := held.grow(2 * int64(cap(content))); err != nil {
				return nil, err
			}
			content = append(make([]byte, 0, 2*cap(content)), content...)
		}
	}
	if err := held.grow(manifestCost * int64(len(content))); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(content)), content...), nil // it is kept: without a reserve
}

// ManifestPush is a manifest that is pushed.
type ManifestPush struct {
	// MediaType is the manifest's Content-Type. Its parameters are dropped.
	// If it is empty, the mediaType field of Content counts.
	MediaType string

	// Content is the manifest. It must not be changed any more.
	Content []byte

	// Digest is the digest that Content must have; empty to have its SHA-256
	// digest computed.
	Digest digest.Digest

	// Tags are to point at the manifest.
	Tags []string

	// Allow is asked before a tag is moved: see [ManifestStore].
	Allow func(tag string, current digest.Digest) error

	// Sparse accepts a manifest that names what repo does not have: see
	// [AllowSparse].
	Sparse bool
}

// PushManifest checks and stores a manifest in repo as a push over HTTP does,
// and returns it as it is stored (section "Pushing Manifests").
//
// Errors: ErrNameInvalid, ErrDigestInvalid, ErrManifestInvalid,
// ErrManifestBlobUnknown, and those of the store and of Allow. Nothing is
// stored then.
func PushManifest(ctx context.Context, s Store, repo string, p ManifestPush) (Manifest, error) {
	if !validName(repo) {
		return Manifest{}, ErrNameInvalid
	}
	for _, tag := range p.Tags {
		if !validTag(tag) {
			return Manifest{}, fmt.Errorf("%w: badly formed tag", ErrNameInvalid)
		}
	}
	m, err := p.manifest(ctx, s, repo)
	if err != nil {
		return Manifest{}, err
	}
	allow := p.Allow
	if ctx.Value(immutableTags{}) != nil {
		allow = func(tag string, current digest.Digest) error {
			if current != "" && current != m.Digest {
				return fmt.Errorf("%w: the tag %s exists, and may not be moved", ErrDenied, tag)
			}
			if p.Allow == nil {
				return nil
			}
			return p.Allow(tag, current)
		}
	}
	return m, s.PutManifest(ctx, repo, m, p.Tags, allow)
}

// manifest looks into what is pushed, and checks it.
func (p ManifestPush) manifest(ctx context.Context, s Store, repo string) (Manifest, error) {
	d, algorithm := p.Digest, digest.Canonical
	if d != "" {
		if err := checkDigest(d); err != nil {
			return Manifest{}, err
		}
		algorithm = d.Algorithm()
	}
	m, names, err := parseManifest(p.MediaType, p.Content)
	if err != nil {
		return Manifest{}, err
	}
	if m.Digest = algorithm.FromBytes(names.payload); d != "" && d != m.Digest {
		return Manifest{}, ErrDigestInvalid
	}
	if m.Subject != "" {
		m.Referrer.Digest = m.Digest
		m.Referrer.Descriptor, err = json.Marshal(struct {
			MediaType    string          `json:"mediaType"`
			Digest       digest.Digest   `json:"digest"`
			Size         int             `json:"size"`
			ArtifactType string          `json:"artifactType,omitempty"`
			Annotations  json.RawMessage `json:"annotations,omitempty"`
		}{m.MediaType, m.Digest, len(m.Content), m.Referrer.ArtifactType, names.annotations})
		if err != nil {
			return Manifest{}, err
		}
	}
	if p.Sparse {
		return m, nil
	}
	return m, names.check(ctx, s, repo)
}

// manifestNames is what a manifest names, what its digest is of, and its
// annotations where it refers to another.
type manifestNames struct {
	blobs, manifests []digest.Digest
	payload          []byte
	annotations      json.RawMessage
}

// check returns an error if repo lacks what a manifest names.
func (n manifestNames) check(ctx context.Context, s Store, repo string) error {
	var missing []error
	for _, d := range n.blobs {
		if len(missing) == maxErrors {
			break
		}
		content, err := s.OpenBlob(ctx, repo, d)
		switch {
		case err == nil:
			content.Close()
		case errors.Is(err, ErrBlobUnknown) || errors.Is(err, ErrNameUnknown):
			missing = append(missing, fmt.Errorf("%w: blob %s", ErrManifestBlobUnknown, d))
		default:
			return err
		}
	}
	for _, d := range n.manifests {
		if len(missing) == maxErrors {
			break
		}
		_, err := s.GetManifest(ctx, repo, d)
		switch {
		case err == nil:
		case errors.Is(err, ErrManifestUnknown) || errors.Is(err, ErrNameUnknown):
			missing = append(missing, fmt.Errorf("%w: manifest %s", ErrManifestBlobUnknown, d))
		default:
			return err
		}
	}
	return errors.Join(missing...)
}
