// SPDX-License-Identifier: Apache-2.0

// Package bucket keeps a registry's content in object storage: in a bucket of S3
// (or of a server with the same API, such as MinIO), of Google Cloud Storage or
// of Azure, in a directory, or in memory. All state is in the bucket, so any
// number of processes can serve the same registry without knowing of each other.
// Requests to Google use its REST APIs, without Google's client, which links gRPC.
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
//	names/<name>                                  register: a repository that has content
//	repos/<repository>/
//	  _blobs/<alg>/<hex>                          register: a link, JSON that names the blob's data
//	  _manifests/<alg>/<hex>                      register: a line of JSON, then the manifest's bytes
//	  _packs/<alg>/<hex>/<digit>                  by subject: a cache of its referrers' descriptors
//	  _referrers/<alg>/<hex>/<alg>/<hex>/<inc>    empty; by subject, then referrer
//	  _tagged/<alg>/<hex>/<inc>/<id>/<tag>        hint, empty: this write may point the tag at this manifest
//	  _tags/<tag>                                 register: the digest, incarnation and hint
//	blobs/<alg>/<hex>/
//	  condemned/<data>                            no new link may name this data
//	  data/<data>                                 content
//	  links/<data>/<link>/<repository>            inverse link: the repository has a link to this data
//	check/<uuid>                                  exists while a process tests the bucket, or its clock
//	uploads/<name>/_<id>/                         upload session of the repository whose flat name this is
//	  part-<uuid>                                 bytes appended through one lease
//	  state                                       register: the session's size, hash, parts and phase
//
// A component of a repository's name never begins with "_". No key is a directory
// of another, since MinIO and file systems can't have both. That is why a
// repository's name below names/ and uploads/ is flat, and spelled with other
// characters: see flattenName. In a directory, a key is the path of a file, unless its
// last component is very long or ends in ".attrs": see fileKey in internal/objects.
//
// The time that StatBlob, Blobs and Manifests return is the object's modification
// time, by the bucket's clock. A push of content that the repository already has
// rewrites the link, or the manifest.
//
// # Protocols
//
// A process may stop at any line, its requests may arrive late, or twice, and others
// may work in the same bucket at any moment. These rules keep the bucket consistent:
//
//   - Each object is written in one piece.
//   - Objects that change are registers. They change only by conditional writes, each
//     of which has an ID of its own and names those before it. So a writer that has
//     lost a response reads the register, and knows whether its write took effect; a
//     write that arrives late finds another value, and has no effect. Nothing else is
//     repeated that could do harm. A register is deleted by a write, too.
//   - The key of any other object is used once.
//   - An object that readers can find names only objects that already exist.
//   - If two operations could undo each other, each writes its own object before
//     it reads the other's, so at least one of them sees the other.
//   - Ages are measured by the bucket's clock.
//
// A blob has a link in each of its repositories. The link names data, which gets
// a new name each time it is written; a mount writes another link. Only [Store.GC]
// deletes data, once the last link to it is gone.
//
// A manifest that is pushed after it was deleted is another incarnation. A tag names
// the incarnation, so the write that deletes a manifest also deletes the tags that
// point at it. [Store.DeleteManifest] explains how pushes and deletes meet.
//
// The simulation in this package's tests runs fleets of replicas in fake time, with
// all of these faults, and checks the histories for linearizability.
//
// # Damage
//
// Manifests, and blobs that are read from the first byte to the last, are verified. A
// damaged manifest is an error, and a blob breaks off before its last bytes. Data that
// is missing, or has another size, is an error when it is opened. If a second look
// confirms the damage, the repository loses the blob: a HEAD responds with 404, by
// which clients learn that they must push it again. Objects that can't be read are
// replaced by pushes, and deleted by deletes. A part of a blob is not verified, and
// neither is a blob that a client downloads after a redirect. [Store.Scrub] reads
// everything.
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
//   - A request must not arrive more than a quarter of an hour late. S3 rejects
//     those, by their signatures.
//   - Some guarantees are weaker than in memory while requests race: see
//     docs/scaling.md, "Races".
//   - What was deleted leaves a register of some 200 bytes behind. GC removes it
//     if the bucket has conditional deletes: S3, Google and Azure do, MinIO does
//     not. Lists skip it.
//   - Azure can't start a list at a name: a page deep in a long list costs as much
//     as all pages before it.
//   - When an upload of several chunks, or of more than 5 GiB, is committed, its
//     bytes pass through this process once more; the provider copies other
//     uploads, unless they are small.
//   - GC aborts the multipart uploads that stopped processes have left. Where a
//     server does not list them by prefix, as MinIO, its own expiry does.
package bucket
