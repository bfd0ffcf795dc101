// SPDX-License-Identifier: Apache-2.0

// Writing large objects to S3, in parts.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	// maxParts is S3's maximum. Larger objects would need larger parts from the
	// first one on.
	maxParts = 10000

	// cleanupTimeout bounds the requests that must be made even if the context
	// was cancelled.
	cleanupTimeout = 10 * time.Second
)

// s3Writer writes an object: in one piece if it is no larger than a chunk, and
// otherwise with a multipart upload. The time of such an object is that of Close in
// MinIO, but in S3 the time when the upload began: long before, if the bytes came
// slowly.
type s3Writer struct {
	chunkWriter
	b    *s3Bucket
	key  string
	size int64 // of all that was written

	// The goroutine that sends a chunk owns these while it runs.
	uploadID string // "" before the first part
	parts    []types.CompletedPart
}

func (b *s3Bucket) NewWriter(ctx context.Context, key string) Writer {
	return &s3Writer{b: b, key: key, chunkWriter: newChunkWriter(ctx)}
}

func (w *s3Writer) Write(p []byte) (int, error) {
	n, err := w.fill(p, w.flush)
	w.size += int64(n)
	return n, err
}

// flush begins to send the chunk, once the one before it has been sent.
func (w *s3Writer) flush() error {
	if err := w.wait(); err != nil {
		return err
	}
	if len(w.parts) == maxParts {
		return fmt.Errorf("objects: an object in S3 has at most %d parts, of %d bytes here", maxParts, chunkSize)
	}
	w.start(w.send)
	return nil
}

// send sends a part. It runs in a goroutine.
func (w *s3Writer) send(chunk *[chunkSize]byte, n int) error {
	if w.uploadID == "" {
		if err := w.begin(); err != nil {
			return err
		}
	}
	in := &s3.UploadPartInput{
		Bucket:     &w.b.name,
		Key:        &w.key,
		UploadId:   &w.uploadID,
		PartNumber: aws.Int32(int32(len(w.parts) + 1)),
	}
	for attempt := 1; ; attempt++ {
		in.Body = bytes.NewReader(chunk[:n])
		out, err := w.b.client.UploadPart(w.ctx, in, once)
		if err == nil {
			w.parts = append(w.parts, types.CompletedPart{
				PartNumber:        in.PartNumber,
				ETag:              out.ETag,
				ChecksumCRC32:     out.ChecksumCRC32,
				ChecksumCRC32C:    out.ChecksumCRC32C,
				ChecksumCRC64NVME: out.ChecksumCRC64NVME,
				ChecksumSHA1:      out.ChecksumSHA1,
				ChecksumSHA256:    out.ChecksumSHA256,
			})
			if attempt == 1 { // otherwise net/http may still be reading it for an earlier attempt
				chunks.Put(chunk)
			}
			return nil
		}
		fatal := s3Code(err) == "NoSuchUpload"
		err = w.b.result(err)
		if fatal || attempt == partAttempts || errors.Is(err, ErrRejected) || !w.backOff(attempt) {
			return err
		}
	}
}

// begin begins the multipart upload. The context's end must not interrupt that:
// nobody would know the upload's ID, and abort it.
func (w *s3Writer) begin() error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := w.cleanupContext()
	defer cancel()
	in := &s3.CreateMultipartUploadInput{
		Bucket:               &w.b.name,
		Key:                  &w.key,
		ContentType:          aws.String(contentType),
		ServerSideEncryption: w.b.encryption.kind,
		SSEKMSKeyId:          w.b.encryption.key,
	}
	if w.b.client.Options().RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32 // which the SDK computes of each part
	}
	return w.whileBusy(func() error {
		out, err := w.b.client.CreateMultipartUpload(ctx, in, once)
		if err != nil {
			return err
		}
		w.uploadID = aws.ToString(out.UploadId)
		return nil
	})
}

// whileBusy makes a request, again if S3 had no time for it.
func (w *s3Writer) whileBusy(request func() error) error {
	for attempt := 1; ; attempt++ {
		err := request()
		if !busy(err) || attempt == partAttempts || !w.backOff(attempt) {
			return w.b.result(err)
		}
	}
}

// Close completes the object. If it fails, the object may exist nevertheless.
func (w *s3Writer) Close() error { return w.close(w.finish, w.Abort) }

func (w *s3Writer) finish() error {
	if w.sending == nil && w.uploadID == "" {
		return w.putAll()
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	return w.complete()
}

// putAll writes an object that is no larger than a chunk. No other writer has the same
// key, so it may do that twice.
func (w *s3Writer) putAll() error {
	data := w.filled()
	for attempt := 1; ; attempt++ {
		_, err := w.b.client.PutObject(w.ctx, w.b.putInput(w.key, data), once)
		if err = w.b.result(err); err == nil && attempt == 1 && w.chunk != nil { // as in send
			chunks.Put(w.chunk)
		}
		if err == nil || attempt == partAttempts || errors.Is(err, ErrRejected) || !w.backOff(attempt) {
			w.chunk = nil
			return err
		}
	}
}

// complete completes the multipart upload. If the response is lost, it asks again:
// then the upload no longer exists if it was completed. No other writer has the
// same key, so an object of that size is this one.
func (w *s3Writer) complete() error {
	in := &s3.CompleteMultipartUploadInput{
		Bucket:          &w.b.name,
		Key:             &w.key,
		UploadId:        &w.uploadID,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: w.parts},
	}
	_, err := w.b.client.CompleteMultipartUpload(w.ctx, in, once)
	if first := w.b.result(err); first == nil || s3Code(err) == "NoSuchUpload" ||
		errors.Is(first, ErrRejected) || !w.backOff(1) {
		return first
	}
	_, err = w.b.client.CompleteMultipartUpload(w.ctx, in, once)
	if s3Code(err) == "NoSuchUpload" {
		if o, statErr := w.b.Stat(w.ctx, w.key); statErr == nil && o.Size == w.size {
			return nil
		}
	}
	return w.b.result(err)
}

// Abort discards the object, and the parts that were sent.
func (w *s3Writer) Abort() {
	if !w.stop() {
		return
	}
	if w.uploadID != "" {
		ctx, cancel := w.cleanupContext()
		defer cancel()
		w.b.abortUpload(ctx, w.key, w.uploadID)
		w.uploadID = ""
	}
}

// cleanupContext returns a context for a request that must be made.
func (w *s3Writer) cleanupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(w.ctx), cleanupTimeout)
}

// abortUpload aborts a multipart upload, if it exists. That is idempotent, so it
// tries more than once: only AbortWriters could free the space otherwise.
func (b *s3Bucket) abortUpload(ctx context.Context, key, id string) (aborted bool, err error) {
	for range partAttempts {
		_, err = b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: &id}, once)
		if s3Code(err) == "NoSuchUpload" {
			return false, nil
		}
		if err = b.result(err); err == nil {
			return true, nil
		}
		if ctx.Err() != nil || errors.Is(err, ErrRejected) {
			break
		}
	}
	return false, err
}

// AbortWriters aborts multipart uploads. MinIO lists those of an exact key only,
// not those of a prefix, so there it finds none; MinIO itself discards uploads that
// are a day old.
func (b *s3Bucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &prefix}
	count := 0
	for {
		out, err := b.client.ListMultipartUploads(ctx, in, once)
		if err := b.result(err); err != nil {
			return count, err
		}
		for _, u := range out.Uploads {
			if u.Initiated == nil || !u.Initiated.Before(before) {
				continue
			}
			aborted, err := b.abortUpload(ctx, aws.ToString(u.Key), aws.ToString(u.UploadId))
			if err != nil {
				return count, err
			}
			if aborted {
				count++
			}
		}
		if !aws.ToBool(out.IsTruncated) {
			return count, nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}
