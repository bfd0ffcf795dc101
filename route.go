// SPDX-License-Identifier: Apache-2.0

// From a method and a URL to what is asked: pure, and the only place that
// reads paths.

package registry

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	_ "crypto/sha256" // the digest algorithms that go-digest names
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
)

// Op says which operation of the distribution-spec a request asks for.
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

// Request is what a request asks for. ParseRequest leaves the fields that its
// Op does not use zero, and N -1.
type Request struct {
	Op Op

	// Repo is the repository's name; empty for OpPing and OpCatalog.
	Repo string

	// Digest is the blob's, the manifest's where it is named by digest, the
	// subject's of OpReferrers, or the expected one of OpBlobPush,
	// OpBlobMount and OpUploadPut. That of OpUploadPut may be malformed.
	Digest digest.Digest

	// Tag is the manifest's tag, where it is named by tag.
	Tag string

	// Tags are the tag parameters of OpManifestPut by digest (end-7b).
	Tags []string

	// From is the repository to mount from; empty where the client leaves
	// the choice to the registry.
	From string

	// UploadID is the session of the four operations on one.
	UploadID string

	// Algorithm is the digest-algorithm parameter of OpUploadStart, and of
	// OpBlobMount where it falls back to an upload. OpBlobPush has no use for
	// it: its Digest tells.
	Algorithm digest.Algorithm

	// N is the number of names asked for by OpTags, OpCatalog or
	// OpReferrers, -1 where the client did not say; Last is the name to
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

// ParseRequest tells what r asks for. It looks at the method and the URL
// alone.
//
// Errors, each an *Error:
//   - 404 UNSUPPORTED for a path that is no endpoint;
//   - 405 UNSUPPORTED, with Allow, for a method that the endpoint lacks;
//   - ErrNameInvalid for a malformed repository name or tag;
//   - ErrManifestUnknown for a malformed tag that is only asked for;
//   - ErrDigestInvalid for a malformed digest or an unsupported algorithm;
//   - ErrUnsupported for a malformed query.
func ParseRequest(r *http.Request) (Request, error) {
	req := Request{N: -1}
	// A copy: a store keeps parts of it, and must not keep with them all of the
	// request's line.
	path, ok := strings.CutPrefix(strings.Clone(r.URL.Path), "/v2")
	if !ok || (path != "" && path[0] != '/') {
		return req, errNotFound
	}
	// A decoded slash would make two names of one path: what a proxy in
	// front of us takes for one repository would be another here.
	if r.URL.RawPath != "" && strings.Contains(strings.ToLower(r.URL.RawPath), "%2f") {
		return req, errNotFound
	}
	var query url.Values
	if r.URL.RawQuery != "" {
		var err error
		if query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			return req, fmt.Errorf("%w: malformed query", ErrUnsupported)
		}
	}
	req.Namespace = query.Get("ns")

	if path == "" || path == "/" {
		return req, req.method(r, OpPing, "GET", OpPing, "HEAD")
	}
	if path == "/_catalog" {
		if err := req.method(r, OpCatalog, "GET", OpCatalog, "HEAD"); err != nil {
			return req, err
		}
		return req, req.page(query)
	}

	// Names hold slashes, so the path is read from its right end.
	name, last := cutLast(path)
	name, kind := cutLast(name)
	switch {
	case kind == "tags" && last == "list":
		if err := req.name(name); err != nil {
			return req, err
		}
		if err := req.method(r, OpTags, "GET", OpTags, "HEAD"); err != nil {
			return req, err
		}
		return req, req.page(query)

	case kind == "manifests":
		if err := req.name(name); err != nil {
			return req, err
		}
		if err := req.method(r, OpManifestGet, "GET", OpManifestHead, "HEAD", OpManifestPut, "PUT", OpManifestDelete, "DELETE"); err != nil {
			return req, err
		}
		return req, req.reference(last, query)

	case kind == "referrers":
		if err := req.name(name); err != nil {
			return req, err
		}
		if err := req.method(r, OpReferrers, "GET", OpReferrers, "HEAD"); err != nil {
			return req, err
		}
		req.ArtifactTypes = query["artifactType"]
		if err := req.digest(last); err != nil {
			return req, err
		}
		return req, req.page(query)

	case kind == "blobs" && last == "uploads":
		if err := req.name(name); err != nil {
			return req, err
		}
		return req, req.post(r, query)

	case kind == "blobs":
		if err := req.name(name); err != nil {
			return req, err
		}
		if err := req.method(r, OpBlobGet, "GET", OpBlobHead, "HEAD", OpBlobDelete, "DELETE"); err != nil {
			return req, err
		}
		return req, req.digest(last)

	case kind == "uploads":
		name, ok := strings.CutSuffix(name, "/blobs")
		if !ok {
			return req, errNotFound
		}
		if err := req.name(name); err != nil {
			return req, err
		}
		if last == "" {
			return req, req.post(r, query)
		}
		if err := req.method(r, OpUploadPatch, "PATCH", OpUploadPut, "PUT", OpUploadStatus, "GET", OpUploadStatus, "HEAD", OpUploadCancel, "DELETE"); err != nil {
			return req, err
		}
		req.UploadID = last
		if req.Op == OpUploadPut {
			// Not checked: first of all, the session must be there.
			req.Digest = digest.Digest(strings.Clone(query.Get("digest")))
		}
		return req, nil
	}
	return req, errNotFound
}

// post parses a POST to .../blobs/uploads/: end-4a, end-4b, end-4c and end-11.
func (req *Request) post(r *http.Request, query url.Values) error {
	if err := req.method(r, OpUploadStart, "POST"); err != nil {
		return err
	}
	if a := query.Get("digest-algorithm"); a != "" {
		req.Algorithm = digest.Algorithm(a)
		if !req.Algorithm.Available() {
			return errBadAlgorithm
		}
	}
	switch {
	case query.Has("mount"):
		req.Op = OpBlobMount
		req.From = query.Get("from")
		if req.From != "" && !validName(req.From) {
			return ErrNameInvalid
		}
		return req.digest(query.Get("mount"))
	case query.Has("digest"):
		req.Op = OpBlobPush
		return req.digest(query.Get("digest"))
	}
	return nil
}

// method sets the Op whose method r has, of pairs of an Op and a method.
func (req *Request) method(r *http.Request, pairs ...any) error {
	var allow []string
	for i := 0; i < len(pairs); i += 2 {
		method := pairs[i+1].(string)
		if r.Method == method {
			req.Op = pairs[i].(Op)
			return nil
		}
		allow = append(allow, method)
	}
	return methodNotAllowed(allow...)
}

func methodNotAllowed(allow ...string) *Error {
	return &Error{
		Status:  http.StatusMethodNotAllowed,
		Code:    "UNSUPPORTED",
		Message: "method not allowed",
		Header:  http.Header{"Allow": {strings.Join(allow, ", ")}},
	}
}

// name sets the repository from a path that ends before the endpoint's own
// part: "" or "/" and a name.
func (req *Request) name(path string) error {
	if path == "" {
		return errNotFound
	}
	req.Repo = path[1:]
	if !validName(req.Repo) {
		return ErrNameInvalid
	}
	return nil
}

func (req *Request) digest(s string) error {
	req.Digest = digest.Digest(strings.Clone(s)) // of a query, which may be long
	return checkDigest(req.Digest)
}

// reference sets the digest or the tag that names a manifest, and further
// tags.
func (req *Request) reference(s string, query url.Values) error {
	if strings.Contains(s, ":") {
		if err := req.digest(s); err != nil {
			return err
		}
		if req.Op == OpManifestPut {
			req.Tags = slices.Compact(slices.Sorted(slices.Values(query["tag"])))
		}
		for i, tag := range req.Tags {
			if !validTag(tag) {
				return fmt.Errorf("%w: badly formed tag", ErrNameInvalid)
			}
			req.Tags[i] = strings.Clone(tag)
		}
		return nil
	}
	req.Tag = s
	switch {
	case validTag(s):
		return nil
	case req.Op == OpManifestPut:
		return fmt.Errorf("%w: badly formed tag", ErrNameInvalid)
	}
	return ErrManifestUnknown
}

// page sets N and Last.
func (req *Request) page(query url.Values) error {
	req.Last = query.Get("last")
	if !query.Has("n") {
		return nil
	}
	s := query.Get("n")
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			s = ""
			break
		}
	}
	if s == "" {
		return fmt.Errorf("%w: n is not a number", ErrUnsupported)
	}
	n, err := strconv.Atoi(s)
	if err != nil { // digits alone: out of range
		n = math.MaxInt
	}
	req.N = n
	return nil
}

// URL returns the path and query that ParseRequest takes for req.
func (req Request) URL() string {
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

func blobURL(repo string, d digest.Digest) string {
	return "/v2/" + repo + "/blobs/" + d.String()
}

func manifestURL(repo, reference string) string {
	return "/v2/" + repo + "/manifests/" + reference
}

func uploadURL(repo, id string) string {
	return "/v2/" + repo + "/blobs/uploads/" + url.PathEscape(id)
}

// cutLast cuts path around its last slash. Without one, all of it is last.
func cutLast(path string) (before, last string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// maxName is the longest repository name. The spec has clients limit host and
// name together to 255 characters (section "Pulling manifests").
const maxName = 255

// validName reports whether s is a repository name:
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func validName(s string) bool {
	if len(s) > maxName {
		return false
	}
	separators := "/" // what stands since the last letter or digit; a name may not start with one
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			separators = ""
			continue
		}
		// What came so far must be such that c may follow it.
		switch {
		case c == '-' && strings.Trim(separators, "-") == "":
		case c == '_' && (separators == "" || separators == "_"):
		case (c == '.' || c == '/') && separators == "":
		default:
			return false
		}
		separators = s[i-len(separators) : i+1]
	}
	return s != "" && separators == ""
}

// validTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
func validTag(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 128
}

// checkDigest returns an error unless d is well formed and of an algorithm
// that can be computed here. It is what d.Validate does, without regular
// expressions: it runs at each request.
func checkDigest(d digest.Digest) error {
	algorithm, encoded, ok := strings.Cut(string(d), ":")
	if !ok || encoded == "" {
		return errBadDigest
	}
	a := digest.Algorithm(algorithm)
	if !a.Available() {
		if digest.DigestRegexpAnchored.MatchString(string(d)) {
			return errBadAlgorithm
		}
		return errBadDigest
	}
	if len(encoded) != a.Size()*2 {
		return errBadDigest
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errBadDigest
		}
	}
	return nil
}
