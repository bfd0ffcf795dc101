// SPDX-License-Identifier: Apache-2.0

// UnimplementedStore, which lets the Store contract grow.

package registry

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// UnimplementedStore is a Store whose methods return ErrUnsupported. Embed it in
// a store so that the store compiles when the interface gains methods.
type UnimplementedStore struct{}

var _ Store = UnimplementedStore{}

func (UnimplementedStore) StatBlob(context.Context, string, digest.Digest) (Info, error) {
	return Info{}, ErrUnsupported
}

func (UnimplementedStore) OpenBlob(context.Context, string, digest.Digest) (io.ReadSeekCloser, error) {
	return nil, ErrUnsupported
}

func (UnimplementedStore) Blobs(context.Context, string, digest.Digest) iter.Seq2[Info, error] {
	return unsupported[Info]
}

func (UnimplementedStore) MountBlob(context.Context, string, string, digest.Digest) error {
	return ErrUnsupported
}

func (UnimplementedStore) FindBlob(context.Context, digest.Digest) iter.Seq2[string, error] {
	return unsupported[string]
}

func (UnimplementedStore) DeleteBlob(context.Context, string, digest.Digest) error {
	return ErrUnsupported
}

func (UnimplementedStore) CreateUpload(context.Context, string, UploadOptions) (Upload, error) {
	return nil, ErrUnsupported
}

func (UnimplementedStore) ResumeUpload(context.Context, string, string) (Upload, error) {
	return nil, ErrUnsupported
}

func (UnimplementedStore) UploadSize(context.Context, string, string) (int64, error) {
	return 0, ErrUnsupported
}

func (UnimplementedStore) CancelUpload(context.Context, string, string) error {
	return ErrUnsupported
}

func (UnimplementedStore) PublishedUpload(context.Context, string, string) (digest.Digest, error) {
	return "", ErrUnsupported
}

func (UnimplementedStore) GetManifest(context.Context, string, digest.Digest) (Manifest, error) {
	return Manifest{}, ErrUnsupported
}

func (UnimplementedStore) GetTag(context.Context, string, string) (Manifest, error) {
	return Manifest{}, ErrUnsupported
}

func (UnimplementedStore) PutManifest(context.Context, string, Manifest, []string, AllowFunc) error {
	return ErrUnsupported
}

func (UnimplementedStore) DeleteManifest(context.Context, string, digest.Digest) error {
	return ErrUnsupported
}

func (UnimplementedStore) DeleteTag(context.Context, string, string, AllowFunc) error {
	return ErrUnsupported
}

func (UnimplementedStore) Manifests(context.Context, string, digest.Digest) iter.Seq2[Info, error] {
	return unsupported[Info]
}

func (UnimplementedStore) Tags(context.Context, string, string) iter.Seq2[string, error] {
	return unsupported[string]
}

func (UnimplementedStore) Referrers(context.Context, string, digest.Digest, digest.Digest) iter.Seq2[Referrer, error] {
	return unsupported[Referrer]
}

func (UnimplementedStore) Repositories(context.Context, string) iter.Seq2[string, error] {
	return unsupported[string]
}

// unsupported is a list that consists of an error.
func unsupported[T any](yield func(T, error) bool) {
	var zero T
	yield(zero, ErrUnsupported)
}

func (UnimplementedStore) StatManifest(context.Context, string, digest.Digest) (Info, error) {
	return Info{}, ErrUnsupported
}

func (UnimplementedStore) Now(context.Context) (time.Time, error) { return time.Time{}, ErrUnsupported }

func (UnimplementedStore) CollectBlobs(context.Context, string, []digest.Digest, time.Time) ([]Info, error) {
	return nil, ErrUnsupported
}

func (UnimplementedStore) CollectManifests(context.Context, string, []digest.Digest, time.Time) ([]Info, error) {
	return nil, ErrUnsupported
}

func (UnimplementedStore) CollectRest(context.Context, time.Time) (Collected, error) {
	return Collected{}, ErrUnsupported
}
