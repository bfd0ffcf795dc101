// SPDX-License-Identifier: Apache-2.0

// Google Cloud Storage.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"google.golang.org/api/googleapi"
)

// gcsBucket is a bucket of Google Cloud Storage. The version of an object is its
// generation. Google's client retries reads, lists, and the chunks of a Writer, but
// no other writes: those with a condition it would retry by default.
type gcsBucket struct {
	cdkBucket

	// seen is the Unix time in seconds of a response that showed that the bucket
	// exists: see note.
	seen atomic.Int64
}

func newGCS(b *blob.Bucket) *gcsBucket {
	return &gcsBucket{cdkBucket: cdkBucket{b, gcsProvider{}}}
}

// note converts the result of an operation on an object. Google's client may report
// that an object does not exist when it is the bucket that doesn't, so note lists
// the bucket, unless another operation has succeeded within the last minute.
func (b *gcsBucket) note(ctx context.Context, err error) error {
	if err == nil {
		b.seen.Store(time.Now().Unix())
	}
	if err != ErrNotExist || time.Now().Unix()-b.seen.Load() < 60 {
		return err
	}
	if _, _, err := b.List(ctx, ListQuery{Prefix: "\x7f"}, 1); err != nil { // no key begins so
		return err
	}
	b.seen.Store(time.Now().Unix())
	return ErrNotExist
}

func (b *gcsBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	r, err := b.cdkBucket.Get(ctx, key, offset, n)
	return r, b.note(ctx, err)
}

func (b *gcsBucket) Stat(ctx context.Context, key string) (Object, error) {
	o, err := b.cdkBucket.Stat(ctx, key)
	return o, b.note(ctx, err)
}

// neverRetry is for the handles of objects that are written or deleted.
var neverRetry = storage.WithPolicy(storage.RetryNever)

type gcsProvider struct{}

func (gcsProvider) version(r *blob.Reader) string {
	var raw *storage.Reader
	if !r.As(&raw) {
		return ""
	}
	return gcsVersion(raw.Attrs.Generation)
}

func (gcsProvider) statVersion(a *blob.Attributes) string {
	var raw storage.ObjectAttrs
	if !a.As(&raw) {
		return ""
	}
	return gcsVersion(raw.Generation)
}

func (gcsProvider) listedKey(o *blob.ListObject) string {
	var raw storage.ObjectAttrs
	if !o.As(&raw) {
		return o.Key
	}
	return raw.Name
}

func gcsVersion(generation int64) string { return strconv.FormatInt(generation, 10) }

// startAfter starts the list at the key itself.
func (gcsProvider) startAfter(key string, as func(any) bool) {
	var query *storage.Query
	if as(&query) {
		query.StartOffset = key
	}
}

func (gcsProvider) status(err error) int {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func (p gcsProvider) convert(err error) error {
	if errors.Is(err, storage.ErrBucketNotExist) {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	if errors.Is(err, storage.ErrObjectNotExist) {
		return ErrNotExist
	}
	switch p.status(err) {
	case http.StatusNotFound:
		return ErrNotExist
	case http.StatusPreconditionFailed:
		return ErrCondition
	case http.StatusForbidden:
		if limited(err) {
			return err
		}
		fallthrough
	case http.StatusBadRequest, http.StatusUnauthorized:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return err
}

// limited reports whether Google forbids a request only because there were too many
// before.
func limited(err error) bool {
	var e *googleapi.Error
	if errors.As(err, &e) {
		for _, item := range e.Errors {
			if item.Reason == "rateLimitExceeded" || item.Reason == "userRateLimitExceeded" {
				return true
			}
		}
	}
	return false
}

// ifVersion makes an operation on an object fail unless it has a version.
func ifVersion(h *storage.ObjectHandle, version string) (*storage.ObjectHandle, error) {
	generation, err := strconv.ParseInt(version, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("objects: invalid version %q", version)
	}
	return h.If(storage.Conditions{GenerationMatch: generation}), nil
}

func (b *gcsBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	if c.Absent && c.Version != "" {
		return "", ErrCondition
	}
	var w *storage.Writer
	opts := &blob.WriterOptions{
		ContentType: contentType,
		BufferSize:  -1, // one request, rather than a resumable upload
		BeforeWrite: func(as func(any) bool) (err error) {
			var h **storage.ObjectHandle
			if !as(&h) {
				return ErrUnsupported
			}
			*h = (*h).Retryer(neverRetry)
			if c.Absent {
				*h = (*h).If(storage.Conditions{DoesNotExist: true})
			} else if c.Version != "" {
				if *h, err = ifVersion(*h, c.Version); err != nil {
					return err
				}
			}
			as(&w)
			return nil
		},
	}
	err := b.note(ctx, b.result(b.bucket.Upload(ctx, key, bytes.NewReader(data), opts)))
	switch {
	case err == ErrNotExist && c.Version != "":
		return "", ErrCondition
	case err != nil:
		return "", err
	case w == nil || w.Attrs() == nil:
		return "", nil
	}
	return gcsVersion(w.Attrs().Generation), nil
}

func (b *gcsBucket) Copy(ctx context.Context, to, from string, size int64) error {
	err := b.bucket.Copy(ctx, to, from, &blob.CopyOptions{
		BeforeCopy: func(as func(any) bool) error {
			var handles *gcsblob.CopyObjectHandles
			if as(&handles) {
				handles.Dst = handles.Dst.Retryer(neverRetry)
			}
			return nil
		},
	})
	return b.note(ctx, b.result(err))
}

func (b *gcsBucket) Delete(ctx context.Context, key, version string) error {
	h, err := b.handle(ctx, key)
	if err != nil {
		return err
	}
	h = h.Retryer(neverRetry)
	if version != "" {
		if h, err = ifVersion(h, version); err != nil {
			return err
		}
	}
	if err := b.note(ctx, b.result(h.Delete(ctx))); err != ErrNotExist {
		return err
	}
	return nil
}

// handle returns Google's handle of an object. The Go CDK reveals it only before a
// read, which is not made.
func (b *gcsBucket) handle(ctx context.Context, key string) (*storage.ObjectHandle, error) {
	var h **storage.ObjectHandle
	_, err := b.bucket.NewRangeReader(ctx, key, 0, -1, &blob.ReaderOptions{
		BeforeRead: func(as func(any) bool) error {
			as(&h)
			return errors.New("not read")
		},
	})
	if h == nil {
		return nil, fmt.Errorf("%w: no handle of an object: %w", ErrUnsupported, err)
	}
	return *h, nil
}
