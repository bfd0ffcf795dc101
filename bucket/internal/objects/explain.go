// SPDX-License-Identifier: Apache-2.0

// Errors in one sentence, for the operator who starts a process.

package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/aws/smithy-go"
)

// Explain returns a sentence about an error of a bucket, without the text that the SDKs
// put around the cause.
func Explain(b Bucket, err error) string {
	name := "the bucket"
	if s3, ok := b.(*s3Bucket); ok {
		name += " " + s3.name
	}
	if isNoBucket(err) {
		return name + " does not exist"
	}
	if cause := credentialsCause(err); cause != "" {
		return "no credentials for S3: " + cause
	}
	if errors.Is(err, errGoogleToken) {
		return strings.TrimPrefix(oneLine(err.Error()), "objects: ")
	}
	if cause := responseCause(err); cause != "" {
		return fmt.Sprintf("%s rejects the request: %s", name, cause)
	}
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return fmt.Sprintf("can't reach %s: %s", hostOf(e.URL), networkCause(e.Err))
	}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return fmt.Sprintf("can't use %s: %v", name, e)
	}
	return fmt.Sprintf("can't use %s: %s", name, networkCause(err))
}

func isNoBucket(err error) bool {
	return s3Code(err) == "NoSuchBucket" || errors.Is(err, errNoBucket) ||
		bloberror.HasCode(err, bloberror.ContainerNotFound)
}

// credentialsCause returns why the AWS SDK has no credentials, "" if it has some. Its
// errors have no type.
func credentialsCause(err error) string {
	_, cause, _ := strings.Cut(err.Error(), "get credentials: ")
	cause, _, _ = strings.Cut(cause, ", operation error ") // the service that it has asked last
	return oneLine(cause)
}

// responseCause returns the code and message of an error response, "" if err is none.
func responseCause(err error) string {
	if e := (smithy.APIError)(nil); errors.As(err, &e) {
		return oneLine(strings.TrimSuffix(e.ErrorCode()+": "+e.ErrorMessage(), ": "))
	}
	if e := (*googleError)(nil); errors.As(err, &e) {
		return oneLine(fmt.Sprintf("%d: %s", e.status, e.message))
	}
	if e := (*azcore.ResponseError)(nil); errors.As(err, &e) {
		return oneLine(strings.TrimSuffix(fmt.Sprintf("%d: %s", e.StatusCode, e.ErrorCode), ": "))
	}
	return ""
}

// hostOf returns the beginning of a URL, up to the host.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Host == "" {
		return oneLine(rawURL)
	}
	return u.Scheme + "://" + u.Host
}

func networkCause(err error) string {
	if e := syscall.Errno(0); errors.As(err, &e) {
		return e.Error()
	}
	if e := (*net.DNSError)(nil); errors.As(err, &e) {
		return e.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no response in time"
	}
	return oneLine(err.Error())
}

// oneLine returns the beginning of the first line of a text.
func oneLine(text string) string {
	text, _, _ = strings.Cut(strings.TrimPrefix(text, "objects: "), "\n")
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.TrimRight(text, ". ")
}
