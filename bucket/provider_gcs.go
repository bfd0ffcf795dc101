// SPDX-License-Identifier: Apache-2.0

// Google Cloud Storage.

package bucket

import (
	"errors"
	"net/http"
	"strconv"

	"cloud.google.com/go/storage"
	"gocloud.dev/blob"
	"google.golang.org/api/googleapi"
)

type gcsProvider struct{}

func (gcsProvider) conditional() bool { return true }

func (gcsProvider) version(r *blob.Reader) string {
	var raw *storage.Reader
	if !r.As(&raw) {
		return ""
	}
	return strconv.FormatInt(raw.Attrs.Generation, 10)
}

func (gcsProvider) ifVersion(version string, as func(any) bool) {
	var object **storage.ObjectHandle
	if as(&object) {
		generation, _ := strconv.ParseInt(version, 10, 64) // from version
		*object = (*object).If(storage.Conditions{GenerationMatch: generation})
	}
}

// startAfter starts the list at the key itself.
func (gcsProvider) startAfter(key string) ([]byte, func(func(any) bool) error) {
	return nil, func(as func(any) bool) error {
		var query *storage.Query
		if as(&query) {
			query.StartOffset = key
		}
		return nil
	}
}

func (gcsProvider) status(err error) int {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func (p gcsProvider) isNotFound(err error) bool {
	return errors.Is(err, storage.ErrObjectNotExist) ||
		p.status(err) == http.StatusNotFound && !errors.Is(err, storage.ErrBucketNotExist)
}

func (p gcsProvider) isConditionFailed(err error) bool {
	return p.status(err) == http.StatusPreconditionFailed || p.isNotFound(err)
}

func (gcsProvider) isConflict(error) bool { return false }
