// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// TestEndlessLists checks that lists end whose pages link to each other.
func TestEndlessLists(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", func(http.ResponseWriter, *http.Request) {})
	loop := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "<"+path+`?last=b>; rel="next"`)
			io.WriteString(w, body)
		})
	}
	loop("/v2/app/tags/list", `{"tags":["a","b"]}`)
	loop("/v2/_catalog", `{"repositories":["a","b"]}`)
	server := httptest.NewServer(mux)
	defer server.Close()
	s, err := openRemote(t.Context(), server.URL, remoteFlags{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const want = "the registry's list repeats itself"
	for name, list := range map[string]func(yield func(string, error) bool){"tags": s.Tags(t.Context(), "app", ""), "repositories": s.Repositories(t.Context(), "")} {
		n, last := 0, error(nil)
		for _, err := range list {
			if n++; err != nil || n > 100 {
				last = err
				break
			}
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%s: %d entries, %v, want %s", name, n, last, want)
		}
	}
}

// unsorted is a store whose list of repositories has no order, as those of some
// registries.
type unsorted struct{ registry.UnimplementedStore }

func (unsorted) Repositories(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		_ = yield("b", nil) && yield("a", nil) && yield("b", nil)
	}
}

// TestUnsortedCatalog checks that a copy recognizes all repositories that exist.
func TestUnsortedCatalog(t *testing.T) {
	to := new(registry.MemStore)
	pushManifest(t, to, "a", "text/plain", "x", "", "v1")
	pushManifest(t, to, "b", "text/plain", "x", "", "v1")
	job := newCopier(1)
	job.from, job.to = unsorted{}, to
	if err := job.list(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	existing, err := job.existing(t.Context())
	if len(job.repos) != 2 || !existing["a"] || !existing["b"] || err != nil {
		t.Error(job.repos, existing, err)
	}
}
