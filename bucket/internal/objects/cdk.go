// SPDX-License-Identifier: Apache-2.0

// Buckets of the Go CDK: all but S3.

package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // the schemes that Open accepts
	_ "gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/gcsblob"
	_ "gocloud.dev/blob/memblob"
	"gocloud.dev/gcerrors"
)

// Open opens the bucket of a URL: s3:// for OpenS3, or any other scheme for the Go
// CDK. The URL must not have the parameters prefix and key of the Go CDK: they
// would hide a part of each key.
func Open(ctx context.Context, u *url.URL) (Bucket, error) {
	if u.Scheme == "s3" {
		return OpenS3(ctx, u)
	}
	q := u.Query()
	if q.Has("prefix") || q.Has("key") {
		return nil, errors.New("objects: a bucket's URL must not have the parameters prefix and key")
	}
	if u.Scheme == "file" && !q.Has("metadata") {
		q.Set("metadata", "skip") // objects have none: one file per object, not two
		c := *u
		c.RawQuery = q.Encode()
		u = &c
	}
	b, err := blob.DefaultURLMux().OpenBucketURL(ctx, u)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	return NewCDK(b)
}

// NewCDK returns a bucket that is one of the Go CDK, which must not be the result
// of blob.PrefixedBucket. The result's Close closes b.
func NewCDK(b *blob.Bucket) (Bucket, error) {
	var (
		s3Client  *s3.Client
		gcsClient *storage.Client
		azClient  *container.Client
	)
	switch {
	case b.As(&s3Client):
		return nil, errors.New("objects: use NewS3 for a bucket in S3")
	case b.As(&gcsClient):
		return newGCS(b), nil
	case b.As(&azClient):
		return newAzure(b, azClient), nil
	}
	return newLocal(b), nil
}

// cdkBucket is the part of a Bucket that is the same for all providers.
type cdkBucket struct {
	bucket   *blob.Bucket
	provider provider
}

// provider knows one kind of bucket. It classifies errors itself, because the Go
// CDK reports some as "not found" that are something else, such as an operation
// that Google forbids. A store that believed it would respond with 404 for content
// that it has, and delete it.
type provider interface {
	// version returns the version of the object that r reads.
	version(r *blob.Reader) string

	// statVersion returns the version of the object with these attributes.
	statVersion(a *blob.Attributes) string

	// listedKey returns the key of an object in a list. The Go CDK's own has another
	// character for parts such as "__0x41__".
	listedKey(o *blob.ListObject) string

	// startAfter makes a list start at a key, or after it, if the provider can.
	startAfter(key string, as func(any) bool)

	// status returns the status code of the response that err is made of, 0 if
	// it is none.
	status(err error) int

	// convert converts err to one of this package, or returns it as it is.
	convert(err error) error
}

// result converts the error of an operation.
func (b cdkBucket) result(err error) error {
	if err == nil {
		return nil
	}
	converted := b.provider.convert(err)
	if converted != err {
		return converted
	}
	if gcerrors.Code(err) == gcerrors.Unimplemented {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return fmt.Errorf("objects: %w", err)
}

func (b cdkBucket) Conditional() bool { return true }

func (b cdkBucket) Close() error { return b.bucket.Close() }

func (b cdkBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if n == 0 {
		return getNothing(ctx, b, key, offset)
	}
	r, err := b.bucket.NewRangeReader(ctx, key, offset, n, nil)
	all := err != nil && offset == 0 && n > 0 && b.provider.status(err) == 416
	if all { // the object is empty, or was: no range of it is valid
		r, err = b.bucket.NewRangeReader(ctx, key, 0, -1, nil)
	}
	if err != nil && offset > 0 && b.provider.status(err) == 416 {
		return nil, ErrOffset
	}
	if err := b.result(err); err != nil {
		return nil, err
	}
	o := &Reader{r, Object{Key: key, Size: r.Size(), Time: r.ModTime(), Version: b.provider.version(r)}}
	if offset > 0 && offset >= o.Size {
		r.Close()
		return nil, ErrOffset
	}
	if all {
		o.ReadCloser = readCloser{io.LimitReader(r, n), r}
	}
	return o, nil
}

// getNothing is Get for no bytes, which can't be expressed as a range.
func getNothing(ctx context.Context, b interface {
	Stat(context.Context, string) (Object, error)
}, key string, offset int64) (*Reader, error) {
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > 0 && offset >= o.Size {
		return nil, ErrOffset
	}
	return &Reader{noBytes{}, o}, nil
}

// noBytes has no bytes to read.
type noBytes struct{}

func (noBytes) Read([]byte) (int, error) { return 0, io.EOF }
func (noBytes) Close() error             { return nil }

// readCloser reads from one thing and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}

func (b cdkBucket) Stat(ctx context.Context, key string) (Object, error) {
	a, err := b.bucket.Attributes(ctx, key)
	if err := b.result(err); err != nil {
		return Object{}, err
	}
	return Object{Key: key, Size: a.Size, Time: a.ModTime, Version: b.provider.statVersion(a)}, nil
}

func (b cdkBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	token := blob.FirstPageToken
	if q.Token != "" {
		token = []byte(q.Token)
	}
	listed, next, err := b.bucket.ListPage(ctx, token, n, &blob.ListOptions{
		Prefix: q.Prefix,
		BeforeList: func(as func(any) bool) error {
			if q.After != "" {
				b.provider.startAfter(q.After, as)
			}
			return nil
		},
	})
	if err := b.result(err); err == ErrNotExist {
		return nil, "", fmt.Errorf("%w: the bucket does not exist", ErrRejected)
	} else if err != nil {
		return nil, "", err
	}
	page := make([]Object, 0, len(listed))
	for _, o := range listed {
		if key := b.provider.listedKey(o); key > q.After {
			page = append(page, Object{Key: key, Size: o.Size, Time: o.ModTime})
		}
	}
	return page, string(next), nil
}

func (b cdkBucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	u, err := b.bucket.SignedURL(ctx, key, &blob.SignedURLOptions{Expiry: expires})
	return u, b.result(err)
}

// AbortWriters does nothing: Google and Azure discard unfinished objects after a
// week, and the others keep none, except that file:// leaves temporary files of a
// process that crashed to the operating system.
func (b cdkBucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	return 0, ctx.Err()
}

// cdkWriter is a Writer of the Go CDK. A provider may retry its chunks, which does
// no harm: each has the same bytes and the same position each time.
type cdkWriter struct {
	b      cdkBucket
	w      *blob.Writer
	cancel context.CancelFunc
	err    error // why the writer can't continue
}

func (b cdkBucket) NewWriter(ctx context.Context, key string) Writer {
	w := &cdkWriter{b: b}
	ctx, w.cancel = context.WithCancel(ctx)
	var err error
	w.w, err = b.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType:    contentType,
		BufferSize:     chunkSize,
		MaxConcurrency: WriterMemory / chunkSize,
	})
	w.err = b.result(err)
	return w
}

func (w *cdkWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.w.Write(p)
	if err != nil {
		w.err = w.b.result(err)
	}
	return n, w.err
}

func (w *cdkWriter) Close() error {
	if w.err != nil {
		w.Abort()
		return w.err
	}
	err := w.w.Close()
	w.w = nil
	w.cancel()
	w.err = errClosed
	return w.b.result(err)
}

func (w *cdkWriter) Abort() {
	w.cancel()
	if w.w != nil {
		w.w.Close()
		w.w = nil
	}
	if w.err == nil {
		w.err = errAborted
	}
}

// The errors of writers that must no longer be used.
var (
	errClosed  = errors.New("objects: the writer is closed")
	errAborted = errors.New("objects: the writer was aborted")
)
