// SPDX-License-Identifier: Apache-2.0

// Package registry stands in for go-containerregistry's package of that name:
// change an import of
//
//	github.com/google/go-containerregistry/pkg/registry
//
// to
//
//	github.com/berth-oci/registry/ggcr
//
// and nothing else. It has the same functions and types, and the same habits:
// blobs are shared by all repositories, a client may name an upload session, a
// manifest may be pushed before its blobs but an index only after its manifests,
// the referrers API is off and the log goes to standard error unless an option
// says otherwise, and errors have the statuses and codes of that package. It is
// named registry so that the code that uses it need not change; a program that
// needs the package above too has to rename one of them.
//
// Behind these habits is [github.com/berth-oci/registry]: a stalled client holds
// up no other, no request and no [BlobHandler] that breaks its promises makes it
// panic, and content that was cut short or does not have its digest is never
// stored. Memory is unlimited, but a manifest may have no more than 4 MiB.
//
// Nothing here depends on go-containerregistry. Its v1.Hash is [Hash] here, an
// unnamed type to which a v1.Hash can be assigned. [WithBlobHandler] takes a
// handler whose methods have v1.Hash as it is. Only if such a handler is assigned
// to the type [BlobHandler], or to one of its extensions, its methods must be
// changed to take a Hash.
//
// Because of TLS, a program that imports this package gets net/http/httptest and
// its flag, as with go-containerregistry's. New programs should use the package
// above, and [github.com/berth-oci/registry/registrytest] in their tests.
//
// # Deliberate differences
//
// Each of these is on purpose:
//
//	here                                             go-containerregistry               because
//	-----------------------------------------------  ---------------------------------  -------------------------------------
//	Uploads
//	a session belongs to its repository              any repository may use it          a user of one could write to another
//	a session that is idle for an hour ends          it stays for ever                  memory
//	a session in use: 416 for a second request       all uploads wait for one another   a stalled client would stop all pushes
//	a body that is cut short: 400                    it is taken for the whole          truncated content
//	a chunk that is longer or shorter than its       its end is ignored                 truncated content
//	  Content-Range: 400; the end may be the last
//	  byte's position, or the next
//	GET and DELETE of a session work                 400                                clients resume and cancel
//	a mount of a known blob: 201; one of a           202, and the client uploads it     an upload would be in vain
//	  malformed digest: 400
//	without Put, PATCH is rejected, with 405         only POST and PUT are              the upload could not end well
//
//	Blobs
//	open, suffix and several ranges are served       416; of several, the first         clients resume with "bytes=5-"
//	DELETE of an unknown blob: 404                   500                                it is the client's mistake
//	digests of SHA-512 too                           SHA-256 only                       the spec names both
//
//	Manifests
//	a malformed OCI or Docker manifest, or one with  any content is taken but for an    clients would read different documents
//	  the mediaType of another type: 400               index that is not JSON           (CVE-2021-41190)
//	content that lacks the digest in the URL: 400    it is stored, under both digests   a digest names its content
//	over 4 MiB: 413                                  no limit                           memory
//	a repository's name or a tag that the spec does  any name is taken                  no client could rely on it elsewhere
//	  not allow: 400, or 404 for a tag in a GET
//	of such a digest or tag: MANIFEST_UNKNOWN        or NAME_UNKNOWN                    it is not looked up
//	DELETE by digest deletes its tags                its tags are still served          it was to be deleted
//	a repository is unknown once its last manifest   it is known for ever               the catalog would name what is gone
//	  is deleted
//	parameters of a Content-Type are dropped;        it is served as it came            a media type, not a header, is stored
//	  without one, the manifest's mediaType counts
//
//	Lists
//	n=-1: 400; a last past the end: no tags          a panic; all tags                  the spec
//	the catalog is sorted and has pages              neither                            the spec
//	no tags: []                                      null                               the spec
//	referrers have annotations, filters and pages    none of these                      the spec
//
//	Blob handlers
//	Put is called with verified content, which is    PUT streams, PATCH is in memory    no handler can store truncated content
//	  in memory until then
//	Put is called with the repository's name         for a session, "/blobs" follows it Get and Stat are called with the name
//	without Stat and a Get that returns an           Get is called once, its content    memory
//	  io.Seeker, Get is called twice for a GET:        is copied to memory
//	  to find the size, and to read
//	Put of this package's handlers verifies          it trusts its caller               damaged content
//	Get of an unknown blob from disk: ErrNotFound    fs.ErrNotExist                     as Stat does
//	RedirectError with a Code that is no redirect's  a panic, or that status            a handler must not stop a request
//	  becomes 307
//	an internal error's text goes to the log         to the client too                  it may tell what is not for clients
//
//	Everything else
//	a method that the API's root lacks: 400          200 for any                        as for the other endpoints
//	only paths below /v2/ are served, and none with  the first part may be any, a       a proxy in front would read another
//	  a slash after a digest                           slash is ignored                 path
//	responses have more headers: Content-Type,       few                                the spec, and RFC 9110
//	  ETag, Location, Accept-Ranges; conditions on
//	  them work
package registry
