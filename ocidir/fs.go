// SPDX-License-Identifier: Apache-2.0

// Layouts in any file system, read-only.

package ocidir

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// RootName is the name of the repository that FS serves from the root folder of
// a file system.
const RootName = "layout"

// FS returns a store that serves the OCI image layouts in fsys, without copying
// them: an embed.FS, a zip.Reader, [os.DirFS]. Each folder with an index.json is
// a repository, named by its path; one in the root is [RootName].
//
// The store is read-only: changes fail with ErrUnsupported, with the status 405.
// Use [registry.ReadOnly] too, so that the registry rejects them earlier and
// lists the methods of each endpoint in Allow.
//
// The journals of a directory that a [Store] writes to are read too, so FS can
// serve it at the same time, with os.DirFS or, so that no symbolic link leads out
// of the directory, the FS of an [os.Root].
func FS(fsys fs.FS) registry.Store {
	s := &fsStore{reader: reader{fsys: fsys, log: slog.New(slog.DiscardHandler), othersWrite: true}}
	s.reload = s.read
	if _, err := fs.Stat(fsys, ocispec.ImageIndexFile); err == nil {
		s.root = RootName
	}
	return s
}

// fsStore is a reader that rejects changes.
type fsStore struct{ reader }

var errReadOnly = &registry.Error{
	Status:  http.StatusMethodNotAllowed,
	Code:    registry.ErrUnsupported.Code,
	Message: "the registry is read-only",
	Header:  http.Header{"Allow": {"GET, HEAD"}},
}

func (*fsStore) MountBlob(context.Context, string, string, digest.Digest) error { return errReadOnly }

func (*fsStore) DeleteBlob(context.Context, string, digest.Digest) error { return errReadOnly }

func (*fsStore) CreateUpload(context.Context, string, registry.UploadOptions) (registry.Upload, error) {
	return nil, errReadOnly
}

func (*fsStore) ResumeUpload(context.Context, string, string) (registry.Upload, error) {
	return nil, registry.ErrBlobUploadUnknown
}

func (*fsStore) UploadSize(context.Context, string, string) (int64, error) {
	return 0, registry.ErrBlobUploadUnknown
}

func (*fsStore) PublishedUpload(context.Context, string, string) (digest.Digest, error) {
	return "", registry.ErrBlobUploadUnknown
}

func (*fsStore) CancelUpload(context.Context, string, string) error {
	return registry.ErrBlobUploadUnknown
}

func (*fsStore) PutManifest(context.Context, string, registry.Manifest, []string, registry.AllowFunc) error {
	return errReadOnly
}

func (*fsStore) DeleteManifest(context.Context, string, digest.Digest) error { return errReadOnly }

func (*fsStore) DeleteTag(context.Context, string, string, registry.AllowFunc) error {
	return errReadOnly
}

func (*fsStore) Now(context.Context) (time.Time, error) { return time.Now(), nil }

func (*fsStore) CollectBlobs(context.Context, string, []digest.Digest, time.Time) ([]registry.Info, error) {
	return nil, errReadOnly
}

func (*fsStore) CollectManifests(context.Context, string, []digest.Digest, time.Time) ([]registry.Info, error) {
	return nil, errReadOnly
}

func (*fsStore) CollectRest(context.Context, time.Time) (registry.Collected, error) {
	return registry.Collected{}, errReadOnly
}
