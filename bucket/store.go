// SPDX-License-Identifier: Apache-2.0

// Store, its options, and how it opens a bucket.

package bucket

import (
	"container/list"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// Store is a registry.Store in a bucket. Use Open, NewS3, NewGCS or NewAzure to create one.
type Store struct {
	registry.UnimplementedStore // so that this module compiles with later versions of the contract

	bucket     objects.Bucket
	opts       Options
	now        func() time.Time // this process's clock
	clock      clock
	trustedFor time.Duration // see defaultTrustedFor
	minGrace   time.Duration // see defaultMinGrace
	longWrite  time.Duration // see defaultLongWrite
	background background
	names      nameSet
	pushed     pushCounts // of referrers
	buffers    memory     // for the buffers of leases
	writers    memory     // for their writers
	reads      share      // for large objects that are read

	mu            sync.Mutex                // guards the fields below, and the sessions in them; see unlock
	leases        map[string]*leasedSession // of this process, by sessionKey
	byUse         list.List                 // of those that can expire, the longest idle first
	ended         []*lease                  // to be abandoned by unlock
	endedSessions endedSessions
}

var _ registry.Store = (*Store)(nil)

// Options are the options of a Store. A zero field means its default.
type Options struct {
	// Prefix is the beginning of all keys, such as "registry/"; empty by
	// default.
	Prefix string

	// Timeout is how long a call to the bucket may take with its retries: 10
	// seconds by default. A call that moves the bytes of a large object may make
	// no progress for three times as long. A call that takes longer fails with
	// registry.ErrUnavailable.
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

	// Memory is the number of bytes that uploads in progress may hold: 256 MiB
	// by default, and at least 17 MiB. An upload that needs more waits, and is
	// rejected with status 429 if it has to wait for three times Timeout.
	Memory int64

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

// defaultLongWrite is how long a client may take to send the bytes of one large object.
// GC takes a multipart upload that was begun before for one that a process has left
// behind: the bucket does not tell when it was last used.
const defaultLongWrite = 24 * time.Hour

// Open opens the bucket with a URL, as in the Go CDK
// (https://gocloud.dev/howto/blob/). The parameters of a URL are, besides prefix, which
// precedes Options.Prefix:
//
//	s3://BUCKET        region, endpoint, use_path_style, profile, role, anonymous, accelerate,
//	                   dualstack, fips, disable_https, hostname_immutable, ssetype, kmskeyid,
//	                   request_checksum_calculation, response_checksum_validation
//	gs://BUCKET        anonymous, access_id, private_key_path, universe_domain
//	azblob://CONTAINER storage_account, domain, protocol, cdn, localemu
//	file:///PATH       create_dir, dir_file_mode, no_tmp_dir, base_url, secret_key_path
//	mem://
//
// Credentials are those that the tools of the provider use: the environment and the
// files of AWS, Application Default Credentials of Google, or the variables
// AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN and
// AZURE_STORAGE_CONNECTION_STRING, or an identity of Azure. STORAGE_EMULATOR_HOST is
// the address of an emulator of Google. Open does not check that the bucket exists:
// see Check. opts may be nil.
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
	// A list that starts after a name needs entire keys.
	o.Prefix = q.Get("prefix") + o.Prefix
	q.Del("prefix")
	u.RawQuery = q.Encode()
	b, err := objects.Open(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return newStore(b, &o), nil
}

// NewS3 returns a store in a bucket of S3, or of a server with the same API. The
// client's retryer is not used. opts may be nil.
func NewS3(client *s3.Client, bucket string, opts *Options) *Store {
	return newStore(objects.NewS3(client, bucket), opts)
}

// NewGCS returns a store in a bucket of Google Cloud Storage. The client must add
// credentials to requests, and must not repeat them. opts may be nil.
func NewGCS(client *http.Client, bucket string, opts *Options) *Store {
	return newStore(objects.NewGCS(client, bucket), opts)
}

// NewAzure returns a store in a container of Azure Blob Storage. opts may be nil.
func NewAzure(client *container.Client, opts *Options) *Store {
	return newStore(objects.NewAzure(client), opts)
}

func newStore(b objects.Bucket, opts *Options) *Store {
	s := &Store{
		bucket:     b,
		now:        time.Now,
		trustedFor: defaultTrustedFor,
		minGrace:   defaultMinGrace,
		longWrite:  defaultLongWrite,
		background: background{slots: make(chan struct{}, maxLater)},
		leases:     make(map[string]*leasedSession),
	}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Timeout <= 0 {
		s.opts.Timeout = 10 * time.Second
	}
	if s.opts.UploadIdle <= 0 {
		s.opts.UploadIdle = time.Hour
	}
	if s.opts.Memory <= 0 {
		s.opts.Memory = defaultMemory
	}
	s.buffers, s.writers, s.reads = divideMemory(s.opts.Memory)
	return s
}

// Close waits for work in the background, of at most some calls to the bucket, and
// closes the bucket. The store must not be used afterwards.
func (s *Store) Close() error {
	s.background.Wait()
	return s.bucket.Close()
}

// Warnings returns warnings about this kind of bucket, for the operator to read
// when the process starts, after Check.
func (s *Store) Warnings() []string {
	var warnings []string
	if !s.bucket.Conditional() {
		warnings = append(warnings, "this kind of bucket has no conditional writes: only one process may use it at a time")
	}
	if skew := s.skew(); skew > maxSkew {
		warnings = append(warnings, fmt.Sprintf("this process's clock differs from the bucket's by %v", skew.Round(time.Second)))
	}
	return warnings
}

// maxSkew is how much clocks may differ without a warning.
const maxSkew = time.Minute
