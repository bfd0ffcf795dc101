// SPDX-License-Identifier: Apache-2.0

// Package bucket keeps a registry's content in object storage: in a bucket of S3
// (or of a server with the same API, such as MinIO), of Google Cloud Storage or
// of Azure, in a directory, or in memory. All state is in the bucket, so any
// number of processes can serve the same registry without knowing of each other.
//
//	store, err := bucket.Open(ctx, "s3://name?region=eu-central-1", nil)
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//	http.ListenAndServe(":5000", registry.New(registry.WithStore(store)))
//
// # Layout
//
//	names/<name>                                  empty: a repository that has content
//	repos/<repository>/
//	  _blobs/<alg>/<hex>                          link: JSON that names the blob's data
//	  _manifests/<alg>/<hex>                      a line of JSON, then the manifest's bytes
//	  _referrers/<alg>/<hex>/<alg>/<hex>          by subject, then referrer: JSON of the referrer's descriptor
//	  _tagged/<alg>/<hex>/<tag>                   hint: this tag may point at this manifest
//	  _tags/<tag>                                 the digest and the write's ID; empty if the tag is deleted
//	blobs/<alg>/<hex>/
//	  condemned/<data>                            no new link may name this data
//	  data/<data>                                 content
//	  links/<data>/<link>/<repository>            inverse link: the repository has a link to this data
//	check/<uuid>                                  exists while Store.Check runs
//	uploads/<name>/_<id>/                         upload session of the repository whose flat name this is
//	  part-<uuid>                                 bytes appended through one lease
//	  state                                       JSON: the session's size, hash and parts
//
// A component of a repository's name never begins with "_". No key is a directory
// of another, since MinIO and file systems can't have both. That is why a
// repository's name below names/ and uploads/ is flat, and spelled with other
// characters: see flattenName.
//
// The time that StatBlob, Blobs and Manifests return is the object's modification
// time, by the bucket's clock. A push of content that the repository already has
// rewrites the link, or the manifest's object with the same bytes.
//
// # Protocols
//
// A process may stop at any line, and others may work in the same bucket at any
// moment. These rules keep the bucket consistent:
//
//   - Each object is written in one piece.
//   - An object that readers can find names only objects that already exist.
//   - If two operations could undo each other, each writes its own object before
//     it reads the other's, so at least one of them sees the other.
//   - Upload sessions are changed only by conditional writes. So are tags, except
//     by pushes that overwrite a tag whatever its value.
//
// A blob has a link in each of its repositories. The link names data, which gets
// a new name each time it is written; a mount writes another link. Only [Store.GC]
// deletes data, once the last link to it is gone.
//
// # Caveats
//
//   - Directories (file://) and memory (mem://) have no conditional writes, so
//     only one process may use them at a time: see [Store.Warnings]. Files are
//     moved into a directory from TMPDIR, which must be on the same file system.
//   - An S3-compatible server must support conditional writes (If-Match and
//     If-None-Match of PutObject) and have consistent lists. [Store.Check] tests
//     both. If the server rejects the checksums that the SDK sends, add
//     request_checksum_calculation=when_required to the URL.
//   - The clocks of the processes that use a bucket must agree to within a few
//     minutes.
//   - Three guarantees are weaker than in memory if processes race. A push that is
//     rejected because another process has moved the tag leaves its manifest,
//     without the tag. A push that overlaps a delete of the same manifest may
//     take effect after the delete although others have seen it before. And that
//     delete may leave the manifest's tags.
//   - A deleted tag leaves an empty object behind, since object stores have no
//     conditional delete. Lists of tags skip it.
//   - Azure can't start a list at a name: a page deep in a long list costs as much
//     as all pages before it.
//   - When an upload of several chunks, or of more than 5 GiB, is committed, its
//     bytes pass through this process once more; the provider copies other
//     uploads, unless they are small.
//   - An interrupted upload may leave the parts of a multipart upload, which S3
//     does not list as objects: add a lifecycle rule that aborts them
//     (AbortIncompleteMultipartUpload).
package bucket
