// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
)

// TestAnotherLength has an upstream announce a wrong length, send nothing, and then send
// the blob: a client that has the wrong length already does not wait forever.
func TestAnotherLength(t *testing.T) {
	for _, length := range []int{1<<20 - 1, 1<<20 + 1, 2 << 20} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				text := large()
				_, blob := o.push(t, "library/nginx", "1", text)
				var calls atomic.Int64
				o.set(func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if calls.Add(1) > 1 {
							h.ServeHTTP(w, r)
							return
						}
						w.Header().Set("Content-Length", fmt.Sprint(length))
						http.NewResponseController(w).Flush()
						panic(http.ErrAbortHandler)
					})
				})
				c := newClient(t, o, &registry.MemStore{}, nil)
				path := "/v2/docker.io/nginx/blobs/" + string(blob)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://mirror.test"+path, nil)
				qt.Assert(t, qt.IsNil(err))
				resp, err := c.Do(req)
				qt.Assert(t, qt.IsNil(err))
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				qt.Check(t, qt.IsNotNil(err))
				synctest.Wait()
				qt.Check(t, qt.IsTrue(c.get(path).body == text))
			})
		})
	}
}

// lateStore has a blob, which the first calls of each kind do not see: another request
// stores it meanwhile.
type lateStore struct {
	*registry.MemStore
	opens, finds, stats atomic.Int64
	fetching            chan struct{} // closed to let the fetch look
}

func (s *lateStore) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	if strings.HasPrefix(repo, mirror.CachePrefix) && s.opens.Add(1) == 1 {
		return nil, registry.ErrBlobUnknown
	}
	return s.MemStore.OpenBlob(ctx, repo, d)
}

func (s *lateStore) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	if s.finds.Add(1) == 1 {
		return func(func(string, error) bool) {}
	}
	return s.MemStore.FindBlob(ctx, d)
}

func (s *lateStore) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	if strings.HasPrefix(repo, mirror.CachePrefix) {
		switch s.stats.Add(1) {
		case 1: // of the fetch
			<-s.fetching
		case 2: // of the HEAD request
			return registry.Info{}, registry.ErrBlobUnknown
		}
	}
	return s.MemStore.StatBlob(ctx, repo, d)
}

// TestStoredMeanwhile asks for a blob with HEAD while a fetch is about to find that the blob
// is stored already.
func TestStoredMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		_, blob := o.push(t, "library/nginx", "1", "a layer")
		s := &lateStore{MemStore: &registry.MemStore{}, fetching: make(chan struct{})}
		qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s.MemStore, mirror.CachePrefix+"docker.io/library/nginx", blob, strings.NewReader("a layer"))))
		c := newClient(t, o, s, nil)
		var wg sync.WaitGroup
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			wg.Go(func() {
				got := c.do(method, "/v2/docker.io/nginx/blobs/"+string(blob), "", "")
				qt.Check(t, qt.Equals(got.status, 200), qt.Commentf("%s: %s", method, got.body))
			})
			synctest.Wait()
		}
		close(s.fetching)
		wg.Wait()
		qt.Check(t, qt.Equals(o.calls(), 0))
	})
}
