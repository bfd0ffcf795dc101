// SPDX-License-Identifier: Apache-2.0

// Azure Blob Storage.

package bucket

import (
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	azureblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"gocloud.dev/blob"
)

type azureProvider struct{}

func (azureProvider) conditional() bool { return true }

func (azureProvider) version(r *blob.Reader) string {
	var raw azureblob.DownloadStreamResponse
	if !r.As(&raw) || raw.ETag == nil {
		return ""
	}
	return string(*raw.ETag)
}

func (azureProvider) ifVersion(version string, as func(any) bool) {
	var opts *azblob.UploadStreamOptions
	if as(&opts) {
		etag := azcore.ETag(version)
		opts.AccessConditions = &azblob.AccessConditions{
			ModifiedAccessConditions: &azureblob.ModifiedAccessConditions{IfMatch: &etag},
		}
	}
}

func (azureProvider) startAfter(string) ([]byte, func(func(any) bool) error) { return nil, nil }

func (azureProvider) isNotFound(err error) bool {
	return bloberror.HasCode(err, bloberror.BlobNotFound)
}

func (p azureProvider) isConditionFailed(err error) bool {
	return bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.BlobAlreadyExists) || p.isNotFound(err)
}

func (azureProvider) isConflict(error) bool { return false }
