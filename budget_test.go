// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestBudget uses up the memory of requests in progress with stalled manifests, and
// checks that further ones are rejected with 429 until the stalled ones have ended.
func TestBudget(t *testing.T) {
	const mib = 1 << 20
	h := New(WithStore(&MemStore{Limits: MemLimits{TotalBytes: 10 * mib}}), WithLimits(Limits{ManifestBytes: mib})) // a budget of a little more than 4 MiB
	put := func(body io.Reader) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("PUT", "/v2/a/manifests/tag", body))
		return w
	}
	large := strings.Repeat("x", mib)
	qt.Assert(t, qt.Equals(put(strings.NewReader(large)).Code, 201))

	var stalled []*io.PipeWriter
	done := make(chan *httptest.ResponseRecorder)
	for range 4 {
		r, w := io.Pipe()
		stalled = append(stalled, w)
		go func() { done <- put(io.MultiReader(strings.NewReader(large[:mib-10]), r)) }()
		if _, err := io.WriteString(w, "."); err != nil { // everything before it was read, or the push was rejected
			t.Fatal(err)
		}
	}
	w := put(strings.NewReader(large))
	qt.Check(t, qt.Equals(w.Code, 429))
	qt.Check(t, qt.Equals(w.Header().Get("Retry-After"), "1"))
	qt.Check(t, qt.StringContains(w.Body.String(), "all requests in progress may use"))
	qt.Check(t, qt.Equals(put(strings.NewReader("small")).Code, 201))

	for _, w := range stalled {
		w.CloseWithError(errors.New("gone"))
	}
	for range stalled {
		qt.Check(t, qt.Equals((<-done).Code, 400))
	}
	qt.Check(t, qt.Equals(put(strings.NewReader(large)).Code, 201))
	qt.Check(t, qt.Equals(h.(*server).main.manifests.budget.used.Load(), 0))
}

// TestListsInPieces gets a list of all tags, which is sent in pieces, and long pages,
// which are kept in memory.
func TestListsInPieces(t *testing.T) {
	const n = 40_000
	m := new(MemStore)
	var tags []string
	for i := range n {
		tags = append(tags, fmt.Sprintf("%s%06d", strings.Repeat("t", 100), i))
	}
	_, err := PushManifest(context.Background(), m, "a", ManifestPush{Content: []byte("m"), Tags: tags})
	qt.Assert(t, qt.IsNil(err))
	all := `{"name":"a","tags":["` + strings.Join(tags, `","`) + `"]}`
	get := func(h http.Handler, url string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", url, nil))
		return w
	}
	h := New(WithStore(m))
	w := get(h, "/v2/a/tags/list")
	qt.Check(t, qt.IsTrue(w.Body.String() == all))
	qt.Check(t, qt.Equals(w.Header().Get("Content-Type"), "application/json"))
	qt.Check(t, qt.Equals(w.Header().Get("Link"), ""))

	var joined []string
	for url := "/v2/a/tags/list?n=1000000"; url != ""; {
		w := get(h, url)
		qt.Assert(t, qt.Equals(w.Code, 200))
		qt.Check(t, qt.IsTrue(w.Body.Len() < maxPage+1000))
		qt.Check(t, qt.Equals(w.Header().Get("Content-Length"), fmt.Sprint(w.Body.Len())))
		names := strings.TrimSuffix(strings.TrimPrefix(w.Body.String(), `{"name":"a","tags":["`), `"]}`)
		joined = append(joined, strings.Split(names, `","`)...)
		url, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
	}
	qt.Check(t, qt.DeepEquals(joined, tags))

	h = New(WithStore(m), WithLimits(Limits{InFlightBytes: 128 << 10})) // a budget of 128 KiB
	qt.Check(t, qt.Equals(get(h, "/v2/a/tags/list").Code, 200))
	qt.Check(t, qt.Equals(get(h, "/v2/a/tags/list?n=500").Code, 200))
	qt.Check(t, qt.Equals(get(h, "/v2/a/tags/list?n=2000").Code, 429))
	qt.Check(t, qt.Equals(h.(*server).main.tags.budget.used.Load(), 0))
}

// brokenLists is a store whose lists fail after some names.
type brokenLists struct{ *MemStore }

func (brokenLists) Tags(context.Context, string, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for i := range 1000 {
			if !yield(fmt.Sprintf("%0100d", i), nil) {
				return
			}
		}
		yield("", errors.New("broken"))
	}
}

// TestListBreaks lists the tags of a store that fails midway. If the status has been
// sent, the registry aborts the connection, so that no client mistakes a part of the
// list for all of it.
func TestListBreaks(t *testing.T) {
	s := httptest.NewServer(New(WithStore(brokenLists{new(MemStore)})))
	defer s.Close()
	resp, err := s.Client().Get(s.URL + "/v2/a/tags/list?n=2000")
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.StatusCode, 500))
	resp, err = s.Client().Get(s.URL + "/v2/a/tags/list")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	qt.Check(t, qt.IsNotNil(err))
}
