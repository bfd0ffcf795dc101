// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// lazyStore is a store whose blobs cost nothing until they are read.
type lazyStore struct {
	*registry.MemStore
	err      error
	prepared []int64 // the offsets
}

func (s *lazyStore) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	r, err := s.MemStore.OpenBlob(ctx, repo, d)
	return lazyReader{r, s}, err
}

type lazyReader struct {
	io.ReadSeekCloser
	store *lazyStore
}

func (r lazyReader) Prepare() error {
	offset, err := r.Seek(0, io.SeekCurrent)
	r.store.prepared = append(r.store.prepared, offset)
	return errors.Join(err, r.store.err)
}

// TestPrepare serves content that finds out late that it can't be read: that is an
// error, and not a response that breaks off.
func TestPrepare(t *testing.T) {
	s := &lazyStore{MemStore: new(registry.MemStore)}
	h := registry.New(registry.WithStore(s))
	const data = "0123456789"
	d := digest.FromString(data)
	qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, "a", d, strings.NewReader(data))))
	for _, test := range []struct {
		method, header, value string
		prepared              []int64
		status                int
	}{
		{"GET", "", "", []int64{0}, http.StatusOK},
		{"GET", "Range", "bytes=3-4", []int64{3}, http.StatusPartialContent},
		{"GET", "Range", "bytes=30-,3-4,6-7", []int64{3}, http.StatusPartialContent},
		{"GET", "Range", "bytes=30-", nil, http.StatusRequestedRangeNotSatisfiable},
		{"GET", "If-None-Match", `"` + d.String() + `"`, nil, http.StatusNotModified},
		{"HEAD", "", "", nil, http.StatusOK},
	} {
		for _, s.err = range []error{nil, registry.ErrUnavailable} {
			s.prepared = nil
			r := httptest.NewRequest(test.method, "/v2/a/blobs/"+d.String(), nil)
			if test.header != "" {
				r.Header.Set(test.header, test.value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			qt.Check(t, qt.DeepEquals(s.prepared, test.prepared))
			if s.err == nil || test.prepared == nil {
				qt.Check(t, qt.Equals(w.Code, test.status))
				continue
			}
			qt.Check(t, qt.Equals(w.Code, http.StatusServiceUnavailable))
			qt.Check(t, qt.StringContains(w.Body.String(), `"UNAVAILABLE"`))
			for _, name := range []string{"Docker-Content-Digest", "Etag", "Accept-Ranges", "Content-Range"} {
				qt.Check(t, qt.Equals(w.Header().Get(name), ""))
			}
		}
	}
}
