// SPDX-License-Identifier: Apache-2.0

// Package registry is a replacement for go-containerregistry's package of the
// same name: change an import of
//
//	github.com/google/go-containerregistry/pkg/registry
//
// to
//
//	github.com/berth-oci/registry/ggcr
//
// and nothing else. It has the same functions, types and quirks: all repositories
// share blobs, clients may choose the IDs of upload sessions, a manifest may be
// pushed before its blobs but an index only after its manifests, the referrers
// API is off and the log goes to standard error unless an option changes that, and
// errors have the same statuses and codes. It is named registry so that code that
// uses it need not change; a program that also imports the parent package must
// rename one of the two.
//
// The implementation is [github.com/berth-oci/registry]: a stalled client delays
// no other, no request and no faulty [BlobHandler] makes it panic, and content that
// is truncated or does not match its digest is never stored. Memory is unlimited,
// except that a manifest may not exceed 4 MiB.
//
// The package does not depend on go-containerregistry. In place of its v1.Hash,
// [Hash] is an unnamed type to which a v1.Hash can be assigned. [WithBlobHandler]
// accepts a handler whose methods take a v1.Hash. Such a handler need only be
// changed, to take a Hash, if it is assigned to the type [BlobHandler] or to one of
// its extensions, or returned as one. Since WithBlobHandler is generic, it can't be
// called with a bare nil, nor be used as a value without its type argument.
//
// Because of TLS, a program that imports this package also gets net/http/httptest
// and its flag, as with go-containerregistry. New programs should use the parent
// package, and [github.com/berth-oci/registry/registrytest] in their tests.
//
// # Deliberate differences
//
// The package differs from go-containerregistry's on purpose as follows:
//
//	here                                              go-containerregistry                    reason
//	------------------------------------------------  --------------------------------------  --------------------------------------
//	Uploads
//	a session belongs to its repository               any repository may use it               one user could write to another's
//	a session expires after an idle hour              sessions never expire                   memory
//	a second request to a session in use gets 416     all uploads wait for each other         a stalled client would stop all pushes
//	a body that is cut short gets 400                 it is accepted as complete              truncated content
//	a chunk whose length differs from its             the end is ignored                      truncated content
//	  Content-Range gets 400; the end may be the
//	  last byte's position, or the next one
//	a session supports GET and DELETE                 400                                     clients resume and cancel uploads
//	a mount of a known blob gets 201, one of a        202, and the client uploads the blob    the upload would be unnecessary
//	  malformed digest 400
//	without Put, PATCH gets 405 too                   only POST and PUT do                    the upload could not be completed
//	a Content-Range of a PUT must be that of the      it is ignored                           truncated content
//	  next chunk, else 416
//	POST with an empty digest gets 400                202                                     it is malformed
//	a session belongs to one registry                 to the in-memory handler, which         sessions are not blobs
//	                                                    several may share
//
//	Blobs
//	open-ended, suffix and multiple ranges work       416; of several, only the first         clients resume with "bytes=5-"
//	DELETE of an unknown blob gets 404                500                                     the mistake is the client's
//	SHA-512 digests work                              SHA-256 only                            the spec lists both
//	a malformed Range gets all of the blob            416                                     RFC 9110 section 14.2
//
//	Manifests
//	a malformed OCI or Docker manifest, or one with   any content is accepted, except an      clients would read different documents
//	  the mediaType of another type, gets 400           index that is not JSON                  (CVE-2021-41190)
//	content that does not match the digest in the     it is stored under both digests         a digest identifies its content
//	  URL gets 400
//	a manifest over 4 MiB gets 413                    no limit                                memory
//	a repository's name or a tag that the spec does   any name is accepted                    no client could use it elsewhere
//	  not allow gets 400; a tag in a GET, 404
//	a GET with a malformed digest or tag gets         that, or NAME_UNKNOWN                   it is not looked up
//	  MANIFEST_UNKNOWN
//	DELETE by digest deletes the tags too             the tags are still served               a deleted manifest must not be served
//	a repository ceases to exist with its last        it exists forever                       the catalog would list empty ones
//	  manifest
//	parameters of a Content-Type are dropped;         it is served unchanged                  a media type is stored, not a header
//	  without a Content-Type, mediaType is used
//	a push of the same bytes with another type gets   the last type counts                    clients that pulled the first would
//	  400                                                                                       read another document
//
//	Lists
//	n=-1 gets 400; a last past the end, no tags       a panic; all tags                       the spec
//	the catalog is sorted and paged                   neither                                 the spec
//	an empty list of tags is []                       null                                    the spec
//	an n that is not a number gets 400                the catalog ignores it, and both        the spec
//	                                                    ignore an empty one
//	HEAD of a list works                              400                                     RFC 9110
//	referrers have filters and pages, and their own   neither; the media type of the config   the spec
//	  artifactType
//
//	Blob handlers
//	Put is called with verified content, which is     a PUT is streamed, a PATCH is held in   no handler can store truncated content
//	  held in memory until then                         memory
//	Put is called with the repository's name          for a session, with "/blobs" appended   Get and Stat are called with the name
//	without Stat, and if Get does not return an       once; the content is copied to memory   memory
//	  io.Seeker, Get is called twice for a GET: for
//	  the size and for the content
//	Put of this package's handlers verifies content   it trusts the caller                    damaged content
//	Get of an unknown blob on disk: ErrNotFound       fs.ErrNotExist                          as for Stat
//	a RedirectError whose Code is no redirect gets    a panic, or that status                 a handler must not stop a request
//	  307
//	the text of RedirectError                         another text                            it names the status
//	the text of an internal error is only logged      clients see it too                      it may be confidential
//
//	Everything else
//	a method that /v2/ does not support gets 400      any method gets 200                     as for the other endpoints
//	only paths below /v2/ are served, without a       the first component may be any, and a   a proxy could interpret the path
//	  slash after a digest                              slash is ignored                        differently
//	a failed HEAD is logged without its code          with it                                 a HEAD response has no body
//	responses have more headers: Content-Type,        few headers                             the spec, and RFC 9110
//	  ETag, Location, Accept-Ranges; conditional
//	  requests work
package registry
