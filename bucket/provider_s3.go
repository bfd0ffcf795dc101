// SPDX-License-Identifier: Apache-2.0

// S3, and S3-compatible servers.

package bucket

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob"
)

type s3Provider struct{}

func (s3Provider) conditional() bool { return true }

func (s3Provider) version(r *blob.Reader) string {
	var out s3.GetObjectOutput
	if !r.As(&out) {
		return ""
	}
	return aws.ToString(out.ETag)
}

func (s3Provider) ifVersion(version string, as func(any) bool) {
	var in *transfermanager.UploadObjectInput
	if as(&in) {
		in.IfMatch = aws.String(version)
	}
}

func (s3Provider) startAfter(key string) ([]byte, func(func(any) bool) error) {
	return nil, func(as func(any) bool) error {
		var in *s3.ListObjectsV2Input
		if as(&in) && in.ContinuationToken == nil {
			in.StartAfter = aws.String(key)
		}
		return nil
	}
}

// code returns S3's code of an error, "" if the error is not from S3.
func (s3Provider) code(err error) string {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return ""
	}
	return e.ErrorCode()
}

func (p s3Provider) isNotFound(err error) bool {
	code := p.code(err)
	return code == "NoSuchKey" || code == "NotFound"
}

// isConditionFailed includes NoSuchKey, the response to If-Match for an object
// that no longer exists.
func (p s3Provider) isConditionFailed(err error) bool {
	return p.code(err) == "PreconditionFailed" || p.isNotFound(err)
}

func (p s3Provider) isConflict(err error) bool {
	code := p.code(err)
	return code == "ConditionalRequestConflict" || code == "OperationAborted"
}
