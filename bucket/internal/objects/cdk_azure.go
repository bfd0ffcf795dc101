// SPDX-License-Identifier: Apache-2.0

// Azure Blob Storage.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	azureblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"gocloud.dev/blob"
)

// azureBucket is a container of Azure Blob Storage. The version of an object is its
// ETag. Azure's client retries everything by default: here only reads, lists, and a
// Writer's blocks and the list of blocks that completes it.
type azureBucket struct {
	cdkBucket
	client *container.Client
}

func newAzure(b *blob.Bucket, client *container.Client) azureBucket {
	return azureBucket{cdkBucket{b, azureProvider{}}, client}
}

// neverRetrying returns a context for a request that must be sent once.
func neverRetrying(ctx context.Context) context.Context {
	return policy.WithRetryOptions(ctx, policy.RetryOptions{MaxRetries: -1})
}

type azureProvider struct{}

func (azureProvider) version(r *blob.Reader) string {
	var raw azureblob.DownloadStreamResponse
	if !r.As(&raw) {
		return ""
	}
	return azureVersion(raw.ETag)
}

func (azureProvider) statVersion(a *blob.Attributes) string { return a.ETag }

func (azureProvider) listedKey(o *blob.ListObject) string {
	var raw container.BlobItem
	if !o.As(&raw) || raw.Name == nil {
		return o.Key
	}
	return *raw.Name
}

func azureVersion(etag *azcore.ETag) string {
	if etag == nil {
		return ""
	}
	return string(*etag)
}

// startAfter does nothing: Azure can start a list only at its beginning.
func (azureProvider) startAfter(string, func(any) bool) {}

func (azureProvider) status(err error) int {
	var e *azcore.ResponseError
	if !errors.As(err, &e) {
		return 0
	}
	return e.StatusCode
}

func (p azureProvider) convert(err error) error {
	switch {
	case bloberror.HasCode(err, bloberror.BlobNotFound):
		return ErrNotExist
	case bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.BlobAlreadyExists):
		return ErrCondition
	case bloberror.HasCode(err, bloberror.ContainerNotFound, bloberror.ContainerDisabled):
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	switch p.status(err) {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return err
}

// conditions returns the conditions of c.
func conditions(c Condition) *azureblob.AccessConditions {
	m := new(azureblob.ModifiedAccessConditions)
	if c.Absent {
		anyTag := azcore.ETagAny
		m.IfNoneMatch = &anyTag
	}
	if c.Version != "" {
		etag := azcore.ETag(c.Version)
		m.IfMatch = &etag
	}
	return &azureblob.AccessConditions{ModifiedAccessConditions: m}
}

// Put does not use the Go CDK, which makes two requests, and keeps the version to
// itself.
func (b azureBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	if c.Absent && c.Version != "" {
		return "", ErrCondition
	}
	mediaType := contentType
	out, err := b.client.NewBlockBlobClient(azureKey(key)).Upload(neverRetrying(ctx),
		streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{
			HTTPHeaders:      &azureblob.HTTPHeaders{BlobContentType: &mediaType},
			AccessConditions: conditions(c),
		})
	switch err := b.result(err); {
	case err == ErrNotExist && c.Version != "":
		return "", ErrCondition
	case err != nil:
		return "", err
	}
	return azureVersion(out.ETag), nil
}

func (b azureBucket) Copy(ctx context.Context, to, from string, size int64) error {
	return b.result(b.bucket.Copy(neverRetrying(ctx), to, from, nil))
}

func (b azureBucket) Delete(ctx context.Context, key, version string) error {
	_, err := b.client.NewBlobClient(azureKey(key)).Delete(neverRetrying(ctx),
		&azureblob.DeleteOptions{AccessConditions: conditions(Condition{Version: version})})
	if err := b.result(err); err != ErrNotExist {
		return err
	}
	return nil
}

// azureKey escapes a key as gocloud.dev/blob/azureblob does.
func azureKey(key string) string {
	var s strings.Builder
	runes := []rune(key)
	for i, c := range runes {
		switch {
		case c < 32 || c == 127 || strings.ContainsRune(`"#%?\`, c),
			c == '/' && i == len(key)-1,
			c == '/' && i > 1 && runes[i-1] == '.' && runes[i-2] == '.':
			fmt.Fprintf(&s, "__%#x__", c)
		default:
			s.WriteRune(c)
		}
	}
	return s.String()
}
