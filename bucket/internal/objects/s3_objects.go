// SPDX-License-Identifier: Apache-2.0

// Operations on single objects of S3, and lists.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// contentType is the type of all objects.
const contentType = "application/octet-stream"

func (b *s3Bucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if n == 0 {
		return getNothing(ctx, b, key, offset)
	}
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	switch {
	case n > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+n-1))
	case offset > 0:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := b.client.GetObject(ctx, in, once)
	if s3Status(err) == http.StatusRequestedRangeNotSatisfiable && offset == 0 {
		// The object is empty, or was: no range of it is valid.
		in.Range = nil
		out, err = b.client.GetObject(ctx, in, once)
	}
	if s3Status(err) == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		return nil, ErrOffset
	}
	if err := b.result(err); err != nil {
		return nil, err
	}
	r := &Reader{
		ReadCloser: out.Body,
		Object: Object{
			Key:     key,
			Size:    aws.ToInt64(out.ContentLength),
			Time:    aws.ToTime(out.LastModified),
			Version: aws.ToString(out.ETag),
		},
	}
	if out.ContentRange != nil {
		r.Size, err = sizeOfRange(*out.ContentRange)
	} else if offset > 0 {
		err = errors.New("objects: the bucket has ignored a range")
	} else if n > 0 && n < r.Size {
		r.ReadCloser = readCloser{io.LimitReader(out.Body, n), out.Body}
	}
	if err != nil {
		out.Body.Close()
		return nil, err
	}
	return r, nil
}

// sizeOfRange returns the size of the object from a Content-Range.
func sizeOfRange(s string) (int64, error) {
	_, size, _ := strings.Cut(s, "/")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("objects: invalid Content-Range %q", s)
	}
	return n, nil
}

func (b *s3Bucket) Stat(ctx context.Context, key string) (Object, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &key}, once)
	if s3Status(err) == http.StatusNotFound {
		return Object{}, b.missing(ctx)
	}
	if err := b.result(err); err != nil {
		return Object{}, err
	}
	return Object{
		Key:     key,
		Size:    aws.ToInt64(out.ContentLength),
		Time:    aws.ToTime(out.LastModified),
		Version: aws.ToString(out.ETag),
	}, nil
}

func (b *s3Bucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	if c.Absent && c.Version != "" {
		return "", ErrCondition
	}
	in := b.putInput(key, data)
	put := func(ctx context.Context) (string, error) { return b.put(ctx, in) }
	switch {
	case c.Absent:
		in.IfNoneMatch = aws.String("*")
	case c.Version != "":
		in.IfMatch = &c.Version
		version, err := b.unfinished.finish(ctx, len(data), put)
		if err == ErrNotExist {
			err = ErrCondition
		}
		return version, err
	case len(data) == 0: // a mark, which may be there already
		return b.unfinished.finish(ctx, 0, put)
	}
	return put(ctx)
}

// put sends a PUT, and returns the object's version.
func (b *s3Bucket) put(ctx context.Context, in *s3.PutObjectInput) (string, error) {
	out, err := b.client.PutObject(ctx, in, once)
	if err := b.conditionResult(err); err != nil {
		return "", err
	}
	return aws.ToString(out.ETag), nil
}

func (b *s3Bucket) putInput(key string, data []byte) *s3.PutObjectInput {
	return &s3.PutObjectInput{
		Bucket:               &b.name,
		Key:                  &key,
		Body:                 bytes.NewReader(data),
		ContentType:          aws.String(contentType),
		ServerSideEncryption: b.encryption.kind,
		SSEKMSKeyId:          b.encryption.key,
	}
}

// Copy copies objects of up to 5 GiB. S3 may find out after it has sent the status
// 200 that it can't: the SDK reports an error in the body like any other.
func (b *s3Bucket) Copy(ctx context.Context, to, from string, size int64) error {
	_, err := b.client.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket:               &b.name,
		Key:                  &to,
		CopySource:           aws.String(copySource(b.name, from)),
		ServerSideEncryption: b.encryption.kind,
		SSEKMSKeyId:          b.encryption.key,
	}, once)
	return b.result(err)
}

// copySource encodes the source of a copy for its header. Servers differ in which
// characters may be unescaped, and in the meaning of "+".
func copySource(bucket, key string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(bucket + "/" + key))
}

// Delete deletes an object if it has the given version or, for "", any version. Not
// all servers obey the condition: MinIO ignores it.
func (b *s3Bucket) Delete(ctx context.Context, key, version string) error {
	in := &s3.DeleteObjectInput{Bucket: &b.name, Key: &key}
	if version != "" {
		in.IfMatch = &version
	}
	_, err := b.client.DeleteObject(ctx, in, once)
	if err := b.conditionResult(err); err != ErrNotExist {
		return err
	}
	return nil
}

// keyToken begins a token that is not S3's own, but the last key of a page.
const keyToken = "key:"

// List does not ask S3 to encode keys, so they can't contain control characters,
// which XML does not have.
//
// It asks for at least two objects: if the prefix is itself the key of an object,
// and one is asked for, MinIO reports that it is the only one.
func (b *s3Bucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	in := &s3.ListObjectsV2Input{Bucket: &b.name, MaxKeys: aws.Int32(int32(max(2, min(n, 1000))))}
	if q.Prefix != "" {
		in.Prefix = &q.Prefix
	}
	if key, ok := strings.CutPrefix(q.Token, keyToken); ok {
		in.StartAfter = &key
	} else if q.Token != "" {
		in.ContinuationToken = &q.Token
	} else if q.After != "" {
		in.StartAfter = &q.After
	}
	out, err := b.client.ListObjectsV2(ctx, in, once)
	if err := b.result(err); err != nil {
		return nil, "", err
	}
	page := make([]Object, len(out.Contents))
	for i, o := range out.Contents {
		page[i] = Object{Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), Time: aws.ToTime(o.LastModified)}
	}
	if len(page) > n {
		page = page[:n]
		return page, keyToken + page[n-1].Key, nil
	}
	if !aws.ToBool(out.IsTruncated) {
		return page, "", nil
	}
	return page, aws.ToString(out.NextContinuationToken), nil
}

func (b *s3Bucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	if c := b.client.Options().Credentials; c == nil || aws.IsCredentialsProvider(c, aws.AnonymousCredentials{}) {
		return "", ErrUnsupported
	}
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &key}
	r, err := s3.NewPresignClient(b.client).PresignGetObject(ctx, in, s3.WithPresignExpires(expires), s3.WithPresignClientFromClientOptions(once))
	if err != nil {
		return "", fmt.Errorf("objects: %w", err)
	}
	return r.URL, nil
}
