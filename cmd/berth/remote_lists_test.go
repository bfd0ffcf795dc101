// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
	s, err := openRemote(t.Context(), server.URL, "")
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
