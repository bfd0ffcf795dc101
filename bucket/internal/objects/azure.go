// SPDX-License-Identifier: Apache-2.0

// Azure Blob Storage.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// azureBucket is a container of Azure Blob Storage. The version of an object is its
// ETag. Azure's client retries everything by default: here only reads, lists, and a
// Writer's blocks and the list of blocks that completes it.
type azureBucket struct{ client *container.Client }

// NewAzure returns a bucket that is a container.
func NewAzure(client *container.Client) Bucket { return azureBucket{client} }

func (azureBucket) Conditional() bool { return true }
func (azureBucket) Close() error      { return nil }

// neverRetrying returns a context for a request that must be sent once.
func neverRetrying(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: -1})
}

// azureKey escapes a key as gocloud.dev/blob/azureblob does, which earlier versions used.
func azureKey(key string) string {
	return escapeKey(key, func(runes []rune, i int) bool {
		return unfitForAzure(runes, i) || runes[i] == '/' && i == len(runes)-1
	})
}

func unfitForAzure(runes []rune, i int) bool {
	c := runes[i]
	return c < 32 || c == 127 || strings.ContainsRune(`"#%?\`, c) || afterDots(runes, i)
}

// version returns the version of an object.
func version(etag *azcore.ETag) string { return string(value(etag)) }

// value returns what p points at, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// azureStatus returns the status code of the response that err is made of, 0 if it is
// none.
func azureStatus(err error) int {
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		return 0
	}
	return e.StatusCode
}

// azureResult converts the error of an operation.
func azureResult(err error) error {
	switch {
	case err == nil:
		return nil
	case bloberror.HasCode(err, bloberror.BlobNotFound):
		return ErrNotExist
	case bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.BlobAlreadyExists):
		return ErrCondition
	case bloberror.HasCode(err, bloberror.ContainerNotFound, bloberror.ContainerDisabled):
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	switch azureStatus(err) {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return fmt.Errorf("objects: %w", err)
}

func (b azureBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if n == 0 {
		return getNothing(ctx, b, key, offset)
	}
	r, err := b.get(ctx, key, blob.HTTPRange{Offset: offset, Count: max(n, 0)})
	if azureStatus(err) == http.StatusRequestedRangeNotSatisfiable {
		if offset > 0 {
			return nil, ErrOffset
		}
		r, err = b.get(ctx, key, blob.HTTPRange{}) // the object is empty, or was: no range of it is valid
		if err == nil && n > 0 {
			r.ReadCloser = readCloser{io.LimitReader(r.ReadCloser, n), r.ReadCloser}
		}
	}
	if err == nil && offset > 0 && offset >= r.Size { // Azurite responds with no bytes
		r.Close()
		return nil, ErrOffset
	}
	return r, azureResult(err)
}

func (b azureBucket) get(ctx context.Context, key string, part blob.HTTPRange) (*Reader, error) {
	resp, err := b.client.NewBlobClient(azureKey(key)).DownloadStream(ctx, &blob.DownloadStreamOptions{Range: part})
	if err != nil {
		return nil, err
	}
	o := Object{Key: key, Size: value(resp.ContentLength), Time: value(resp.LastModified), Version: version(resp.ETag)}
	if _, total, ok := strings.Cut(value(resp.ContentRange), "/"); ok {
		if o.Size, err = strconv.ParseInt(total, 10, 64); err != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("objects: Azure responded with the range %q", *resp.ContentRange)
		}
	}
	return &Reader{resp.Body, o}, nil
}

func (b azureBucket) Stat(ctx context.Context, key string) (Object, error) {
	p, err := b.client.NewBlobClient(azureKey(key)).GetProperties(ctx, nil)
	if err != nil {
		return Object{}, azureResult(err)
	}
	return Object{Key: key, Size: value(p.ContentLength), Time: value(p.LastModified), Version: version(p.ETag)}, nil
}

// conditions returns the conditions of c.
func conditions(c Condition) *blob.AccessConditions {
	m := new(blob.ModifiedAccessConditions)
	if c.Absent {
		anyTag := azcore.ETagAny
		m.IfNoneMatch = &anyTag
	}
	if c.Version != "" {
		etag := azcore.ETag(c.Version)
		m.IfMatch = &etag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: m}
}

// azureHeaders are the headers of all objects.
func azureHeaders() *blob.HTTPHeaders {
	mediaType := contentType
	return &blob.HTTPHeaders{BlobContentType: &mediaType}
}

func (b azureBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	if c.Absent && c.Version != "" {
		return "", ErrCondition
	}
	out, err := b.client.NewBlockBlobClient(azureKey(key)).Upload(neverRetrying(ctx),
		streaming.NopCloser(bytes.NewReader(data)),
		&blockblob.UploadOptions{HTTPHeaders: azureHeaders(), AccessConditions: conditions(c)})
	switch err := azureResult(err); {
	case err == ErrNotExist && c.Version != "":
		return "", ErrCondition
	case err != nil:
		return "", err
	}
	return version(out.ETag), nil
}

// Copy waits until Azure has copied the object.
func (b azureBucket) Copy(ctx context.Context, to, from string, size int64) error {
	target := b.client.NewBlobClient(azureKey(to))
	out, err := target.StartCopyFromURL(neverRetrying(ctx), b.client.NewBlobClient(azureKey(from)).URL(), nil)
	if err != nil {
		return azureResult(err)
	}
	status := value(out.CopyStatus)
	for status == blob.CopyStatusTypePending {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		p, err := target.GetProperties(ctx, nil)
		if err != nil {
			return azureResult(err)
		}
		status = value(p.CopyStatus)
	}
	if status != blob.CopyStatusTypeSuccess {
		return fmt.Errorf("objects: Azure has not copied an object: %s", status)
	}
	return nil
}

func (b azureBucket) Delete(ctx context.Context, key, version string) error {
	_, err := b.client.NewBlobClient(azureKey(key)).Delete(neverRetrying(ctx),
		&blob.DeleteOptions{AccessConditions: conditions(Condition{Version: version})})
	if err := azureResult(err); err != ErrNotExist {
		return err
	}
	return nil
}

// List reads from the beginning of a prefix: Azure can't start a list elsewhere.
func (b azureBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	prefix, size := escapeKey(q.Prefix, unfitForAzure), int32(n)
	opts := &container.ListBlobsFlatOptions{Prefix: &prefix, MaxResults: &size}
	if q.Token != "" {
		opts.Marker = &q.Token
	}
	listed, err := b.client.NewListBlobsFlatPager(opts).NextPage(ctx)
	if err := azureResult(err); err != nil {
		return nil, "", err
	}
	page := make([]Object, 0, len(listed.Segment.BlobItems))
	for _, o := range listed.Segment.BlobItems {
		if key := unescapeKey(value(o.Name), azureKey); key > q.After && o.Properties != nil {
			page = append(page, Object{Key: key, Size: value(o.Properties.ContentLength), Time: value(o.Properties.LastModified)})
		}
	}
	return page, value(listed.NextMarker), nil
}

// SignedURL fails unless the credentials are the key of an account.
func (b azureBucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	now := time.Now().UTC()
	u, err := b.client.NewBlobClient(azureKey(key)).GetSASURL(sas.BlobPermissions{Read: true}, now.Add(expires),
		&blob.GetSASURLOptions{StartTime: &now})
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return u, nil
}

// AbortWriters does nothing: Azure discards unfinished objects after a week.
func (b azureBucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	return 0, ctx.Err()
}
