// SPDX-License-Identifier: Apache-2.0

// The registries that profiles are of. A comment names the source of each
// habit: a file of the registry's own source, a page of its documentation, or
// issues whose reporters show what came over the wire.

package registrytest

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// refused is an error of a real registry.
func refused(status int, code, message string) func(http.Handler) http.Handler {
	return Refuse(&registry.Error{Status: status, Code: code, Message: message})
}

// inUpload matches the requests whose answers tell where an upload is.
func inUpload(_ *http.Request, req registry.Request) bool {
	switch req.Op {
	case registry.OpUploadStart, registry.OpBlobPush, registry.OpBlobMount,
		registry.OpUploadPatch, registry.OpUploadPut, registry.OpUploadStatus:
		return true
	}
	return false
}

// atUploads matches a POST that opens an upload, or may.
func atUploads(r *http.Request, req registry.Request) bool {
	return r.Method == http.MethodPost && inUpload(r, req)
}

// anonymousMount matches a mount that leaves the choice of the source to the
// registry.
func anonymousMount(_ *http.Request, req registry.Request) bool {
	return req.Op == registry.OpBlobMount && req.From == ""
}

// oci10 is a registry of version 1.0 of the distribution-spec, which has no
// referrers API: section "Unavailable Referrers API".
func oci10() Profile {
	return Profile{Name: "OCI 1.0", options: []registry.Option{registry.WithReferrersSupport(false)}}
}

// distribution is what versions 2 and 3 have in common. Files are those of
// github.com/distribution/distribution at v2.8.3 and v3.1.1.
func distribution() Profile {
	return Profile{
		options: []registry.Option{
			registry.WithReferrersSupport(false), // no route in registry/api
			registry.NoDelete(),                  // "delete" in docs/content/about/configuration.md: off by default
		},
		habits: []Rule{
			// The router's own answer, in plain text.
			{Op: registry.OpReferrers, Fault: Answer(404, "404 page not found")},
			// registry/handlers/manifests.go: maxManifestBodySize is 4 MiB, and
			// what is larger is invalid, not too large.
			{Op: registry.OpManifestPut, Fault: insteadOf("SIZE_INVALID", 400, "MANIFEST_INVALID")},
			// registry/api/errcode/register.go: the status is 400, not 404.
			{Op: registry.OpManifestPut, Fault: insteadOf("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_BLOB_UNKNOWN")},
			// registry/handlers/catalog.go: 100 names by default; more than
			// catalog.maxentries (1,000) are refused.
			{Op: registry.OpCatalog, Match: pageTooLarge(1000), Fault: refused(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")},
			{Op: registry.OpCatalog, Fault: defaultPage(100)},
			// registry/handlers/blobupload.go, StartBlobUpload: digest is not
			// looked at, nor mount without from.
			{Op: registry.OpBlobPush, Fault: unheard("digest")},
			{Match: anonymousMount, Fault: unheard("mount")},
			// The same file, blobUploadResponse: "Range: 0-0" of no bytes.
			{Match: atUploads, Fault: freshRange("0-0")},
			// The same file, PutBlobUploadComplete: a PUT that fails cancels.
			{Op: registry.OpUploadPut, Fault: cancelOnFailure},
			// relativeurls in configuration.md: Locations are absolute.
			{Match: func(_ *http.Request, req registry.Request) bool {
				return inUpload(nil, req) || req.Op == registry.OpManifestPut
			}, Fault: answered(absolute)},
		},
	}
}

// distribution2 is the image registry:2.
func distribution2() Profile {
	p := distribution()
	p.Name = "distribution v2"
	p.habits = append(p.habits,
		// registry/handlers/tags.go: all tags, whatever n and last.
		Rule{Op: registry.OpTags, Fault: unheard("n", "last")},
		// registry/handlers/blobupload.go: Content-Range is not looked at
		// ("TODO").
		Rule{Op: registry.OpUploadPatch, Fault: asked(func(r *http.Request) { r.Header.Del("Content-Range") })},
		// The same file, the dispatcher: a Location holds for one request; with
		// an old one the upload is cancelled.
		Rule{Match: inUpload, Fault: uploadState(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
			inside(h, r, http.MethodDelete, r.URL.Path)
			registry.WriteError(w, r, &registry.Error{Status: 404, Code: "BLOB_UPLOAD_INVALID", Message: "blob upload invalid"})
		})},
		// registry/handlers/manifests.go, GetManifest: not even "*/*" will do.
		Rule{Op: registry.OpManifestGet, Fault: insistOnAccept(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex)},
		Rule{Op: registry.OpManifestHead, Fault: insistOnAccept(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex)},
		// manifest/schema1/manifest.go: what is of no known type is parsed as
		// schema 1, and fails.
		Rule{
			Op:    registry.OpManifestPut,
			Match: typesBut(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned),
			Fault: refused(400, "MANIFEST_INVALID", "manifest invalid"),
		},
	)
	// registry/api/errcode/handler.go.
	p.habits = append([]Rule{{Match: func(_ *http.Request, req registry.Request) bool { return req.Op != registry.OpReferrers }, Fault: errorType("application/json; charset=utf-8")}}, p.habits...)
	return p
}

// distribution3 is the image registry:3.
func distribution3() Profile {
	p := distribution()
	p.Name = "distribution v3"
	p.habits = append(p.habits,
		// registry/handlers/tags.go and configuration.md, "tags": a larger n
		// is taken for 1,000; without n come all.
		Rule{Op: registry.OpTags, Fault: largestPage(1000)},
		Rule{Op: registry.OpTags, Fault: insteadOf("UNSUPPORTED", 400, "PAGINATION_NUMBER_INVALID")},
		// registry/handlers/blobupload.go: 416 RANGE_INVALID for a chunk out of
		// order, and for an old Location.
		Rule{Op: registry.OpUploadPatch, Fault: insteadOf("BLOB_UPLOAD_INVALID", 416, "RANGE_INVALID")},
		Rule{Match: inUpload, Fault: uploadState(func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
			registry.WriteError(w, r, &registry.Error{Status: 416, Code: "RANGE_INVALID", Message: "invalid content range"})
		})},
		// registry/handlers/manifests.go, GetManifest.
		Rule{Op: registry.OpManifestGet, Fault: insistOnAccept(ocispec.MediaTypeImageManifest)},
		Rule{Op: registry.OpManifestHead, Fault: insistOnAccept(ocispec.MediaTypeImageManifest)},
		// The same file, UnmarshalManifest: no other types.
		Rule{
			Op:    registry.OpManifestPut,
			Match: typesBut(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList),
			Fault: refused(400, "MANIFEST_INVALID", "manifest invalid"),
		},
	)
	return p
}

const (
	profileUser     = "user"
	profilePassword = "password"
)

// dockerHub is registry-1.docker.io. Its API is in
// content/reference/api/registry/latest.yaml of github.com/docker/docs.
func dockerHub() Profile {
	return Profile{
		Name: "Docker Hub", User: profileUser, Password: profilePassword,
		// distribution/distribution#2624 has the challenge. A repository that
		// there is not is a 401 with insufficient_scope to the anonymous:
		// distribution/distribution#2924. So is the catalog to everybody:
		// docker/hub-feedback#2094, which also has the token's fields.
		login: bearer("/token", "registry.docker.io", public(auth.Pull, auth.Push, auth.Delete)),
		habits: []Rule{
			// docker/docs, content/manuals/docker-hub/usage/pulls.md.
			{Match: atManifest, Fault: header("Ratelimit-Limit", "100;w=21600")},
			{Match: atManifest, Fault: header("Ratelimit-Remaining", "76;w=21600")},
			{Match: atManifest, Fault: header("Docker-Ratelimit-Source", "192.0.2.1")},
			// latest.yaml: "Only digest-based deletion is allowed".
			{Op: registry.OpManifestDelete, Match: tagged, Fault: refused(405, "UNSUPPORTED", "Only digest-based deletion is allowed")},
			// latest.yaml, in its script: the Location of an upload has a query.
			{Match: inUpload, Fault: uploadState(nil)},
			// latest.yaml: "Range: 0-0" of no bytes.
			{Match: atUploads, Fault: freshRange("0-0")},
		},
		content: http.StatusTemporaryRedirect, // latest.yaml: 307 to a content delivery network
	}
}

// atManifest matches a pull of a manifest.
func atManifest(_ *http.Request, req registry.Request) bool {
	return req.Op == registry.OpManifestGet || req.Op == registry.OpManifestHead
}

// ghcr is ghcr.io.
func ghcr() Profile {
	const mib4 = 4 << 20
	return Profile{
		Name: "GHCR", User: profileUser, Password: profilePassword,
		login: bearer("/token", "ghcr.io", public(auth.Pull, auth.Push)),
		options: []registry.Option{
			registry.NoDelete(),                  // containers/skopeo#1880
			registry.WithReferrersSupport(false), // actions/attest-build-provenance#71
		},
		habits: []Rule{
			// oras-project/rust-oci-client#35: chunks, but no more than 4 MiB.
			{
				Op: registry.OpUploadPatch,
				Match: func(r *http.Request, _ registry.Request) bool {
					return r.Header.Get("Content-Range") != "" && r.ContentLength > mib4
				},
				Fault: refused(416, "REQUESTED_RANGE_NOT_SATISFIABLE", "the request body is too large and exceeds the maximum permissible limit of 4.00MiB"),
			},
			// The same issue: 400, not 404.
			{Op: registry.OpManifestPut, Fault: insteadOf("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_BLOB_UNKNOWN")},
			// dotnet/sdk-container-builds#292.
			{Op: registry.OpUploadPut, Fault: insteadOf("BLOB_UPLOAD_UNKNOWN", 404, "BLOB_UPLOAD_INVALID")},
			// smg-project/smg#2348: 100 tags by default.
			{Op: registry.OpTags, Fault: defaultPage(100)},
		},
		// apple/swift-container-plugin#44: "upload", not "uploads", in a path.
		uploads: [2]func(string) string{
			func(path string) string { return strings.Replace(path, "/blobs/uploads/", "/blobs/upload/", 1) },
			func(path string) string { return strings.Replace(path, "/blobs/upload/", "/blobs/uploads/", 1) },
		},
		content: http.StatusTemporaryRedirect, // containerd/stargz-snapshotter#167
	}
}

// ecr is Amazon's Elastic Container Registry, the private one. It knows a
// repository once it was created by another API; here one is created by the
// first push.
func ecr() Profile {
	return Profile{
		Name: "ECR", User: "AWS", Password: profilePassword,
		// AmazonECR/latest/userguide/registry_auth.html: Basic.
		// awslabs/aws-sigv4-proxy#237: the answer is a plain text.
		login: func(p Profile, h http.Handler) http.Handler {
			h = auth.Basic("ECR", auth.Users{p.User: p.Password}.Check, private(auth.Pull, auth.Push, auth.Delete)(h))(h)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				e := &editor{ResponseWriter: w}
				e.header = func(status int) bool {
					if status != http.StatusUnauthorized {
						return true
					}
					w.Header().Set("Www-Authenticate", `Basic realm="`+origin(r)+`/",service="ecr.amazonaws.com"`)
					http.Error(w, "Not Authorized", status)
					e.write = func([]byte) ([]byte, error) { return nil, nil }
					return false
				}
				h.ServeHTTP(e, r)
			})
		},
		habits: []Rule{
			// google/go-containerregistry#681: no more than 1,000 tags; and
			// genuinetools/reg#206: 100 by default.
			{Op: registry.OpTags, Match: pageTooLarge(1000), Fault: refused(405, "UNSUPPORTED", "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'")},
			{Op: registry.OpTags, Fault: defaultPage(100)},
			// oras-project/oras-go#237: no digest with a GET by tag.
			{Op: registry.OpManifestGet, Match: tagged, Fault: header("Docker-Content-Digest", "")},
			// aws/containers-roadmap#2831: 201 to a PATCH.
			{Op: registry.OpUploadPatch, Fault: answered(func(_ *http.Request, a *httptest.ResponseRecorder) {
				if a.Code == http.StatusAccepted {
					a.Code = http.StatusCreated
				}
			})},
			// AmazonECR/latest/userguide/blob-mounting.html: not unless the
			// account turns it on.
			{Op: registry.OpBlobMount, Fault: unheard("mount", "from")},
			// regclient/regclient#81.
			{Match: inUpload, Fault: answered(absolute)},
			// falcosecurity/falcoctl#302.
			{Op: registry.OpManifestPut, Fault: insteadOf("MANIFEST_INVALID", 405, "UNSUPPORTED")},
		},
	}
}

// gar is Google's Artifact Registry.
func gar() Profile {
	uploads := regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]+)$`)
	own := regexp.MustCompile(`^/artifacts-uploads/namespaces/(.+)/uploads/([^/]+)$`)
	return Profile{
		Name: "GAR", User: profileUser, Password: profilePassword,
		// oras-project/oras#157.
		login: bearer("/v2/token", "us-docker.pkg.dev", public(auth.Pull, auth.Push, auth.Delete)),
		habits: []Rule{
			// cue-labs/oci, ociregistry/ociclient/lister.go: all tags,
			// whatever n and last.
			{Op: registry.OpTags, Fault: unheard("n", "last")},
			// enix/kube-image-keeper#636: first its tags, then the manifest.
			{Op: registry.OpManifestDelete, Fault: whileTagged(refused(400, "GOOGLE_MANIFEST_DANGLING_TAG", "Manifest is still referenced by tag"))},
		},
		// oras-project/rust-oci-client#175.
		uploads: [2]func(string) string{
			func(path string) string {
				return uploads.ReplaceAllString(path, "/artifacts-uploads/namespaces/$1/uploads/$2")
			},
			func(path string) string { return own.ReplaceAllString(path, "/v2/$1/blobs/uploads/$2") },
		},
	}
}

// quay is quay.io. Files are those of github.com/quay/quay.
func quay() Profile {
	return Profile{
		Name: "Quay", User: profileUser, Password: profilePassword,
		// endpoints/v2/v2auth.py: by GET alone, and the answer has nothing but
		// the token.
		login: bearer("/v2/auth", "quay.io", public(auth.Pull, auth.Push, auth.Delete), only("token"),
			noPost(&registry.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "method not allowed"})),
		habits: []Rule{
			// endpoints/v2/__init__.py: 100 tags, and no more.
			{Op: registry.OpTags, Fault: largestPage(100)},
			{Op: registry.OpTags, Fault: defaultPage(100)},
			// endpoints/v2/blob.py.
			{Match: atUploads, Fault: freshRange("bytes=0--1")},
			{Op: registry.OpUploadStatus, Fault: answered(func(_ *http.Request, a *httptest.ResponseRecorder) {
				a.Header().Del("Location")
				if last := a.Header().Get("Range"); last != "" {
					a.Header().Set("Range", "bytes="+last)
				}
			})},
			{Match: inUpload, Fault: answered(absolute)},
			{Match: anonymousMount, Fault: unheard("mount")},
			{Op: registry.OpUploadPut, Fault: insteadOf("DIGEST_INVALID", 400, "BLOB_UPLOAD_INVALID")},
			{Op: registry.OpBlobDelete, Fault: refused(405, "UNSUPPORTED", "The operation is unsupported.")},
			// endpoints/v2/manifest.py.
			{
				Op:    registry.OpManifestPut,
				Match: typesBut("", "application/json", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned),
				Fault: refused(415, "MANIFEST_INVALID", "manifest schema version not supported"),
			},
			{Op: registry.OpManifestPut, Fault: insteadOf("DIGEST_INVALID", 400, "MANIFEST_INVALID")},
			{Op: registry.OpManifestPut, Fault: insteadOf("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_INVALID")},
			{Op: registry.OpManifestPut, Fault: header("OCI-Subject", "")},
			{Match: atManifest, Fault: header("Etag", "")},
			// endpoints/v2/referrers.py: not of what is not there.
			{Op: registry.OpReferrers, Fault: unlessManifest(refused(400, "MANIFEST_INVALID", "manifest invalid"))},
		},
		content: http.StatusFound, // blob.py, download_blob: a flask redirect, 302
	}
}

// harbor is goharbor/harbor, of whose source the files are.
func harbor() Profile {
	return Profile{
		Name: "Harbor", User: profileUser, Password: profilePassword,
		// src/core/service/token/creator.go, src/server/middleware/v2auth/auth.go.
		login: bearer("/service/token", "harbor-registry", public(auth.Pull, auth.Push, auth.Delete)),
		habits: []Rule{
			// src/lib/errors/const.go: one code for all that is not there.
			{Match: atManifest, Fault: insteadOf("NAME_UNKNOWN", 404, "NOT_FOUND")},
			{Match: atManifest, Fault: insteadOf("MANIFEST_UNKNOWN", 404, "NOT_FOUND")},
			{Op: registry.OpTags, Fault: insteadOf("NAME_UNKNOWN", 404, "NOT_FOUND")},
			// src/server/registry/util/util.go.
			{Op: registry.OpTags, Fault: insteadOf("UNSUPPORTED", 400, "BAD_REQUEST")},
			// src/server/registry/manifest.go, deleteManifest.
			{Op: registry.OpManifestDelete, Match: tagged, Fault: refused(400, "UNSUPPORTED", "unsupported digest")},
			// goharbor/harbor#12457; and uploads are distribution's.
			{Op: registry.OpBlobPush, Fault: unheard("digest")},
			{Match: anonymousMount, Fault: unheard("mount")},
			{Match: inUpload, Fault: uploadState(nil)},
			{Op: registry.OpUploadPut, Fault: cancelOnFailure},
		},
	}
}

// artifactory is JFrog's Artifactory.
func artifactory() Profile {
	const path = "/artifactory/api/docker/docker/v2/token"
	return Profile{
		Name: "Artifactory", User: profileUser, Password: profilePassword,
		// containerd/containerd#6339 has the challenge; containerd/containerd#2170:
		// a POST without credentials is a 401, not a 404 or 405, and clients
		// must turn to GET.
		login: bearer(path, "artifactory", public(auth.Pull, auth.Push, auth.Delete), noPost(registry.ErrUnauthorized)),
	}
}
