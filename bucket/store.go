// SPDX-License-Identifier: Apache-2.0

// Store, its options, and how it opens a bucket.

package bucket

import (
	"container/list"
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // the schemes that Open accepts
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"

	"github.com/berth-oci/registry"
)

// Store is a registry.Store in a bucket. Use Open or New to create one. It starts
// no goroutine that outlives a call.
type Store struct {
	registry.UnimplementedStore // so that this module compiles with later versions of the contract

	bucket     *blob.Bucket
	provider   provider
	opts       Options
	trustedFor time.Duration // see defaultTrustedFor
	minGrace   time.Duration // see defaultMinGrace

	mu     sync.Mutex                // guards the fields below, and the sessions in them; see unlock
	leases map[string]*leasedSession // of this process, by sessionKey
	byUse  list.List                 // of those that can expire, the longest idle first
	ended  []*lease                  // to be abandoned by unlock
}

var _ registry.Store = (*Store)(nil)

// Options are the options of Open and New. A zero field means its default.
type Options struct {
	// Prefix is the beginning of all keys, such as "registry/"; empty by
	// default.
	Prefix string

	// Timeout is how long a call to the bucket may take or, if the call moves
	// bytes, how long it may make no progress: 30 seconds by default. A call
	// that exceeds it fails with registry.ErrUnavailable.
	Timeout time.Duration

	// UploadIdle is how long an upload is kept while it receives no bytes and
	// no requests: one hour by default. A request that has stalled does not
	// keep it.
	UploadIdle time.Duration

	// Uploads is the maximum number of uploads that this process may have in
	// progress; unlimited by default. A further one is rejected with
	// registry.ErrTooManyUploads. Uploads of other processes, and uploads
	// between two requests, are not counted: that would require a list for each
	// new upload.
	Uploads int

	// OnError is called with each failure of the bucket, for a log: the errors
	// that clients get do not contain the cause.
	OnError func(error)
}

// defaultTrustedFor is how long data can't be condemned after it was written, and
// defaultMinGrace is the minimum of GCOptions.Grace. The difference allows for
// clocks that disagree and for slow calls.
const (
	defaultTrustedFor = 10 * time.Minute
	defaultMinGrace   = 30 * time.Minute
)

// Open opens the bucket with a URL of the Go CDK
// (https://gocloud.dev/howto/blob/): s3://, gs://, azblob://, file:// or mem://.
// The URL's prefix parameter precedes Options.Prefix. Open does not check that
// the bucket exists: see Check. opts may be nil.
func Open(ctx context.Context, bucketURL string, opts *Options) (*Store, error) {
	u, err := url.Parse(bucketURL)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	if opts == nil {
		opts = new(Options)
	}
	o := *opts
	q := u.Query()
	// A prefix that the Go CDK handles would hide part of each key, and a list
	// that starts after a name needs entire keys.
	o.Prefix = q.Get("prefix") + o.Prefix
	q.Del("prefix")
	if u.Scheme == "file" && !q.Has("metadata") {
		q.Set("metadata", "skip") // objects have none: one file per object, not two
	}
	u.RawQuery = q.Encode()
	b, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return New(b, &o), nil
}

// New returns a store in an open bucket. The bucket must not be the result of
// blob.PrefixedBucket: use Options.Prefix instead. opts may be nil.
func New(b *blob.Bucket, opts *Options) *Store {
	s := &Store{
		bucket:     b,
		provider:   providerOf(b),
		trustedFor: defaultTrustedFor,
		minGrace:   defaultMinGrace,
		leases:     make(map[string]*leasedSession),
	}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Timeout <= 0 {
		s.opts.Timeout = 30 * time.Second
	}
	if s.opts.UploadIdle <= 0 {
		s.opts.UploadIdle = time.Hour
	}
	return s
}

// Close closes the bucket. The store must not be used afterwards.
func (s *Store) Close() error { return s.bucket.Close() }

// Warnings returns warnings about this kind of bucket, for the operator to read
// when the process starts.
func (s *Store) Warnings() []string {
	if s.provider.conditional() {
		return nil
	}
	return []string{"this kind of bucket has no conditional writes: only one process may use it at a time"}
}
