// SPDX-License-Identifier: Apache-2.0

// Parsing of a request's method and URL. It is pure, and no other code reads
// paths.

package registry

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Op is an operation of the distribution-spec.
type Op string

// The operations, with the endpoint's row in the spec's table "Endpoints".
const (
	OpPing           Op = "ping"            // end-1: GET or HEAD /v2/
	OpBlobGet        Op = "blob-get"        // end-2: GET /v2/<name>/blobs/<digest>
	OpBlobHead       Op = "blob-head"       // end-2: HEAD /v2/<name>/blobs/<digest>
	OpBlobDelete     Op = "blob-delete"     // end-10: DELETE /v2/<name>/blobs/<digest>
	OpBlobPush       Op = "blob-push"       // end-4b: POST /v2/<name>/blobs/uploads/?digest=<digest>
	OpBlobMount      Op = "blob-mount"      // end-11: POST /v2/<name>/blobs/uploads/?mount=<digest>&from=<other_name>
	OpUploadStart    Op = "upload-start"    // end-4a, end-4c: POST /v2/<name>/blobs/uploads/
	OpUploadPatch    Op = "upload-patch"    // end-5: PATCH /v2/<name>/blobs/uploads/<id>
	OpUploadPut      Op = "upload-put"      // end-6: PUT /v2/<name>/blobs/uploads/<id>?digest=<digest>
	OpUploadStatus   Op = "upload-status"   // end-13: GET /v2/<name>/blobs/uploads/<id>
	OpUploadCancel   Op = "upload-cancel"   // end-14: DELETE /v2/<name>/blobs/uploads/<id>
	OpManifestGet    Op = "manifest-get"    // end-3: GET /v2/<name>/manifests/<tag-or-digest>
	OpManifestHead   Op = "manifest-head"   // end-3: HEAD /v2/<name>/manifests/<tag-or-digest>
	OpManifestPut    Op = "manifest-put"    // end-7a, end-7b: PUT /v2/<name>/manifests/<tag-or-digest>
	OpManifestDelete Op = "manifest-delete" // end-9: DELETE /v2/<name>/manifests/<tag-or-digest>
	OpTags           Op = "tags"            // end-8a, end-8b: GET /v2/<name>/tags/list
	OpReferrers      Op = "referrers"       // end-12a, end-12b: GET /v2/<name>/referrers/<digest>
	OpCatalog        Op = "catalog"         // GET /v2/_catalog, of the Docker Registry API
)

// Request is a parsed request. ParseRequest leaves the fields that its Op does
// not use zero, and N -1.
type Request struct {
	Op Op

	// Repo is the repository's name; empty for OpPing and OpCatalog.
	Repo string

	// Digest is the digest of the blob, of the manifest if it is named by
	// digest, of the subject for OpReferrers, or the expected digest for
	// OpBlobPush, OpBlobMount and OpUploadPut. For OpUploadPut it may be
	// malformed.
	Digest digest.Digest

	// Tag is the manifest's tag, if it is named by tag.
	Tag string

	// Tags are the tag parameters of OpManifestPut by digest (end-7b).
	Tags []string

	// From is the repository to mount from; empty if the client leaves the
	// choice to the registry.
	From string

	// UploadID is the ID of the upload session, for the operations on one.
	UploadID string

	// Algorithm is the digest-algorithm parameter of OpUploadStart, and of
	// OpBlobMount if it falls back to an upload. OpBlobPush does not need it,
	// since its Digest has an algorithm.
	Algorithm digest.Algorithm

	// N is the requested number of names for OpTags, OpCatalog or
	// OpReferrers, -1 if the client did not limit it. Last is the name to
	// start after.
	N    int
	Last string

	// ArtifactTypes is the filter of OpReferrers: the values of its
	// artifactType parameter, nil without one.
	ArtifactTypes []string

	// Namespace is the ns parameter (section "Registry Proxying") of any
	// operation.
	Namespace string
}

// ParseRequest parses the method and the URL of r. It reads nothing else.
//
// Errors, each an *Error:
//   - 404 UNSUPPORTED for a path that is not an endpoint;
//   - 405 UNSUPPORTED, with Allow, for a method that the endpoint lacks;
//   - ErrNameInvalid for a malformed repository name, and for a malformed tag
//     in a push;
//   - ErrManifestUnknown for a malformed tag in another operation;
//   - ErrDigestInvalid for a malformed digest or an unsupported algorithm;
//   - 414 UNSUPPORTED for more than 100 values of tag or artifactType;
//   - ErrUnsupported for a malformed query.
func ParseRequest(r *http.Request) (Request, error) {
	return parseRequest(r, func(Op) bool { return false })
}

// parseRequest is ParseRequest for a registry in which some operations are
// disabled: they get the same error as a method that the endpoint lacks.
func parseRequest(r *http.Request, disabled func(Op) bool) (Request, error) {
	p := requestParser{Request: Request{N: -1}, method: r.Method, disabled: disabled}
	err := p.parse(r.URL)
	return p.Request, err
}

// requestParser fills in a Request, with a method for each endpoint.
type requestParser struct {
	Request
	method   string
	query    query
	disabled func(Op) bool
}

func (p *requestParser) parse(u *url.URL) error {
	// A store keeps parts of the path. The copy prevents them from keeping the
	// entire request line.
	path, ok := strings.CutPrefix(strings.Clone(u.Path), "/v2")
	if !ok || (path != "" && path[0] != '/') {
		return errNotFound
	}
	// A path with an encoded slash has two readings: a proxy in front of the
	// registry could check one repository, and the registry serve another.
	if u.RawPath != "" && strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return errNotFound
	}
	if u.RawQuery != "" {
		var err error
		if p.query, err = parseQuery(u.RawQuery); err != nil {
			return err
		}
	}
	p.Namespace = p.query.get("ns")

	// Names contain slashes, so the path is read from its right end.
	dir, last := cutLast(path)
	name, kind := cutLast(dir)
	switch {
	case path == "" || path == "/":
		return p.setOp(pingMethods)
	case path == "/_catalog":
		return p.catalog()
	case kind == "tags" && last == "list":
		return p.tags(name)
	case kind == "manifests":
		return p.manifest(name, last)
	case kind == "referrers":
		return p.referrers(name, last)
	case kind == "blobs" && last == "uploads":
		return p.uploads(name)
	case kind == "blobs":
		return p.blob(name, last)
	case kind == "uploads" && strings.HasSuffix(name, "/blobs"):
		name = strings.TrimSuffix(name, "/blobs")
		if last == "" {
			return p.uploads(name)
		}
		return p.upload(name, last)
	}
	return errNotFound
}

// catalog parses a request to /v2/_catalog.
func (p *requestParser) catalog() error {
	if err := p.setOp(catalogMethods); err != nil {
		return err
	}
	return p.page()
}

// tags parses a request to …/tags/list: end-8a and end-8b.
func (p *requestParser) tags(name string) error {
	if err := p.endpoint(name, tagsMethods); err != nil {
		return err
	}
	return p.page()
}

// manifest parses a request to …/manifests/<reference>: end-3, end-7a, end-7b
// and end-9.
func (p *requestParser) manifest(name, reference string) error {
	if err := p.endpoint(name, manifestMethods); err != nil {
		return err
	}
	if !strings.Contains(reference, ":") {
		p.Tag = reference
		switch {
		case validTag(reference):
			return nil
		case p.Op == OpManifestPut:
			return errBadTag
		}
		return ErrManifestUnknown
	}
	if err := p.digest(reference); err != nil {
		return err
	}
	if p.Op == OpManifestPut {
		var err error
		if p.Tags, err = p.query.all("tag"); err != nil {
			return err
		}
		slices.Sort(p.Tags)
		p.Tags = slices.Compact(p.Tags)
	}
	for _, tag := range p.Tags {
		if !validTag(tag) {
			return errBadTag
		}
	}
	return nil
}

// referrers parses a request to …/referrers/<digest>: end-12a and end-12b.
func (p *requestParser) referrers(name, subject string) error {
	if err := p.endpoint(name, referrersMethods); err != nil {
		return err
	}
	var err error
	if p.ArtifactTypes, err = p.query.all("artifactType"); err != nil {
		return err
	}
	if err := p.digest(subject); err != nil {
		return err
	}
	return p.page()
}

// blob parses a request to …/blobs/<digest>: end-2 and end-10.
func (p *requestParser) blob(name, d string) error {
	if err := p.endpoint(name, blobMethods); err != nil {
		return err
	}
	return p.digest(d)
}

// uploads parses a request to …/blobs/uploads/: end-4a, end-4b, end-4c and
// end-11.
func (p *requestParser) uploads(name string) error {
	if err := p.endpoint(name, uploadsMethods); err != nil {
		return err
	}
	if a := p.query.get("digest-algorithm"); a != "" {
		p.Algorithm = digest.Algorithm(a)
		if !p.Algorithm.Available() {
			return errBadAlgorithm
		}
	}
	switch {
	case p.query.has("mount"):
		p.Op = OpBlobMount
		p.From = p.query.get("from")
		if p.From != "" && !validName(p.From) {
			return ErrNameInvalid
		}
		return p.digest(p.query.get("mount"))
	case p.query.has("digest"):
		p.Op = OpBlobPush
		return p.digest(p.query.get("digest"))
	}
	return nil
}

// upload parses a request to …/blobs/uploads/<id>: end-5, end-6, end-13 and
// end-14.
func (p *requestParser) upload(name, id string) error {
	if err := p.endpoint(name, uploadMethods); err != nil {
		return err
	}
	p.UploadID = id
	if p.Op == OpUploadPut {
		// Not checked here: an unknown session is reported first.
		p.Digest = digest.Digest(p.query.get("digest"))
	}
	return nil
}

// methodTable lists the methods of an endpoint.
type methodTable []struct {
	method string
	op     Op
}

var (
	pingMethods      = methodTable{{"GET", OpPing}, {"HEAD", OpPing}}
	catalogMethods   = methodTable{{"GET", OpCatalog}, {"HEAD", OpCatalog}}
	tagsMethods      = methodTable{{"GET", OpTags}, {"HEAD", OpTags}}
	manifestMethods  = methodTable{{"GET", OpManifestGet}, {"HEAD", OpManifestHead}, {"PUT", OpManifestPut}, {"DELETE", OpManifestDelete}}
	referrersMethods = methodTable{{"GET", OpReferrers}, {"HEAD", OpReferrers}}
	blobMethods      = methodTable{{"GET", OpBlobGet}, {"HEAD", OpBlobHead}, {"DELETE", OpBlobDelete}}
	uploadsMethods   = methodTable{{"POST", OpUploadStart}}
	uploadMethods    = methodTable{{"PATCH", OpUploadPatch}, {"PUT", OpUploadPut}, {"GET", OpUploadStatus}, {"HEAD", OpUploadStatus}, {"DELETE", OpUploadCancel}}
)

// setOp sets the operation of the request's method. If it is disabled, or there
// is none, it returns 405 with the methods that remain.
func (p *requestParser) setOp(table methodTable) error {
	for _, m := range table {
		if m.method == p.method {
			p.Op = m.op
			if p.disabled(m.op) {
				break
			}
			return nil
		}
	}
	var allow []string
	for _, m := range table {
		if !p.disabled(m.op) {
			allow = append(allow, m.method)
		}
	}
	return methodNotAllowed(allow)
}

func methodNotAllowed(allow []string) *Error {
	return &Error{
		Status:  http.StatusMethodNotAllowed,
		Code:    "UNSUPPORTED",
		Message: "method not allowed",
		Header:  http.Header{"Allow": {strings.Join(allow, ", ")}},
	}
}

// endpoint sets the repository and the operation. The path that precedes the
// endpoint's own part is empty, or a slash and the repository's name.
func (p *requestParser) endpoint(path string, table methodTable) error {
	if path == "" {
		return errNotFound
	}
	p.Repo = path[1:]
	if !validName(p.Repo) {
		return ErrNameInvalid
	}
	return p.setOp(table)
}

func (p *requestParser) digest(s string) error {
	p.Digest = digest.Digest(s)
	return checkDigest(p.Digest)
}

// page sets N and Last.
func (p *requestParser) page() error {
	p.Last = p.query.get("last")
	if !p.query.has("n") {
		return nil
	}
	s := p.query.get("n")
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return fmt.Errorf("%w: n is not a number", ErrUnsupported)
	}
	n, err := strconv.Atoi(s)
	if err != nil { // digits only: out of range
		n = math.MaxInt
	}
	p.N = n
	return nil
}

// cutLast cuts path around its last slash. Without one, last is the path.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// RequestURI returns the path and the query that ParseRequest parses as req.
func (req Request) RequestURI() string {
	query := make(url.Values)
	set := func(key, value string) {
		if value != "" {
			query.Set(key, value)
		}
	}
	set("ns", req.Namespace)
	set("last", req.Last)
	set("from", req.From)
	set("digest-algorithm", string(req.Algorithm))
	for _, artifactType := range req.ArtifactTypes {
		query.Add("artifactType", artifactType)
	}
	for _, tag := range req.Tags {
		query.Add("tag", tag)
	}

	switch req.Op {
	case OpTags, OpCatalog, OpReferrers:
		if req.N >= 0 {
			set("n", strconv.Itoa(req.N))
		}
	}
	var path string
	switch req.Op {
	case OpPing:
		path = "/v2/"
	case OpCatalog:
		path = "/v2/_catalog"
	case OpTags:
		path = "/v2/" + req.Repo + "/tags/list"
	case OpReferrers:
		path = "/v2/" + req.Repo + "/referrers/" + req.Digest.String()
	case OpBlobGet, OpBlobHead, OpBlobDelete:
		path = blobURL(req.Repo, req.Digest)
	case OpManifestGet, OpManifestHead, OpManifestPut, OpManifestDelete:
		path = manifestURL(req.Repo, req.Tag+string(req.Digest))
	case OpBlobPush:
		path = uploadURL(req.Repo, "")
		set("digest", req.Digest.String())
	case OpBlobMount:
		path = uploadURL(req.Repo, "")
		set("mount", req.Digest.String())
	case OpUploadPut:
		set("digest", req.Digest.String())
		fallthrough
	default:
		path = uploadURL(req.Repo, req.UploadID)
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}
