// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package registry_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// watchedStore is a store whose blobs report reads that no handler may do.
type watchedStore struct {
	*registry.MemStore
	writing atomic.Bool // a Write of the response is under way
	late    atomic.Int32
}

func (s *watchedStore) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	r, err := s.MemStore.OpenBlob(ctx, repo, d)
	return watchedReader{r, s}, err
}

type watchedReader struct {
	io.ReadSeekCloser
	store *watchedStore
}

func (r watchedReader) Read(p []byte) (int, error) {
	if r.store.writing.Load() {
		r.store.late.Add(1)
	}
	return r.ReadSeekCloser.Read(p)
}

// slowWriter is a response that takes a second for each Write.
type slowWriter struct {
	*httptest.ResponseRecorder
	store *watchedStore
}

func (w slowWriter) Write(p []byte) (int, error) {
	w.store.writing.Store(true)
	defer w.store.writing.Store(false)
	time.Sleep(time.Second)
	return w.ResponseRecorder.Write(p)
}

// TestRangesReadInTurn requests several ranges: the content is read in the goroutine of
// the handler only, since a reader may use the response, and is closed when the handler
// returns.
func TestRangesReadInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &watchedStore{MemStore: new(registry.MemStore)}
		data := strings.Repeat("0123456789", 100_000)
		d := digest.FromString(data)
		qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, "a", d, strings.NewReader(data))))
		r := httptest.NewRequest("GET", "/v2/a/blobs/"+d.String(), nil)
		r.Header.Set("Range", "bytes=0-299999,400000-799999")
		w := slowWriter{httptest.NewRecorder(), s}
		registry.New(registry.WithStore(s)).ServeHTTP(w, r)
		qt.Check(t, qt.Equals(w.Code, http.StatusPartialContent))
		qt.Check(t, qt.Equals(w.Header().Get("Content-Length"), strconv.Itoa(w.Body.Len())))
		qt.Check(t, qt.Equals(s.late.Load(), 0))
	})
}
