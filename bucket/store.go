// SPDX-License-Identifier: Apache-2.0

// Store, its options, and how a bucket is opened.

package bucket

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"

	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // the kinds of URLs that Open takes
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/memblob"
	_ "gocloud.dev/blob/s3blob"

	"github.com/berth-oci/registry"
)

// Store is a registry.Store in a bucket. Open and New make one. It starts no
// goroutine of its own.
type Store struct {
	bucket   *blob.Bucket
	provider provider
	opts     Options
	trust    time.Duration // how long data that was just written needs no second look
	least    time.Duration // the least grace of GC

	mu     sync.Mutex          // guards leases, and what is in them
	leases map[string]*session // that this process has, by ID
}

var _ registry.Store = (*Store)(nil)

// Options are the choices of Open and New. A zero field means its default.
type Options struct {
	// Prefix is what all keys begin with, as in "registry/"; none by default.
	Prefix string

	// Timeout is how long a call to the bucket may take, or one that moves
	// bytes make no progress: 30 seconds by default. What takes longer is
	// registry.ErrUnavailable.
	Timeout time.Duration

	// UploadIdle is how long an upload is kept while no request uses it: one
	// hour by default.
	UploadIdle time.Duration

	// Uploads is the number of uploads that this process may have in progress
	// at one moment; unbounded by default. A further one is
	// registry.ErrTooManyRequests. Those of other processes, and those between
	// two requests, are not counted: that would take a list for each.
	Uploads int

	// OnError is told why the bucket failed, for a log: what clients are told
	// has nothing of it.
	OnError func(error)
}

// trusted is how long data that was just written can't be condemned, and
// leastGrace the least grace that GC keeps. What is between them is for clocks
// that differ, and for what takes its time.
const (
	trusted    = 10 * time.Minute
	leastGrace = 30 * time.Minute
)

// Open opens the bucket that a URL names, as the Go CDK does
// (https://gocloud.dev/howto/blob/): s3://, gs://, azblob://, file:// or
// mem://. The prefix parameter of a URL comes before Options.Prefix. It does
// not ask whether the bucket is there. opts may be nil.
func Open(ctx context.Context, name string, opts *Options) (*Store, error) {
	u, err := url.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	if opts == nil {
		opts = new(Options)
	}
	o := *opts
	q := u.Query()
	// Lists that start after a name need whole keys.
	o.Prefix = q.Get("prefix") + o.Prefix
	q.Del("prefix")
	if u.Scheme == "file" && !q.Has("metadata") {
		q.Set("metadata", "skip") // there is none: one file for each object, not two
	}
	u.RawQuery = q.Encode()
	b, err := blob.OpenBucket(ctx, u.String())
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return New(b, &o), nil
}

// New returns a store in a bucket that is open already. It must not be one of
// blob.PrefixedBucket: Options.Prefix is for that. opts may be nil.
func New(b *blob.Bucket, opts *Options) *Store {
	s := &Store{bucket: b, provider: providerOf(b), trust: trusted, least: leastGrace, leases: make(map[string]*session)}
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

// Close closes the bucket. Nothing may use the store any more.
func (s *Store) Close() error { return s.bucket.Close() }

// Warnings returns what whoever runs the store should know at its start.
func (s *Store) Warnings() []string {
	if s.provider.conditional() {
		return nil
	}
	return []string{"this kind of bucket has no conditional writes: only one process may use it at a time"}
}
