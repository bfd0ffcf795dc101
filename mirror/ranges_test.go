// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestFarRangeFails reads a range that is far from the bytes that have come, whose own
// request fails in some way: the fetch brings the rest.
func TestFarRangeFails(t *testing.T) {
	text := registrytest.Random(1, 4<<20)
	const first = 3 << 20
	for _, test := range []struct {
		name  string
		serve http.HandlerFunc // the range's own request
	}{
		{"no response", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"a stall", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(text)-1, len(text)))
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, text[first:first+1000])
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}},
		{"a cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, len(text)-1, len(text)))
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, text[first:first+1000])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}},
		{"500", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }},
		{"no ranges", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }},
		{"another range", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(text)-1, len(text)))
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, text)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOrigin()
				_, blob := o.push(t, "library/nginx", "1", text)
				o.set(func(h http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Header.Get("Range") != "" {
							test.serve(w, r)
							return
						}
						registrytest.Throttle(1<<16)(h).ServeHTTP(w, r)
					})
				})
				c := newClient(t, o, &registry.MemStore{}, nil)
				got := c.do(http.MethodGet, "/v2/docker.io/nginx/blobs/"+string(blob), fmt.Sprintf("Range: bytes=%d-%d", first, first+500_000), "")
				qt.Check(t, qt.Equals(got.status, 206))
				qt.Check(t, qt.IsNil(got.err))
				qt.Check(t, qt.IsTrue(got.body == text[first:first+500_001]))
			})
		})
	}
}

// TestReaderEnds reads the end of a blob by a request of its own, with the mirror as a
// store: the reader says that it is the end.
func TestReaderEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOrigin()
		text := registrytest.Random(1, 4<<20)
		_, blob := o.push(t, "library/nginx", "1", text)
		o.set(registrytest.Throttle(1 << 16))
		c := newClient(t, o, &registry.MemStore{}, nil)
		var content io.ReadSeekCloser
		c.mirror.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var err error
			content, err = c.mirror.OpenBlob(r.Context(), "docker.io/library/nginx", blob)
			qt.Assert(t, qt.IsNil(err))
		})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/", nil))
		defer content.Close()
		_, err := content.Seek(-1000, io.SeekEnd)
		qt.Assert(t, qt.IsNil(err))
		buf := make([]byte, 2000)
		n, err := io.ReadFull(content, buf)
		qt.Check(t, qt.Equals(string(buf[:n]), text[len(text)-1000:]))
		qt.Check(t, qt.ErrorIs(err, io.ErrUnexpectedEOF))
	})
}
