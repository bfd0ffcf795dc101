// SPDX-License-Identifier: Apache-2.0

// What differs between the kinds of buckets.

package bucket

import (
	"sync"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// provider knows one kind of bucket. Its errors are read by itself: the Go CDK
// takes some for "not found" that are not, as a connection to S3 that is
// refused at a port with 301 in it, or what Google forbids. A store that
// believed it would answer 404 for content that it has, and delete it.
type provider interface {
	// conditional reports whether the bucket has conditional writes. If not,
	// the store has locks, and version and ifVersion are not used.
	conditional() bool

	// version returns the version of what r reads.
	version(r *blob.Reader) string

	// ifVersion makes a write fail unless the object has this version.
	ifVersion(version string, as func(any) bool)

	// startAfter has a list start after a key. It returns the token of the
	// first page, if the bucket has it so; what it can't do is left to the
	// caller, who skips.
	startAfter(key string) (token []byte, before func(as func(any) bool) error)

	// missing reports whether err says that there is no such object.
	missing(err error) bool

	// refused reports whether err says that a condition does not hold, and
	// conflict that the write is to be tried again to know.
	refused(err error) bool
	conflict(err error) bool
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

// localProvider is of file:// and mem://.
type localProvider struct{}

// locks stand in for conditional writes, by key. They are the process's, not
// the store's, so that two stores on one bucket are right too.
var locks [64]sync.Mutex

// lockFor locks a key, and returns what unlocks it.
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

// startAfter: the token of a page is the last key of the one before.
func (localProvider) startAfter(key string) ([]byte, func(func(any) bool) error) {
	return []byte(key), nil
}

func (localProvider) missing(err error) bool  { return gcerrors.Code(err) == gcerrors.NotFound }
func (localProvider) refused(err error) bool  { return false }
func (localProvider) conflict(err error) bool { return false }
