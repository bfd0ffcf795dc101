// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

func TestWriteError(t *testing.T) {
	secret := errors.New("open /secret: no such file")
	for _, c := range []struct {
		name string
		err  error
		code int
		body string
	}{
		{"sentinel", registry.ErrBlobUnknown, 404, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}`},
		{"wrapped", fmt.Errorf("%w: more", registry.ErrDenied), 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied: more"}]}`},
		{"joined", errors.Join(registry.ErrDenied, fmt.Errorf("%w: x", registry.ErrUnauthorized)), 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"},{"code":"UNAUTHORIZED","message":"authentication required: x"}]}`},
		{"joined_in_joined", errors.Join(secret, errors.Join(secret, registry.ErrDenied), registry.ErrUnauthorized), 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"},{"code":"UNAUTHORIZED","message":"authentication required"}]}`},
		{"joined_more_than_fit", errors.Join(slices.Repeat([]error{registry.ErrDenied}, 11)...), 403, `{"errors":[` + strings.TrimSuffix(strings.Repeat(`{"code":"DENIED","message":"requested access to the resource is denied"},`, 10), ",") + `]}`},
		{"joined_with_a_failure", errors.Join(registry.ErrDenied, secret), 403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`},
		{"a_failure", secret, 500, `{"errors":[{"code":"UNSUPPORTED","message":"internal error"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			registry.WriteError(w, httptest.NewRequest("GET", "/v2/", nil), c.err)
			qt.Check(t, qt.Equals(w.Code, c.code))
			qt.Check(t, qt.Equals(w.Body.String(), c.body))
		})
	}
}

// TestErrorIs compares errors that share a code or a status.
func TestErrorIs(t *testing.T) {
	precondition := &registry.Error{Status: 412, Code: "DENIED", Message: "precondition failed"}
	teapot := *registry.ErrDenied
	teapot.Status = 418
	for _, c := range []struct {
		err, target error
		want        bool
	}{
		{registry.ErrDenied, registry.ErrDenied, true},
		{fmt.Errorf("%w: x", registry.ErrDenied), registry.ErrDenied, true},
		{&registry.Error{Status: 403, Code: "DENIED"}, registry.ErrDenied, true},
		{registry.ErrBlobUnknown, registry.ErrManifestUnknown, false},
		// The value of the spec's code stands for all errors with the code.
		{fmt.Errorf("%w: x", registry.ErrUploadBusy), registry.ErrBlobUploadInvalid, true},
		{registry.ErrTooLarge, registry.ErrSizeInvalid, true},
		{registry.ErrTooManyUploads, registry.ErrTooManyRequests, true},
		{precondition, registry.ErrDenied, true},
		// For other targets, the status counts too.
		{registry.ErrSizeInvalid, registry.ErrTooLarge, false},
		{registry.ErrDenied, precondition, false},
		{registry.ErrDenied, &teapot, false},
		{registry.ErrBlobUploadInvalid, registry.ErrUploadBusy, false},
		{errors.New("x"), registry.ErrDenied, false},
	} {
		qt.Check(t, qt.Equals(errors.Is(c.err, c.target), c.want), qt.Commentf("%v is %v", c.err, c.target))
	}
}

// TestErrorHeaders checks that responses have the headers of their errors, and
// that changing a copy of an error, or a response, changes no other response.
func TestErrorHeaders(t *testing.T) {
	write := func(err error) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		registry.WriteError(w, httptest.NewRequest("GET", "/v2/", nil), err)
		return w
	}
	qt.Check(t, qt.Equals(write(registry.ErrTooManyUploads).Header().Get("Retry-After"), "10"))
	qt.Check(t, qt.Equals(write(registry.ErrUnavailable).Header().Get("Retry-After"), "5"))
	qt.Check(t, qt.Equals(write(&registry.Error{Status: 429, RetryAfter: 1}).Header().Get("Retry-After"), "1"))
	for _, err := range []*registry.Error{registry.ErrTooManyUploads, registry.ErrUnavailable, registry.ErrTooManyRequests, registry.ErrUnauthorized} {
		qt.Check(t, qt.IsNil(err.Header), qt.Commentf("%v: a copy of it would share the map", err))
	}
	err := &registry.Error{Status: 401, Code: "UNAUTHORIZED", Header: map[string][]string{"Www-Authenticate": {"Basic"}}}
	write(err).Header()["Www-Authenticate"][0] = "changed"
	qt.Check(t, qt.Equals(write(err).Header().Get("Www-Authenticate"), "Basic"))
}

var errBroken = errors.New("/secret/disk is on fire")

// brokenStore fails in every method.
type brokenStore struct{ registry.UnimplementedStore }

var _ registry.Store = brokenStore{}

func broken[V any]() iter.Seq2[V, error] {
	return func(yield func(V, error) bool) { yield(*new(V), errBroken) }
}

func (brokenStore) OpenBlob(context.Context, string, digest.Digest) (io.ReadSeekCloser, error) {
	return nil, errBroken
}
func (brokenStore) StatBlob(context.Context, string, digest.Digest) (registry.Info, error) {
	return registry.Info{}, errBroken
}
func (brokenStore) Blobs(context.Context, string, digest.Digest) iter.Seq2[registry.Info, error] {
	return broken[registry.Info]()
}
func (brokenStore) Manifests(context.Context, string, digest.Digest) iter.Seq2[registry.Info, error] {
	return broken[registry.Info]()
}
func (brokenStore) MountBlob(context.Context, string, string, digest.Digest) error { return errBroken }
func (brokenStore) FindBlob(context.Context, digest.Digest) iter.Seq2[string, error] {
	return broken[string]()
}
func (brokenStore) DeleteBlob(context.Context, string, digest.Digest) error { return errBroken }
func (brokenStore) CreateUpload(context.Context, string, registry.UploadOptions) (registry.Upload, error) {
	return nil, errBroken
}
func (brokenStore) ResumeUpload(context.Context, string, string) (registry.Upload, error) {
	return nil, errBroken
}
func (brokenStore) UploadSize(context.Context, string, string) (int64, error) { return 0, errBroken }
func (brokenStore) PublishedUpload(context.Context, string, string) (digest.Digest, error) {
	return "", errBroken
}
func (brokenStore) CancelUpload(context.Context, string, string) error { return errBroken }
func (brokenStore) GetManifest(context.Context, string, digest.Digest) (registry.Manifest, error) {
	return registry.Manifest{}, errBroken
}
func (brokenStore) GetTag(context.Context, string, string) (registry.Manifest, error) {
	return registry.Manifest{}, errBroken
}
func (brokenStore) PutManifest(context.Context, string, registry.Manifest, []string, registry.AllowFunc) error {
	return errBroken
}
func (brokenStore) DeleteManifest(context.Context, string, digest.Digest) error { return errBroken }
func (brokenStore) DeleteTag(context.Context, string, string, registry.AllowFunc) error {
	return errBroken
}
func (brokenStore) Tags(context.Context, string, string) iter.Seq2[string, error] {
	return broken[string]()
}
func (brokenStore) Repositories(context.Context, string) iter.Seq2[string, error] {
	return broken[string]()
}
func (brokenStore) Referrers(context.Context, string, digest.Digest, digest.Digest) iter.Seq2[registry.Referrer, error] {
	return broken[registry.Referrer]()
}

// TestBrokenStore serves a store that fails: the response is a 500, which does not
// reveal the cause.
func TestBrokenStore(t *testing.T) {
	h := registry.New(registry.WithStore(brokenStore{}))
	d := sha("x")
	for _, c := range []call{
		{method: "GET", url: "/v2/a/blobs/" + d},
		{method: "DELETE", url: "/v2/a/blobs/" + d},
		{method: "POST", url: "/v2/a/blobs/uploads/"},
		{method: "POST", url: "/v2/a/blobs/uploads/?digest=" + d, body: "x"},
		{method: "POST", url: "/v2/a/blobs/uploads/?mount=" + d},
		{method: "POST", url: "/v2/a/blobs/uploads/?from=b&mount=" + d},
		{method: "PATCH", url: "/v2/a/blobs/uploads/id", body: "x"},
		{method: "PUT", url: "/v2/a/blobs/uploads/id?digest=" + d, body: "x"},
		{method: "GET", url: "/v2/a/blobs/uploads/id"},
		{method: "DELETE", url: "/v2/a/blobs/uploads/id"},
		{method: "GET", url: "/v2/a/manifests/tag"},
		{method: "GET", url: "/v2/a/manifests/" + d},
		{method: "PUT", url: "/v2/a/manifests/tag", body: "x"},
		{method: "PUT", url: "/v2/a/manifests/tag", body: image("x"), header: map[string]string{"Content-Type": typeImage}},
		{method: "PUT", url: "/v2/a/manifests/tag", body: `{"manifests":[` + descriptor(typeImage, "x") + `]}`, header: map[string]string{"Content-Type": typeIndex}},
		{method: "DELETE", url: "/v2/a/manifests/tag"},
		{method: "DELETE", url: "/v2/a/manifests/" + d},
		{method: "GET", url: "/v2/a/tags/list"},
		{method: "GET", url: "/v2/_catalog"},
		{method: "GET", url: "/v2/a/referrers/" + d},
	} {
		c.status, c.wantBody = 500, `{"errors":[{"code":"UNSUPPORTED","message":"internal error"}]}`
		c.do(t, h)
	}
}
