// SPDX-License-Identifier: Apache-2.0

// The errors of S3.

package objects

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// s3Code returns S3's code of an error, "" if the error is not from S3.
func s3Code(err error) string {
	var e smithy.APIError
	if !errors.As(err, &e) {
		return ""
	}
	return e.ErrorCode()
}

// s3Status returns the status code of the response that err is made of, 0 if there
// was none.
func s3Status(err error) int {
	var e *awshttp.ResponseError
	if !errors.As(err, &e) {
		return 0
	}
	return e.HTTPStatusCode()
}

// result converts the error of an operation, and notes whether the outcome shows
// that the bucket exists.
func (b *s3Bucket) result(err error) error {
	if err != nil {
		err = s3Error(err)
	}
	if err == nil || err == ErrNotExist {
		b.seen.Store(time.Now().Unix())
	}
	return err
}

// s3Error converts an error of an operation without a condition.
func s3Error(err error) error {
	status := s3Status(err)
	if status == 0 { // no response: a network error, the context, or missing credentials
		return fmt.Errorf("objects: %w", err)
	}
	switch s3Code(err) {
	case "NoSuchKey":
		return ErrNotExist
	case "NoSuchBucket":
		return fmt.Errorf("%w: %w", ErrRejected, err)
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: the clock of this machine differs too much from that of S3: %w", ErrRejected, err)
	case "RequestTimeout", "IncompleteBody", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch",
		"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
		"InvalidPart", "InvalidPartOrder":
		// Faults of the connection, of the moment, or of one upload: the same
		// operation can succeed later.
		return fmt.Errorf("objects: %w", err)
	}
	switch status {
	case http.StatusInsufficientStorage: // XMinioStorageFull
		return fmt.Errorf("%w: %w", ErrFull, err)
	case http.StatusMovedPermanently, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return fmt.Errorf("objects: %w", err)
}

// conditionResult is result for an operation with a condition. 409, the response to
// a conditional write while another one is in progress, is an ordinary error: only
// a read tells the outcome.
func (b *s3Bucket) conditionResult(err error) error {
	if s3Status(err) == http.StatusPreconditionFailed {
		return ErrCondition
	}
	return b.result(err)
}

// busy reports whether err is a response that tells that S3 had no time for the
// request: it had no effect.
func busy(err error) bool {
	status := s3Status(err)
	return status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
}

// missing returns the error for the response 404 to HEAD, which doesn't tell if it
// is the object that does not exist, or the bucket. It asks unless another response
// has told within the last minute.
func (b *s3Bucket) missing(ctx context.Context) error {
	if time.Now().Unix()-b.seen.Load() < 60 {
		return ErrNotExist
	}
	_, err := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name}, once)
	if s3Status(err) == http.StatusNotFound {
		return fmt.Errorf("%w: the bucket does not exist: %w", ErrRejected, err)
	}
	if err := b.result(err); err != nil {
		return err
	}
	return ErrNotExist
}
