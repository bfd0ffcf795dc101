// SPDX-License-Identifier: Apache-2.0

// Manifests: section "Pulling manifests", "Pushing Manifests" and "Deleting
// Manifests".

package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type manifestHandlers struct {
	store     Store // the blobs that a manifest names must be there
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

// put answers PUT /v2/<name>/manifests/<tag-or-digest>: end-7a and end-7b.
func (h manifestHandlers) put(w http.ResponseWriter, r *http.Request, req Request) error {
	condition, err := parseCondition(r)
	if err != nil {
		return err
	}
	content, err := h.read(r)
	if err != nil {
		return err
	}
	push := ManifestPush{
		MediaType: r.Header.Get("Content-Type"),
		Content:   content,
		Digest:    req.Digest,
		Tags:      req.Tags,
		Sparse:    h.sparse,
		Allow:     condition.allow(),
	}
	if req.Tag != "" {
		push.Tags = []string{req.Tag}
	}
	if len(push.Tags) == 0 && condition != nil {
		// The condition is on the manifest itself, which never changes.
		current := req.Digest
		if _, err := h.store.GetManifest(r.Context(), req.Repo, req.Digest); err != nil {
			current = ""
		}
		if err := push.Allow("", current); err != nil {
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
	created(w, Request{Op: OpManifestGet, Repo: req.Repo, Digest: m.Digest, N: -1}.URL(), m.Digest)
	return nil
}

// delete answers DELETE /v2/<name>/manifests/<tag-or-digest>: end-9. With a
// tag, the manifest stays; with a digest, its tags go.
func (h manifestHandlers) delete(w http.ResponseWriter, r *http.Request, req Request) error {
	condition, err := parseCondition(r)
	if err != nil {
		return err
	}
	allow := condition.allow()
	if req.Tag != "" {
		err = h.store.DeleteTag(r.Context(), req.Repo, req.Tag, allow)
	} else if err = allowed(allow, req.Digest); err == nil {
		err = h.store.DeleteManifest(r.Context(), req.Repo, req.Digest)
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

// read returns the body of a push, of which no more is held than has come in.
func (h manifestHandlers) read(r *http.Request) ([]byte, error) {
	if r.Body == nil { // as a client's request may have it
		return nil, nil
	}
	tooLarge := fmt.Errorf("%w: the limit of a manifest is %d bytes", ErrTooLarge, h.maxBytes)
	if r.ContentLength > h.maxBytes {
		return nil, tooLarge
	}
	return io.ReadAll(&requestBody{r: r.Body, left: h.maxBytes, tooLong: tooLarge})
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
	m, names, err := parseManifest(p.MediaType, p.Content)
	if err != nil {
		return Manifest{}, err
	}
	if p.Digest != "" {
		if err := checkDigest(p.Digest); err != nil {
			return Manifest{}, err
		}
	} else {
		p.Digest = digest.Canonical.FromBytes(names.payload)
	}
	if p.Digest.Algorithm().FromBytes(names.payload) != p.Digest {
		return Manifest{}, ErrDigestInvalid
	}
	m.Digest = p.Digest
	if !p.Sparse {
		if err := names.check(ctx, s, repo); err != nil {
			return Manifest{}, err
		}
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

// The media types of manifests that are looked into. Manifests of any other
// type are kept as they are.
const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned:
		return true
	}
	return false
}

// manifestNames is what a manifest names, and what its digest is of.
type manifestNames struct {
	blobs, manifests []digest.Digest
	payload          []byte
}

// check returns an error if repo lacks what a manifest names.
func (n manifestNames) check(ctx context.Context, s Store, repo string) error {
	var missing []error
	for _, d := range n.blobs {
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

// manifestDoc has the fields of all types of manifests that are looked into.
type manifestDoc struct {
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType"`
	Config       *ocispec.Descriptor  `json:"config"`
	Layers       []ocispec.Descriptor `json:"layers"`
	Manifests    []ocispec.Descriptor `json:"manifests"`
	Subject      *ocispec.Descriptor  `json:"subject"`
	Annotations  map[string]string    `json:"annotations"`
	FSLayers     []struct {
		BlobSum digest.Digest `json:"blobSum"`
	} `json:"fsLayers"`
	Signatures []struct {
		Protected string `json:"protected"`
	} `json:"signatures"`
}

// parseManifest looks into a manifest, once and for all: what a store keeps of
// it beside its bytes, and what it names.
func parseManifest(mediaType string, content []byte) (Manifest, manifestNames, error) {
	fail := func(format string, args ...any) (Manifest, manifestNames, error) {
		return Manifest{}, manifestNames{}, fmt.Errorf("%w: "+format, append([]any{ErrManifestInvalid}, args...)...)
	}
	m := Manifest{Content: content}
	names := manifestNames{payload: content}

	switch {
	case mediaType != "":
		t, _, err := mime.ParseMediaType(mediaType)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			return fail("malformed Content-Type")
		}
		m.MediaType = strings.Clone(t) // not all of a long header
	default:
		var doc struct {
			MediaType string `json:"mediaType"`
		}
		m.MediaType = "application/octet-stream"
		if json.Unmarshal(content, &doc) == nil && doc.MediaType != "" {
			t, params, err := mime.ParseMediaType(doc.MediaType)
			if err != nil || len(params) > 0 {
				return fail("malformed mediaType")
			}
			m.MediaType = t
		}
	}
	if !isManifest(m.MediaType) {
		return m, names, nil
	}

	var doc manifestDoc
	if err := json.Unmarshal(content, &doc); err != nil {
		return fail("%s", jsonFault(err))
	}
	if trimmed := bytes.TrimLeft(content, " \t\r\n"); trimmed[0] != '{' {
		return fail("not a JSON object")
	}
	if doc.MediaType != "" && doc.MediaType != m.MediaType {
		return fail("its mediaType is not its Content-Type")
	}
	// A body that is both an image and an index is one to some clients and the
	// other to others: CVE-2021-41190.
	switch m.MediaType {
	case ocispec.MediaTypeImageManifest, typeDockerManifest:
		if doc.Manifests != nil || doc.FSLayers != nil {
			return fail("an image manifest has no manifests and no fsLayers")
		}
		if doc.Config != nil {
			names.blobs = append(names.blobs, doc.Config.Digest)
		}
		for _, layer := range doc.Layers {
			if !nonDistributable(layer.MediaType) {
				names.blobs = append(names.blobs, layer.Digest)
			} else if malformed(layer.Digest) {
				return fail("malformed digest in a descriptor")
			}
		}
	case ocispec.MediaTypeImageIndex, typeDockerList:
		if doc.Config != nil || doc.Layers != nil || doc.FSLayers != nil {
			return fail("an index has no config and no layers")
		}
		for _, child := range doc.Manifests {
			if isManifest(child.MediaType) {
				names.manifests = append(names.manifests, child.Digest)
			} else if malformed(child.Digest) {
				return fail("malformed digest in a descriptor")
			}
		}
	case typeDockerSchema1, typeDockerSigned:
		if doc.Config != nil || doc.Layers != nil || doc.Manifests != nil {
			return fail("a schema 1 manifest has no config, layers and manifests")
		}
		for _, layer := range doc.FSLayers {
			names.blobs = append(names.blobs, layer.BlobSum)
		}
		if len(doc.Signatures) > 0 {
			payload, ok := signedPayload(content, doc.Signatures[0].Protected)
			if !ok {
				return fail("malformed signature")
			}
			names.payload = payload
		} else if m.MediaType == typeDockerSigned {
			return fail("no signature")
		}
	}
	for _, list := range [][]digest.Digest{names.blobs, names.manifests} {
		for _, d := range list {
			if malformed(d) {
				return fail("malformed digest in a descriptor")
			}
		}
	}
	// Layers are often the same: an empty one, say.
	names.blobs = compact(names.blobs)
	names.manifests = compact(names.manifests)

	oci := m.MediaType == ocispec.MediaTypeImageManifest || m.MediaType == ocispec.MediaTypeImageIndex
	if oci && doc.Subject != nil {
		if checkDigest(doc.Subject.Digest) != nil {
			return fail("malformed digest of the subject")
		}
		m.Subject = doc.Subject.Digest
		m.Annotations = doc.Annotations
		m.ArtifactType = doc.ArtifactType
		if m.ArtifactType == "" && doc.Config != nil {
			m.ArtifactType = doc.Config.MediaType
		}
	}
	return m, names, nil
}

// malformed reports whether d is no digest, not even of an algorithm unknown
// here: a manifest may name what only others can verify.
func malformed(d digest.Digest) bool {
	return checkDigest(d) == errBadDigest
}

func compact(list []digest.Digest) []digest.Digest {
	slices.Sort(list)
	return slices.Compact(list)
}

// jsonFault says what is wrong with a document, without quoting it.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return fmt.Sprintf("a value of the wrong type at byte %d", kind.Offset)
	}
	return "malformed JSON"
}

// nonDistributable reports whether layers of a type need not be in a registry:
// the image-spec's non-distributable layers, Docker's foreign ones.
func nonDistributable(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// signedPayload returns what was signed of a Docker schema 1 manifest, of
// which its digest is: the first formatLength bytes, and formatTail.
func signedPayload(content []byte, protected string) (payload []byte, ok bool) {
	var format struct {
		Length int    `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	header, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(protected, "="))
	if err != nil || json.Unmarshal(header, &format) != nil {
		return nil, false
	}
	tail, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(format.Tail, "="))
	if err != nil || format.Length < 0 || format.Length > len(content) {
		return nil, false
	}
	return slices.Concat(content[:format.Length], tail), true
}

// condition is what If-Match or If-None-Match asks of the present digest: RFC
// 9110 sections 13.1.1 and 13.1.2.
type condition struct {
	none    bool // If-None-Match
	any     bool // "*"
	digests []digest.Digest
}

// parseCondition returns the condition of r, nil if it has none.
func parseCondition(r *http.Request) (*condition, error) {
	header := "If-Match"
	if r.Header.Get(header) == "" {
		header = "If-None-Match"
	}
	fields := r.Header.Values(header)
	if len(fields) == 0 {
		return nil, nil
	}
	c := &condition{none: header == "If-None-Match"}
	for _, tag := range strings.Split(strings.Join(fields, ","), ",") {
		switch tag = strings.Trim(tag, " \t"); {
		case tag == "":
		case tag == "*":
			c.any = true
		case strings.HasPrefix(tag, `W/"`) && !c.none:
			// If-Match compares strongly: a weak tag matches nothing.
		default:
			tag = strings.TrimPrefix(tag, "W/")
			if len(tag) < 2 || tag[0] != '"' || tag[len(tag)-1] != '"' {
				return nil, fmt.Errorf("%w: malformed %s", ErrUnsupported, header)
			}
			c.digests = append(c.digests, digest.Digest(tag[1:len(tag)-1]))
		}
	}
	return c, nil
}

// allow returns c in the form that stores ask.
func (c *condition) allow() func(tag string, current digest.Digest) error {
	if c == nil {
		return nil
	}
	return func(_ string, current digest.Digest) error {
		match := current != "" && (c.any || slices.Contains(c.digests, current))
		if match == c.none {
			return errPrecondition
		}
		return nil
	}
}

func allowed(allow func(string, digest.Digest) error, current digest.Digest) error {
	if allow == nil {
		return nil
	}
	return allow("", current)
}
