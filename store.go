// SPDX-License-Identifier: Apache-2.0

// The contract between the handlers and a store.

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Store holds a registry's content and names. It knows nothing of JSON and
// paths: names, tags and digests are valid when they reach it, and manifests are
// parsed.
//
// Each store keeps these promises, which package storetest tests:
//   - It is safe for concurrent use.
//   - It holds no lock while bytes move: in Read, in ReadFrom, in a yield. A
//     slow caller delays no other.
//   - Tags move last and atomically. A reader never finds a tag whose manifest
//     can't be read.
//   - A blob can be read only through a repository that it was pushed or
//     mounted to, until it is deleted there.
//   - A repository exists while it holds a blob or a manifest.
//   - Lists are in byte order and start after a name. A page costs in
//     proportion to its own size, not to the repository's.
//   - Acknowledged content is kept until it is deleted.
//
// Errors are this package's values, wrapped: see [Error]. Any other error is a
// failure of the store, which a client sees as a 500 without its text.
//
// The interfaces may gain methods. Each new one will have an implementation in
// [UnimplementedStore] that returns ErrUnsupported, and the registry will do
// without it, as it does without StatBlob, FindBlob, MountBlob and PublishedUpload. Embed
// UnimplementedStore in a store of your own so that it compiles with later versions.
// A store that embeds another Store, to hide content for example, must override each
// method that would reveal it, those of later versions too.
type Store interface {
	BlobStore
	ManifestStore
	Collector
}

// BlobStore is the half of a Store that holds blobs and uploads.
type BlobStore interface {
	// StatBlob returns the size and time of a blob. It counts as a use: see
	// [Collector].
	// Errors: ErrNameUnknown, ErrBlobUnknown.
	StatBlob(ctx context.Context, repo string, d digest.Digest) (Info, error)

	// OpenBlob returns the content of a blob. The content can be read to its
	// end even if the blob is deleted meanwhile. If opening costs nothing until
	// the first Read, the result should have a method Prepare() error, which the
	// registry calls after Seek and before it sends the status of the response:
	// it returns the error that Read would.
	// Errors: ErrNameUnknown, ErrBlobUnknown.
	OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error)

	// Blobs yields the blobs of a repository in the order of their digests,
	// after a digest or "" for all.
	// Errors: ErrNameUnknown.
	Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Info, error]

	// MountBlob makes a blob of the repository from readable through repo
	// too, without a copy.
	// Errors: ErrNameUnknown, ErrBlobUnknown if from has no such blob.
	MountBlob(ctx context.Context, repo, from string, d digest.Digest) error

	// FindBlob yields the repositories that have a blob. A store without such
	// an index yields nothing.
	FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error]

	// DeleteBlob makes a blob unreadable through repo.
	// Errors: ErrNameUnknown, ErrBlobUnknown.
	DeleteBlob(ctx context.Context, repo string, d digest.Digest) error

	// CreateUpload opens an upload session in repo, and leases it to the
	// caller. An ID belongs to its repository.
	// Errors: ErrTooManyUploads, ErrBlobUploadInvalid if opts.ID is in use,
	// ErrDigestInvalid if opts.Algorithm is unknown.
	CreateUpload(ctx context.Context, repo string, opts UploadOptions) (Upload, error)

	// ResumeUpload leases an upload session of repo to the caller.
	// Errors: ErrBlobUploadUnknown, ErrUploadBusy while another caller has
	// the lease.
	ResumeUpload(ctx context.Context, repo, id string) (Upload, error)

	// UploadSize returns the number of bytes in an upload session, leased or
	// not. It may not include what the current lease has appended. Calling it
	// resets the session's idle timer.
	// Errors: ErrBlobUploadUnknown.
	UploadSize(ctx context.Context, repo, id string) (int64, error)

	// CancelUpload ends an upload session, leased or not, and discards its bytes
	// at once, even while the holder of the lease waits for more in ReadFrom. From
	// then on the ID can be used again, and the holder gets ErrBlobUploadUnknown.
	// Errors: ErrBlobUploadUnknown.
	CancelUpload(ctx context.Context, repo, id string) error

	// PublishedUpload returns the digest of the blob that an upload session of
	// repo was published as. A client that has lost the response to its last
	// request repeats the request, and the registry then repeats the response. A
	// store may forget a session after some minutes, or at once.
	// Errors: ErrBlobUploadUnknown.
	PublishedUpload(ctx context.Context, repo, id string) (digest.Digest, error)
}

// inMemory is a Store whose calls take no time worth waiting for.
type inMemory interface{ inMemory() }

// unwrap returns the store that s adds something to, or s.
func unwrap(s Store) Store {
	for {
		outer, ok := s.(interface{ Unwrap() Store })
		if !ok {
			return s
		}
		s = outer.Unwrap()
	}
}

// Info describes a blob or a manifest in a repository.
type Info struct {
	Digest digest.Digest

	// Size is the size of the content in bytes.
	Size int64

	// Time is when the content was last pushed or mounted to the repository,
	// by the store's clock. It may be later if another repository shares the
	// content, or if the content was used since: see [Collector].
	Time time.Time
}

// UploadOptions are the options of CreateUpload.
type UploadOptions struct {
	// ID is the session's ID; if it is empty, the store makes one.
	ID string
	// Algorithm is the digest algorithm to compute while bytes arrive; empty
	// for SHA-256. Commit accepts a digest of any algorithm.
	Algorithm digest.Algorithm
}

// Upload is the lease of an upload session. One caller at a time has it, until
// Close; then its methods fail with ErrBlobUploadUnknown or do nothing. A session
// that is idle for too long ends like a cancelled one, even if it is leased. An
// Upload is not safe for concurrent use.
type Upload interface {
	// ReadFrom appends the bytes of r until its end. On an error, of r or of
	// the store, the bytes before it stay appended.
	// Errors: ErrBlobUploadUnknown if the session was cancelled, ErrTooLarge
	// if the store is full.
	io.ReaderFrom

	// ID returns the session's ID.
	ID() string

	// Size returns the number of bytes in the session.
	Size() int64

	// Commit publishes the session's bytes as the blob d of its repository,
	// and ends the session, both or neither.
	// Errors: ErrDigestInvalid if d is not the digest of the bytes,
	// ErrBlobUploadUnknown if the session was cancelled.
	Commit(ctx context.Context, d digest.Digest) error

	// Rollback discards the bytes appended through this lease, unless they
	// are published.
	Rollback() error

	// Close ends the lease. Unless Commit has succeeded, the session keeps the
	// appended bytes and can be resumed.
	io.Closer
}

// AllowFunc decides whether a tag may be moved or deleted. It gets the digest
// that the tag points at, "" for a new tag; the error that it returns rejects the
// entire operation, and becomes the operation's error. Between the call and the
// move nothing else moves the tag.
//
// It must return at once and must not call the store. It may be called more
// than once for a tag.
type AllowFunc func(tag string, current digest.Digest) error

// ManifestStore is the half of a Store that holds manifests, tags and
// referrers.
type ManifestStore interface {
	// GetManifest returns the manifest with the given digest.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	GetManifest(ctx context.Context, repo string, d digest.Digest) (Manifest, error)

	// StatManifest returns the size and time of a manifest. It counts as a use:
	// see [Collector].
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	StatManifest(ctx context.Context, repo string, d digest.Digest) (Info, error)

	// GetTag returns the manifest that a tag points at.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	GetTag(ctx context.Context, repo, tag string) (Manifest, error)

	// PutManifest stores m and points tags at it, all or nothing. Unless allow
	// is nil, it is called for each tag.
	// Errors: ErrManifestInvalid if the repository has a manifest with the same
	// digest and another media type or other content: a push must neither change
	// the meaning of a digest nor be acknowledged without effect. See
	// [Manifest.CheckSame]. ErrManifestBlobUnknown if the repository lacks content
	// that m names: a store need not check that, since the registry has done so
	// just before, unless its Collector may have deleted it meanwhile.
	//
	// If a tag is rejected because another process has moved it meanwhile, the
	// manifest may stay, without tags: others may have pushed it too.
	PutManifest(ctx context.Context, repo string, m Manifest, tags []string, allow AllowFunc) error

	// DeleteManifest deletes a manifest with each tag that points at it, and
	// removes it from its subject's referrers.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error

	// DeleteTag deletes a tag, and leaves the manifest. Unless allow is nil, it
	// is called for the tag.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	DeleteTag(ctx context.Context, repo, tag string, allow AllowFunc) error

	// Manifests yields the manifests of a repository in the order of their
	// digests, after a digest or "" for all.
	// Errors: ErrNameUnknown.
	Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Info, error]

	// Tags yields the tags after a name, "" for all.
	// Errors: ErrNameUnknown.
	Tags(ctx context.Context, repo, after string) iter.Seq2[string, error]

	// Referrers yields the manifests in repo whose subject is the given
	// digest, in the order of their digests, after a digest or "" for all. It
	// yields nothing if there are none, or no such repository.
	Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[Referrer, error]

	// Repositories yields the names of the repositories after a name, "" for
	// all.
	Repositories(ctx context.Context, after string) iter.Seq2[string, error]
}

// Collector is the part of a Store that removes content which nobody needs, for
// garbage collection while clients push and pull: see package retention.
//
// A client that finds content in a repository, and so does not push it, will push a
// manifest that names it. Until then nothing does. So content may be collected only
// if it has not been used since a time long enough ago. A use is a push, a mount, and
// a call of StatBlob or StatManifest, which the registry makes for all that a manifest
// names before it calls PutManifest. Content that is used while it is collected either
// stays, or the use fails because the content is unknown.
//
// A store that looks at Manifest.Blobs and Manifests in PutManifest, as part of the
// same change, can collect even content that was used a moment ago: MemStore and
// package ocidir do. Others need time from a use to the PutManifest.
type Collector interface {
	// Now returns the time by the clock of the store's times, such as those in
	// Info.
	Now(ctx context.Context) (time.Time, error)

	// CollectBlobs deletes those of the blobs of repo that were not used since
	// a time, and returns them. It ignores blobs that do not exist.
	CollectBlobs(ctx context.Context, repo string, blobs []digest.Digest, since time.Time) ([]Info, error)

	// CollectManifests deletes, in their order, those of the manifests of repo
	// that have no tags and were not used since a time, and returns them. It
	// ignores manifests that do not exist.
	CollectManifests(ctx context.Context, repo string, manifests []digest.Digest, since time.Time) ([]Info, error)

	// CollectRest removes what is in no repository and has not been used since
	// a time: uploads that were given up, repositories without content, and what
	// crashes have left. A store may need several calls, some time apart, to free
	// the bytes of content that no repository has anymore.
	CollectRest(ctx context.Context, since time.Time) (Collected, error)
}

// Collected counts what CollectRest has removed.
type Collected struct {
	// Blobs is the number of blobs that no repository had anymore, and Bytes
	// their size.
	Blobs int
	Bytes int64

	// Uploads is the number of uploads that were given up.
	Uploads int
}

// Manifest is a manifest as a Store holds it: its bytes, and a few facts.
type Manifest struct {
	// MediaType is the Content-Type of the push.
	MediaType string

	// Digest is the digest that it is stored under: of Content or, for a
	// signed Docker schema 1 manifest, of its payload.
	Digest digest.Digest

	// Content is exactly the pushed bytes. It must not be changed.
	Content []byte

	// Subject is the digest of the manifest that this one refers to, if any,
	// and Referrer its entry in the subject's list of referrers. A store may
	// leave them out of the results of GetManifest and GetTag.
	Subject  digest.Digest
	Referrer Referrer

	// Blobs and Manifests are the digests of the content that a manifest to be
	// pushed names, and that the repository must have, unless Sparse is set. They
	// are not part of the results of GetManifest and GetTag.
	Blobs, Manifests []digest.Digest
	Sparse           bool
}

// CheckSame returns ErrManifestInvalid if m can't be pushed to a repository that
// has old under the same digest: with another media type clients would read
// another document, and the payload of a signed Docker schema 1 manifest has the
// same digest with other signatures.
func (m Manifest) CheckSame(old Manifest) error {
	switch {
	case m.MediaType != old.MediaType:
		return fmt.Errorf("%w: the repository has it with the media type %s", ErrManifestInvalid, old.MediaType)
	case !bytes.Equal(m.Content, old.Content):
		return fmt.Errorf("%w: the repository has it with other signatures", ErrManifestInvalid)
	}
	return nil
}

// Referrer is an entry in a list of referrers (section "Listing Referrers").
type Referrer struct {
	// Digest is the digest of the referring manifest.
	Digest digest.Digest

	// ArtifactType is the type that lists are filtered by.
	ArtifactType string

	// Descriptor is the JSON of the manifest's descriptor, with its
	// artifactType and annotations. It must not be changed.
	Descriptor json.RawMessage
}
