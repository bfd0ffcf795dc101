// SPDX-License-Identifier: Apache-2.0

// The profiles. A comment on each quirk names its source: a file of the registry's
// own source, a page of its documentation, or an issue whose reporter shows the
// requests and responses.

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

// oci10 is a registry that implements version 1.0 of the distribution-spec, which
// has no referrers API: section "Unavailable Referrers API".
func oci10() Profile {
	return Profile{Name: "OCI 1.0", options: []registry.Option{registry.WithReferrersSupport(false)}}
}

// distribution has the quirks that versions 2 and 3 share. Files are in
// github.com/distribution/distribution at v2.8.3 and v3.1.1.
func distribution() Profile {
	return Profile{
		options: []registry.Option{
			registry.WithReferrersSupport(false), // no route in registry/api
			registry.NoDelete(),                  // "delete" in docs/content/about/configuration.md: off by default
		},
		quirks: []Rule{
			// The router's own response, in plain text.
			{Op: registry.OpReferrers, Fault: Respond(404, "404 page not found")},
			// registry/handlers/manifests.go: maxManifestBodySize is 4 MiB; a
			// larger manifest is invalid, not too large.
			{Op: registry.OpManifestPut, Fault: replaceError("SIZE_INVALID", 400, "MANIFEST_INVALID")},
			// registry/api/errcode/register.go: the status is 400, not 404.
			{Op: registry.OpManifestPut, Fault: replaceError("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_BLOB_UNKNOWN")},
			// registry/handlers/catalog.go: 100 names by default; rejects more
			// than catalog.maxentries (1,000).
			{Op: registry.OpCatalog, Match: pageLargerThan(1000), Fault: reject(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")},
			{Op: registry.OpCatalog, Fault: defaultPageSize(100)},
			// registry/handlers/blobupload.go, StartBlobUpload: ignores digest,
			// and mount without from.
			{Op: registry.OpBlobPush, Fault: ignoreParams("digest")},
			{Match: anonymousMount, Fault: ignoreParams("mount")},
			// The same file, blobUploadResponse: "Range: 0-0" for no bytes.
			{Match: opensUpload, Fault: initialRange("0-0")},
			// The same file, PutBlobUploadComplete: a PUT that fails cancels the
			// upload.
			{Op: registry.OpUploadPut, Fault: cancelOnFailure},
			// relativeurls in configuration.md: Locations are absolute.
			{Match: func(_ *http.Request, req registry.Request) bool {
				return hasUploadLocation(nil, req) || req.Op == registry.OpManifestPut
			}, Fault: rewriteResponse(absoluteLocation)},
		},
	}
}

// distribution2 is the image registry:2.
func distribution2() Profile {
	p := distribution()
	p.Name = "distribution v2"
	p.quirks = append(p.quirks,
		// registry/handlers/tags.go: ignores n and last, returns all tags.
		Rule{Op: registry.OpTags, Fault: ignoreParams("n", "last")},
		// registry/handlers/blobupload.go: ignores Content-Range ("TODO").
		Rule{Op: registry.OpUploadPatch, Fault: rewriteRequest(func(r *http.Request) { r.Header.Del("Content-Range") })},
		// The same file, the dispatcher: a Location is valid for one request; a
		// request to an old one cancels the upload.
		Rule{Match: hasUploadLocation, Fault: uploadState(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
			subrequest(h, r, http.MethodDelete, r.URL.Path)
			registry.WriteError(w, r, &registry.Error{Status: 404, Code: "BLOB_UPLOAD_INVALID", Message: "blob upload invalid"})
		})},
		// registry/handlers/manifests.go, GetManifest: not even "*/*" suffices.
		Rule{Op: registry.OpManifestGet, Fault: requireAccept(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex)},
		Rule{Op: registry.OpManifestHead, Fault: requireAccept(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex)},
		// manifest/schema1/manifest.go: a manifest of an unknown type is parsed
		// as schema 1, which fails.
		Rule{
			Op:    registry.OpManifestPut,
			Match: typeNotIn(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned),
			Fault: reject(400, "MANIFEST_INVALID", "manifest invalid"),
		},
	)
	// registry/api/errcode/handler.go: the Content-Type of errors.
	p.quirks = append([]Rule{{Match: func(_ *http.Request, req registry.Request) bool { return req.Op != registry.OpReferrers }, Fault: errorType("application/json; charset=utf-8")}}, p.quirks...)
	return p
}

// distribution3 is the image registry:3.
func distribution3() Profile {
	p := distribution()
	p.Name = "distribution v3"
	p.quirks = append(p.quirks,
		// registry/handlers/tags.go and configuration.md, "tags": reduces a
		// larger n to 1,000; returns all tags without n.
		Rule{Op: registry.OpTags, Fault: maxPageSize(1000)},
		Rule{Op: registry.OpTags, Fault: replaceError("UNSUPPORTED", 400, "PAGINATION_NUMBER_INVALID")},
		// registry/handlers/blobupload.go: 416 RANGE_INVALID for a chunk out of
		// order, and for an old Location.
		Rule{Op: registry.OpUploadPatch, Fault: replaceError("BLOB_UPLOAD_INVALID", 416, "RANGE_INVALID")},
		Rule{Match: hasUploadLocation, Fault: uploadState(func(_ http.Handler, w http.ResponseWriter, r *http.Request) {
			registry.WriteError(w, r, &registry.Error{Status: 416, Code: "RANGE_INVALID", Message: "invalid content range"})
		})},
		// registry/handlers/manifests.go, GetManifest.
		Rule{Op: registry.OpManifestGet, Fault: requireAccept(ocispec.MediaTypeImageManifest)},
		Rule{Op: registry.OpManifestHead, Fault: requireAccept(ocispec.MediaTypeImageManifest)},
		// The same file, UnmarshalManifest: rejects other types.
		Rule{
			Op:    registry.OpManifestPut,
			Match: typeNotIn(ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList),
			Fault: reject(400, "MANIFEST_INVALID", "manifest invalid"),
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
		// distribution/distribution#2624 shows the challenge. Anonymous requests
		// for an unknown repository get 401 with insufficient_scope:
		// distribution/distribution#2924. So do all requests for the catalog:
		// docker/hub-feedback#2094, which also shows the token response.
		login: bearer("/token", "registry.docker.io", publicPull(auth.Pull, auth.Push, auth.Delete)),
		quirks: []Rule{
			// docker/docs, content/manuals/docker-hub/usage/pulls.md.
			{Match: pullsManifest, Fault: setHeader("Ratelimit-Limit", "100;w=21600")},
			{Match: pullsManifest, Fault: setHeader("Ratelimit-Remaining", "76;w=21600")},
			{Match: pullsManifest, Fault: setHeader("Docker-Ratelimit-Source", "192.0.2.1")},
			// latest.yaml: "Only digest-based deletion is allowed".
			{Op: registry.OpManifestDelete, Match: byTag, Fault: reject(405, "UNSUPPORTED", "Only digest-based deletion is allowed")},
			// latest.yaml, its example script: the Location of an upload has a
			// query.
			{Match: hasUploadLocation, Fault: uploadState(nil)},
			// latest.yaml: "Range: 0-0" for no bytes.
			{Match: opensUpload, Fault: initialRange("0-0")},
		},
		blobRedirect: http.StatusTemporaryRedirect, // latest.yaml: 307 to a content delivery network
	}
}

// ghcr is ghcr.io.
func ghcr() Profile {
	const mib4 = 4 << 20
	return Profile{
		Name: "GHCR", User: profileUser, Password: profilePassword,
		login: bearer("/token", "ghcr.io", publicPull(auth.Pull, auth.Push)),
		options: []registry.Option{
			registry.NoDelete(),                  // containers/skopeo#1880
			registry.WithReferrersSupport(false), // actions/attest-build-provenance#71
		},
		quirks: []Rule{
			// oras-project/rust-oci-client#35: chunks of at most 4 MiB.
			{
				Op: registry.OpUploadPatch,
				Match: func(r *http.Request, _ registry.Request) bool {
					return r.Header.Get("Content-Range") != "" && r.ContentLength > mib4
				},
				Fault: reject(416, "REQUESTED_RANGE_NOT_SATISFIABLE", "the request body is too large and exceeds the maximum permissible limit of 4.00MiB"),
			},
			// The same issue: 400, not 404.
			{Op: registry.OpManifestPut, Fault: replaceError("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_BLOB_UNKNOWN")},
			// dotnet/sdk-container-builds#292.
			{Op: registry.OpUploadPut, Fault: replaceError("BLOB_UPLOAD_UNKNOWN", 404, "BLOB_UPLOAD_INVALID")},
			// smg-project/smg#2348: 100 tags by default.
			{Op: registry.OpTags, Fault: defaultPageSize(100)},
		},
		// apple/swift-container-plugin#44: "upload", not "uploads", in a path.
		uploadPaths: pathMapping{
			toClient:  func(path string) string { return strings.Replace(path, "/blobs/uploads/", "/blobs/upload/", 1) },
			toHandler: func(path string) string { return strings.Replace(path, "/blobs/upload/", "/blobs/uploads/", 1) },
		},
		blobRedirect: http.StatusTemporaryRedirect, // containerd/stargz-snapshotter#167
	}
}

// ecr is Amazon's private Elastic Container Registry. There, repositories must be
// created through another API; here, the first push creates one.
func ecr() Profile {
	return Profile{
		Name: "ECR", User: "AWS", Password: profilePassword,
		// AmazonECR/latest/userguide/registry_auth.html: Basic.
		// awslabs/aws-sigv4-proxy#237: the 401 response is plain text.
		login: func(p Profile, h http.Handler) http.Handler {
			h = auth.Basic("ECR", auth.Users{p.User: p.Password}.Check, usersOnly(auth.Pull, auth.Push, auth.Delete)(h))(h)
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
		quirks: []Rule{
			// google/go-containerregistry#681: at most 1,000 tags;
			// genuinetools/reg#206: 100 by default.
			{Op: registry.OpTags, Match: pageLargerThan(1000), Fault: reject(405, "UNSUPPORTED", "Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'")},
			{Op: registry.OpTags, Fault: defaultPageSize(100)},
			// oras-project/oras-go#237: no Docker-Content-Digest for a GET by tag.
			{Op: registry.OpManifestGet, Match: byTag, Fault: setHeader("Docker-Content-Digest", "")},
			// aws/containers-roadmap#2831: 201 for a PATCH.
			{Op: registry.OpUploadPatch, Fault: rewriteResponse(func(_ *http.Request, resp *httptest.ResponseRecorder) {
				if resp.Code == http.StatusAccepted {
					resp.Code = http.StatusCreated
				}
			})},
			// AmazonECR/latest/userguide/blob-mounting.html: disabled unless the
			// account enables it.
			{Op: registry.OpBlobMount, Fault: ignoreParams("mount", "from")},
			// regclient/regclient#81.
			{Match: hasUploadLocation, Fault: rewriteResponse(absoluteLocation)},
			// falcosecurity/falcoctl#302.
			{Op: registry.OpManifestPut, Fault: replaceError("MANIFEST_INVALID", 405, "UNSUPPORTED")},
		},
	}
}

// gar is Google's Artifact Registry.
func gar() Profile {
	standard := regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]+)$`)
	own := regexp.MustCompile(`^/artifacts-uploads/namespaces/(.+)/uploads/([^/]+)$`)
	return Profile{
		Name: "GAR", User: profileUser, Password: profilePassword,
		// oras-project/oras#157.
		login: bearer("/v2/token", "us-docker.pkg.dev", publicPull(auth.Pull, auth.Push, auth.Delete)),
		quirks: []Rule{
			// cue-labs/oci, ociregistry/ociclient/lister.go: ignores n and last,
			// returns all tags.
			{Op: registry.OpTags, Fault: ignoreParams("n", "last")},
			// enix/kube-image-keeper#636: a manifest can be deleted only after
			// its tags.
			{Op: registry.OpManifestDelete, Fault: ifTagged(reject(400, "GOOGLE_MANIFEST_DANGLING_TAG", "Manifest is still referenced by tag"))},
		},
		// oras-project/rust-oci-client#175.
		uploadPaths: pathMapping{
			toClient: func(path string) string {
				return standard.ReplaceAllString(path, "/artifacts-uploads/namespaces/$1/uploads/$2")
			},
			toHandler: func(path string) string { return own.ReplaceAllString(path, "/v2/$1/blobs/uploads/$2") },
		},
	}
}

// quay is quay.io. Files are in github.com/quay/quay.
func quay() Profile {
	return Profile{
		Name: "Quay", User: profileUser, Password: profilePassword,
		// endpoints/v2/v2auth.py: GET only; token is the response's only member.
		login: bearer("/v2/auth", "quay.io", publicPull(auth.Pull, auth.Push, auth.Delete), keepMembers("token"),
			rejectPost(&registry.Error{Status: http.StatusMethodNotAllowed, Code: "UNSUPPORTED", Message: "method not allowed"})),
		quirks: []Rule{
			// endpoints/v2/__init__.py: 100 tags by default and at most.
			{Op: registry.OpTags, Fault: maxPageSize(100)},
			{Op: registry.OpTags, Fault: defaultPageSize(100)},
			// endpoints/v2/blob.py.
			{Match: opensUpload, Fault: initialRange("bytes=0--1")},
			{Op: registry.OpUploadStatus, Fault: rewriteResponse(func(_ *http.Request, resp *httptest.ResponseRecorder) {
				resp.Header().Del("Location")
				if last := resp.Header().Get("Range"); last != "" {
					resp.Header().Set("Range", "bytes="+last)
				}
			})},
			{Match: hasUploadLocation, Fault: rewriteResponse(absoluteLocation)},
			{Match: anonymousMount, Fault: ignoreParams("mount")},
			{Op: registry.OpUploadPut, Fault: replaceError("DIGEST_INVALID", 400, "BLOB_UPLOAD_INVALID")},
			{Op: registry.OpBlobDelete, Fault: reject(405, "UNSUPPORTED", "The operation is unsupported.")},
			// endpoints/v2/manifest.py.
			{
				Op:    registry.OpManifestPut,
				Match: typeNotIn("", "application/json", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned),
				Fault: reject(415, "MANIFEST_INVALID", "manifest schema version not supported"),
			},
			{Op: registry.OpManifestPut, Fault: replaceError("DIGEST_INVALID", 400, "MANIFEST_INVALID")},
			{Op: registry.OpManifestPut, Fault: replaceError("MANIFEST_BLOB_UNKNOWN", 400, "MANIFEST_INVALID")},
			{Op: registry.OpManifestPut, Fault: setHeader("OCI-Subject", "")},
			{Match: pullsManifest, Fault: setHeader("Etag", "")},
			// endpoints/v2/referrers.py: rejects an unknown subject.
			{Op: registry.OpReferrers, Fault: ifSubjectMissing(reject(400, "MANIFEST_INVALID", "manifest invalid"))},
		},
		blobRedirect: http.StatusFound, // blob.py, download_blob: a Flask redirect, 302
	}
}

// harbor is Harbor. Files are in github.com/goharbor/harbor.
func harbor() Profile {
	return Profile{
		Name: "Harbor", User: profileUser, Password: profilePassword,
		// src/core/service/token/creator.go, src/server/middleware/v2auth/auth.go.
		login: bearer("/service/token", "harbor-registry", publicPull(auth.Pull, auth.Push, auth.Delete)),
		quirks: []Rule{
			// src/lib/errors/const.go: one code for anything not found.
			{Match: pullsManifest, Fault: replaceError("NAME_UNKNOWN", 404, "NOT_FOUND")},
			{Match: pullsManifest, Fault: replaceError("MANIFEST_UNKNOWN", 404, "NOT_FOUND")},
			{Op: registry.OpTags, Fault: replaceError("NAME_UNKNOWN", 404, "NOT_FOUND")},
			// src/server/registry/util/util.go.
			{Op: registry.OpTags, Fault: replaceError("UNSUPPORTED", 400, "BAD_REQUEST")},
			// src/server/registry/manifest.go, deleteManifest.
			{Op: registry.OpManifestDelete, Match: byTag, Fault: reject(400, "UNSUPPORTED", "unsupported digest")},
			// goharbor/harbor#12457; uploads are handled by distribution.
			{Op: registry.OpBlobPush, Fault: ignoreParams("digest")},
			{Match: anonymousMount, Fault: ignoreParams("mount")},
			{Match: hasUploadLocation, Fault: uploadState(nil)},
			{Op: registry.OpUploadPut, Fault: cancelOnFailure},
		},
	}
}

// artifactory is JFrog's Artifactory.
func artifactory() Profile {
	const path = "/artifactory/api/docker/docker/v2/token"
	return Profile{
		Name: "Artifactory", User: profileUser, Password: profilePassword,
		// containerd/containerd#6339 shows the challenge;
		// containerd/containerd#2170: a POST without credentials gets 401, not 404
		// or 405, and clients must fall back to GET.
		login: bearer(path, "artifactory", publicPull(auth.Pull, auth.Push, auth.Delete), rejectPost(registry.ErrUnauthorized)),
	}
}
