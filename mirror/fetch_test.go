// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
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
