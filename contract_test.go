// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
)

// oldStore is a store that was written before StatBlob, FindBlob and MountBlob.
type oldStore struct {
	UnimplementedStore
	m MemStore
}

func (s *oldStore) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	return s.m.OpenBlob(ctx, repo, d)
}

func (s *oldStore) CreateUpload(ctx context.Context, repo string, opts UploadOptions) (Upload, error) {
	return s.m.CreateUpload(ctx, repo, opts)
}

func (s *oldStore) PutManifest(ctx context.Context, repo string, m Manifest, tags []string, allow AllowFunc) error {
	return s.m.PutManifest(ctx, repo, m, tags, allow)
}

func (s *oldStore) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	return s.m.DeleteBlob(ctx, repo, d)
}

// TestRegistryDoesWithoutNewMethods serves a store that does not implement the
// methods which the contract names as dispensable.
func TestRegistryDoesWithoutNewMethods(t *testing.T) {
	h := New(WithStore(new(oldStore)))
	d := digest.FromString("{}").String()
	image := `{"config":{"digest":"` + d + `"},"layers":[]}`
	for _, c := range []struct {
		method, url, body string
		header            map[string]string
		status            int
	}{
		{"POST", "/v2/a/blobs/uploads/?digest=" + d, "{}", nil, 201},
		{"HEAD", "/v2/a/blobs/" + d, "", nil, 200},
		{"HEAD", "/v2/a/blobs/" + digest.FromString("x").String(), "", nil, 404},
		{"PUT", "/v2/a/manifests/tag", image, map[string]string{"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, 201},
		{"PUT", "/v2/b/manifests/tag", image, map[string]string{"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, 404},
		{"POST", "/v2/b/blobs/uploads/?mount=" + d, "", nil, 202},
		{"POST", "/v2/b/blobs/uploads/?mount=" + d + "&from=a", "", nil, 202},
		{"DELETE", "/v2/a/blobs/" + d, "", map[string]string{"If-Match": `"` + d + `"`}, 202},
		{"GET", "/v2/a/tags/list", "", nil, 400}, // this one is required
	} {
		r := httptest.NewRequest(c.method, c.url, strings.NewReader(c.body))
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		qt.Check(t, qt.Equals(w.Code, c.status), qt.Commentf("%s %s: %s", c.method, c.url, w.Body))
	}
}

// TestEmbeddedMemStoreKeepsTheBudget checks that a store that embeds a MemStore has
// the limit of requests in progress of the MemStore.
func TestEmbeddedMemStoreKeepsTheBudget(t *testing.T) {
	m := &MemStore{Limits: MemLimits{TotalBytes: 1 << 30}}
	embedded := New(WithStore(struct{ *MemStore }{m})).(*server)
	qt.Check(t, qt.Equals(embedded.main.tags.budget.limit, 1<<27))
}

// TestManifestThatNeverFits pushes a manifest that needs more than all requests in
// progress may use: to try again would not help.
func TestManifestThatNeverFits(t *testing.T) {
	h := New(WithLimits(Limits{InFlightBytes: 1 << 20}))
	for size, status := range map[int]int{1 << 17: 201, 1<<18 + 1: 413} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/a/manifests/tag", strings.NewReader(strings.Repeat("x", size))))
		qt.Check(t, qt.Equals(w.Code, status), qt.Commentf("%d bytes: %s", size, w.Body))
	}
}

// TestCloneKeepsItsTimes pushes a blob again to a clone, which must not change the
// time in the original.
func TestCloneKeepsItsTimes(t *testing.T) {
	ctx := context.Background()
	m := new(MemStore)
	d := digest.FromString("x")
	timeOf := func(m *MemStore) time.Time {
		for info, err := range m.Blobs(ctx, "a", "") { // not StatBlob, which is a use
			qt.Assert(t, qt.IsNil(err))
			return info.Time
		}
		return time.Time{}
	}
	push := func(m *MemStore) time.Time {
		qt.Assert(t, qt.IsNil(PushBlob(ctx, m, "a", d, strings.NewReader("x"))))
		return timeOf(m)
	}
	before := push(m)
	time.Sleep(time.Millisecond)
	qt.Check(t, qt.IsTrue(push(m.Clone()).After(before)))
	qt.Check(t, qt.Equals(timeOf(m), before))
}

// TestCloneDoesNotCollect fills a clone of a store that collects when it is full: that
// would free nothing in the clone.
func TestCloneDoesNotCollect(t *testing.T) {
	m := &MemStore{Limits: MemLimits{TotalBytes: 1000}}
	m.Limits.Collect = func() bool {
		t.Error("the original was collected")
		return false
	}
	data := strings.Repeat("x", 1001)
	err := PushBlob(t.Context(), m.Clone(), "a", digest.FromString(data), strings.NewReader(data))
	qt.Check(t, qt.ErrorIs(err, error(ErrTooLarge)))
}

// TestStrangeErrors writes errors that no HTTP response can have.
func TestStrangeErrors(t *testing.T) {
	for _, err := range []*Error{{Code: "X"}, {Status: 200, Code: "X"}, {Status: 1000, Code: "X"}} {
		w := httptest.NewRecorder()
		WriteError(w, httptest.NewRequest("GET", "/", nil), err)
		qt.Check(t, qt.Equals(w.Code, 500))
	}
	w := httptest.NewRecorder()
	WriteError(w, httptest.NewRequest("GET", "/", nil), &Error{Status: 429, RetryAfter: 1<<63 - 1})
	qt.Check(t, qt.Equals(w.Header().Get("Retry-After"), "9223372037"))
}
