// SPDX-License-Identifier: Apache-2.0

// Package bucket keeps a registry's content in object storage: a bucket of S3
// (or of what speaks S3, as MinIO does), of Google Cloud Storage or of Azure,
// a directory, or memory. All state is in the bucket, so any number of
// processes serve the same registry without knowing of each other.
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
//	names/<name>                                  empty: a repository that holds something
//	repos/<repository>/
//	  _blobs/<alg>/<hex>                          link: JSON that names the data
//	  _manifests/<alg>/<hex>                      a line of JSON, and the manifest's bytes
//	  _referrers/<alg>/<hex>/<alg>/<hex>          of a subject: JSON of the referrer's descriptor
//	  _tagged/<alg>/<hex>/<tag>                   hint: this tag may point at this manifest
//	  _tags/<tag>                                 the digest; empty where the tag is deleted
//	blobs/<alg>/<hex>/
//	  condemned/<data>                            no link is to be made to this data any more
//	  data/<data>                                 content
//	  links/<data>/<link>/<repository>            which links there are to this data
//	check/<uuid>                                  for a moment, by Store.Check
//	uploads/<id>/
//	  part-<uuid>                                 what came through one lease
//	  state                                       JSON: what the session has
//
// A component of a repository's name never begins with "_". No key is another's
// directory: MinIO and file systems could not have both. That is why the name
// of a repository in names/ is flat, and of other characters: see nameKey.
//
// # How it stays right
//
// A process may stop at any line, and others work in the same bucket at every
// moment. So each object is written whole; what can be read names only what is
// already there; and where two could undo each other, one writes and then
// looks, the other looks after it has written: one of the two sees the other.
// What moves, which is tags and upload sessions, moves by conditional writes.
//
// A blob has a link in each repository, which names data under a fresh name;
// to mount is to write one more link. Nothing is deleted but by [Store.GC],
// once no link names it.
//
// # Caveats
//
//   - Directories (file://) and memory (mem://) have no conditional writes:
//     one process only may use them. [Store.Warnings] says so. Files are moved
//     into a directory from TMPDIR, which must be on the same file system.
//   - What is called S3 must have conditional writes (If-Match and
//     If-None-Match on PutObject) and lists that are consistent.
//     [Store.Check] tries it. Where it refuses the checksums that the SDK sends,
//     request_checksum_calculation=when_required in the URL helps.
//   - The clocks of processes that use a bucket must agree to some minutes.
//   - Where processes race, two things are looser than in memory. A push that
//     a condition refuses after another has moved the tag leaves its manifest,
//     without a tag. And a push that a delete of the same manifest overlaps
//     may take effect after it, though others saw it before.
//   - A deleted tag leaves an empty object behind, since object stores don't
//     delete conditionally. A list of tags passes over them.
//   - Azure can't list from a name on: a page deep in a long list costs the
//     pages before it.
//   - Of an upload of several chunks, or of more than 5 GiB, the bytes go
//     through this process once more when it is published; else the provider
//     copies them.
//   - An upload that is broken off may leave the parts of a multipart upload
//     that S3 does not list as objects: have a lifecycle rule abort them
//     (AbortIncompleteMultipartUpload).
package bucket
