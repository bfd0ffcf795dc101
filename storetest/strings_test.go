// SPDX-License-Identifier: Apache-2.0

package storetest_test

import (
	"context"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// keeper is a store that keeps its arguments, except for the content of manifests.
type keeper struct {
	*registry.MemStore
	kept *[]any
}

func (k keeper) keep(args ...any) { *k.kept = append(*k.kept, args...) }

func (k keeper) CreateUpload(ctx context.Context, repo string, opts registry.UploadOptions) (registry.Upload, error) {
	k.keep(repo, opts)
	return k.MemStore.CreateUpload(ctx, repo, opts)
}

func (k keeper) ResumeUpload(ctx context.Context, repo, id string) (registry.Upload, error) {
	k.keep(repo, id)
	return k.MemStore.ResumeUpload(ctx, repo, id)
}

func (k keeper) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	k.keep(repo, from, d)
	return k.MemStore.MountBlob(ctx, repo, from, d)
}

func (k keeper) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	m.Content = nil
	k.keep(repo, m, tags)
	return nil
}

// TestStoresKeepNoRequests sends requests with a query and a header of a megabyte
// to a store that keeps all that it gets: it does not keep the requests. So stores
// need not copy the strings that they get.
func TestStoresKeepNoRequests(t *testing.T) {
	blob, m := digest.FromString("blob"), digest.FromString("{}")
	index := `{"manifests":[],"artifactType":"a/b","subject":{"mediaType":"x/y","size":1,"digest":"` + blob.String() + `"},"annotations":{"a":"b"}}`
	padding := strings.Repeat("x", 1<<20)
	for _, r := range []struct{ method, url, mediaType, body string }{
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512&ns=&x=", "", ""},
		{"POST", "/v2/a/blobs/uploads/?digest=" + blob.String() + "&x=", "", "blob"},
		{"POST", "/v2/b/blobs/uploads/?from=a&mount=" + blob.String() + "&x=", "", ""},
		{"PATCH", "/v2/b/blobs/uploads/mine?x=", "", ""},
		{"PUT", "/v2/a/manifests/tag?x=", "text/plain; x=", "m"},
		{"PUT", "/v2/a/manifests/" + m.String() + "?tag=one&tag=two&x=", "application/x-other;x=", "{}"},
		{"PUT", "/v2/a/manifests/" + digest.FromString(index).String() + "?x=", "application/vnd.oci.image.index.v1+json;x=", index},
	} {
		s := keeper{new(registry.MemStore), new([]any)}
		if err := registry.PushBlob(t.Context(), s.MemStore, "a", blob, strings.NewReader("blob")); err != nil {
			t.Fatal(err)
		}
		h := registry.New(registry.WithStore(s), registry.ClientUploadIDs())
		before := heap()
		const n = 10
		for range n {
			req := httptest.NewRequest(r.method, r.url+padding, strings.NewReader(r.body))
			req.Header.Set("Content-Type", r.mediaType+padding)
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, req); w.Code >= 300 {
				t.Fatalf("%s %s: %d %s", r.method, r.url, w.Code, w.Body)
			}
		}
		if kept := heap() - before; kept > n*int64(len(padding))/4 {
			t.Errorf("%s %s: %d requests keep %d bytes", r.method, r.url, n, kept)
		}
		if len(*s.kept) == 0 {
			t.Errorf("%s %s: the store has got nothing to keep", r.method, r.url)
		}
		runtime.KeepAlive(s)
	}
}

// heap returns the number of bytes in use on the heap.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
