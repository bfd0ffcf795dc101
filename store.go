// SPDX-License-Identifier: Apache-2.0

// The contract that every backend keeps.

package registry

import (
	"context"
	"encoding/json"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
)

// Store keeps a registry's content and names. It knows nothing of JSON and
// paths: names, tags and digests reach it checked, and manifests parsed.
//
// What each backend promises, and package storetest tests:
//   - It is safe for concurrent use.
//   - It holds no lock while bytes move: in Read, in ReadFrom, in a yield. One
//     slow caller slows nobody.
//   - Tags move last and atomically. A reader never finds a tag whose manifest
//     cannot be read.
//   - A blob is readable only through a repository that it was pushed or
//     mounted to, until it is deleted there.
//   - A repository exists while it holds a blob or a manifest.
//   - Lists come in byte order and start after a name; a page costs what the
//     page holds, not what the repository holds.
//   - What was acknowledged is there until it is deleted.
//
// Errors are this package's values, wrapped: see [Error]. Any other error is
// the backend's own failure, which a client sees as a 500 without its text.
type Store interface {
	BlobStore
	ManifestStore
}

// BlobStore is the half of a Store that keeps blobs and uploads.
type BlobStore interface {
	// OpenBlob returns the content of a blob. What it returns can be read to
	// its end even when the blob is deleted meanwhile.
	// Errors: ErrNameUnknown, ErrBlobUnknown.
	OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error)

	// MountBlob makes a blob of the repository from readable through repo
	// too, without a copy.
	// Errors: ErrNameUnknown, ErrBlobUnknown where from has no such blob.
	MountBlob(ctx context.Context, repo, from string, d digest.Digest) error

	// FindBlob yields the repositories that have a blob. A backend that can't
	// tell yields nothing.
	FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error]

	// DeleteBlob makes a blob unreadable through repo.
	// Errors: ErrNameUnknown, ErrBlobUnknown.
	DeleteBlob(ctx context.Context, repo string, d digest.Digest) error

	// CreateUpload opens an upload session in repo, and leases it to the
	// caller.
	// Errors: ErrTooManyRequests, ErrBlobUploadInvalid where opts.ID is in
	// use, ErrDigestInvalid where opts.Algorithm is unknown.
	CreateUpload(ctx context.Context, repo string, opts UploadOptions) (Upload, error)

	// ResumeUpload leases an upload session of repo to the caller.
	// Errors: ErrBlobUploadUnknown, ErrUploadBusy while another caller has
	// it.
	ResumeUpload(ctx context.Context, repo, id string) (Upload, error)

	// UploadSize returns the number of bytes that an upload session has,
	// leased or not. What a lease has appended may not be in it yet. To ask
	// is to use the session: it is not idle.
	// Errors: ErrBlobUploadUnknown.
	UploadSize(ctx context.Context, repo, id string) (int64, error)

	// CancelUpload ends an upload session, leased or not, and drops its
	// bytes. Whoever has the lease gets ErrBlobUploadUnknown from then on.
	// Errors: ErrBlobUploadUnknown.
	CancelUpload(ctx context.Context, repo, id string) error
}

// UploadOptions are the choices of CreateUpload.
type UploadOptions struct {
	// ID is the session's ID; empty for a new UUID.
	ID string
	// Algorithm is the one to compute while bytes come in; empty for SHA-256.
	// Commit takes a digest of any algorithm.
	Algorithm digest.Algorithm
}

// Upload is the lease of an upload session: one caller at a time has it, until
// Close; after that its methods fail with ErrBlobUploadUnknown or do nothing.
// It is not safe for concurrent use.
type Upload interface {
	// ReadFrom appends what r gives until its end. On an error, of r or of
	// the store, what came before it stays appended.
	// Errors: ErrBlobUploadUnknown where the session was cancelled,
	// ErrTooLarge where the store is full.
	io.ReaderFrom

	// ID returns the session's ID.
	ID() string

	// Size returns the number of bytes that the session has.
	Size() int64

	// Commit publishes the session's bytes as the blob d of its repository,
	// and ends the session, both or neither.
	// Errors: ErrDigestInvalid where d is not the digest of the bytes,
	// ErrBlobUploadUnknown where the session was cancelled.
	Commit(ctx context.Context, d digest.Digest) error

	// Rollback drops what was appended through this lease, unless it was
	// published.
	Rollback() error

	// Close ends the lease. Unless Commit has succeeded, the session keeps
	// what was appended and can be resumed.
	io.Closer
}

// ManifestStore is the half of a Store that keeps manifests, tags and
// referrers.
type ManifestStore interface {
	// GetManifest returns the manifest with the given digest.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	GetManifest(ctx context.Context, repo string, d digest.Digest) (Manifest, error)

	// GetTag returns the manifest that a tag points at.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	GetTag(ctx context.Context, repo, tag string) (Manifest, error)

	// PutManifest stores m and points tags at it, all or nothing. A manifest
	// that is there already stays as it is.
	//
	// Unless allow is nil, it is asked for each tag what the tag points at
	// now, "" for a new one, and its error refuses the whole. Nothing moves
	// the tag between that answer and the move. allow must return at once and
	// must not call the store; it may be asked more than once. Where a tag is
	// refused because another process has moved it meanwhile, the manifest may
	// stay, without tags: others may have pushed it too.
	PutManifest(ctx context.Context, repo string, m Manifest, tags []string, allow func(tag string, current digest.Digest) error) error

	// DeleteManifest deletes a manifest with each tag that points at it, and
	// takes it off its subject's referrers.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error

	// DeleteTag deletes a tag, and leaves the manifest. Unless allow is nil, it
	// is asked as in PutManifest.
	// Errors: ErrNameUnknown, ErrManifestUnknown.
	DeleteTag(ctx context.Context, repo, tag string, allow func(tag string, current digest.Digest) error) error

	// Tags yields the tags after a name, "" for all.
	// Errors: ErrNameUnknown.
	Tags(ctx context.Context, repo, after string) iter.Seq2[string, error]

	// Referrers yields the manifests in repo whose subject is the given
	// digest, in the order of their digests, after a digest or "" for all. It
	// yields nothing where there are none, or no such repository.
	Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[Referrer, error]

	// Repositories yields the repositories' names after a name, "" for all.
	Repositories(ctx context.Context, after string) iter.Seq2[string, error]
}

// Manifest is a manifest as a Store keeps it: bytes, and the little that is
// known of them.
type Manifest struct {
	// MediaType is the Content-Type that it was pushed with.
	MediaType string

	// Digest is the digest that it is stored under: of Content, but for a
	// signed Docker schema 1 manifest, where it is of the payload.
	Digest digest.Digest

	// Content is exactly what was pushed. It must not be changed.
	Content []byte

	// Subject is the digest of the manifest that this one refers to, if any,
	// and Referrer what its entry in the subject's list of referrers has. A
	// store may leave them out of what GetManifest and GetTag return.
	Subject  digest.Digest
	Referrer Referrer
}

// Referrer is an entry in a list of referrers (section "Listing Referrers").
type Referrer struct {
	// Digest is the manifest's.
	Digest digest.Digest

	// ArtifactType is what the list is filtered by.
	ArtifactType string

	// Descriptor is the JSON of the manifest's descriptor, with its
	// artifactType and annotations. It must not be changed.
	Descriptor json.RawMessage
}
