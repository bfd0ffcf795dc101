// SPDX-License-Identifier: Apache-2.0

// The differences between the kinds of buckets.

package bucket

import (
	"sync"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// provider knows one kind of bucket. It classifies errors itself, because the Go
// CDK reports some as "not found" that are something else: a connection to S3
// that fails at a port whose number contains 301, or an operation that Google
// forbids. A store that believed it would respond with 404 for content that it
// has, and delete it.
type provider interface {
	// conditional reports whether the bucket has conditional writes. If not,
	// the store uses locks, and neither version nor ifVersion.
	conditional() bool

	// version returns the version of the object that r reads.
	version(r *blob.Reader) string

	// ifVersion makes a write fail unless the object has the given version.
	ifVersion(version string, as func(any) bool)

	// startAfter makes a list start after a key, or at it. It returns a page
	// token, or a function for blob.ListOptions.BeforeList. If both are nil, the
	// list starts at its beginning. The caller must skip keys that come too
	// early.
	startAfter(key string) (token []byte, before func(as func(any) bool) error)

	// isNotFound reports whether err means that an object does not exist.
	isNotFound(err error) bool

	// isConditionFailed reports whether err means that the condition of a write
	// does not hold.
	isConditionFailed(err error) bool

	// isConflict reports whether err means that another write was in progress:
	// only a retry tells whether the condition holds.
	isConflict(err error) bool
}

func providerOf(b *blob.Bucket) provider {
	var (
		s3Client  *s3.Client
		gcsClient *storage.Client
		azClient  *container.Client
	)
	switch {
	case b.As(&s3Client):
		return s3Provider{}
	case b.As(&gcsClient):
		return gcsProvider{}
	case b.As(&azClient):
		return azureProvider{}
	}
	return localProvider{}
}

// localProvider is the provider of file:// and mem://.
type localProvider struct{}

// locks stand in for conditional writes, by the hash of the key. They belong to
// the process, not to a store, so that two stores can share a bucket.
var locks [64]sync.Mutex

// lockFor locks a key, and returns a function that unlocks it.
func lockFor(key string) (unlock func()) {
	h := uint32(2166136261) // FNV-1a
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	l := &locks[h%uint32(len(locks))]
	l.Lock()
	return l.Unlock
}

func (localProvider) conditional() bool                { return false }
func (localProvider) version(*blob.Reader) string      { return "" }
func (localProvider) ifVersion(string, func(any) bool) {}

// startAfter returns the key: the token of a page is the last key of the page
// before it.
func (localProvider) startAfter(key string) ([]byte, func(func(any) bool) error) {
	return []byte(key), nil
}

func (localProvider) isNotFound(err error) bool        { return gcerrors.Code(err) == gcerrors.NotFound }
func (localProvider) isConditionFailed(err error) bool { return false }
func (localProvider) isConflict(err error) bool        { return false }
