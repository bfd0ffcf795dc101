// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// uploads is a server that keeps one resumable upload of Google's API.
type uploads struct {
	*httptest.Server
	fault func(request string) outcome // of the next request, "BEGIN" or its Content-Range

	data     []byte
	complete bool
	requests []string
}

// outcome says how a request fails.
type outcome struct {
	keep   int // how many bytes are kept; all if it is -1
	status int // of the response; 0 if it is that of success, or -1 for no response
}

func (s *uploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	request := "BEGIN"
	if r.Method == http.MethodPut {
		request = strings.TrimPrefix(r.Header.Get("Content-Range"), "bytes ")
	}
	s.requests = append(s.requests, request)
	o := s.fault(request)
	if o.keep >= 0 {
		body = body[:min(o.keep, len(body))]
	}
	position, total, _ := strings.Cut(request, "/")
	if r.Method == http.MethodPut {
		if start, _, ok := strings.Cut(position, "-"); ok && start != fmt.Sprint(len(s.data)) {
			http.Error(w, "these bytes do not follow the last ones", http.StatusBadRequest)
			return
		}
		s.data = append(s.data, body...)
		s.complete = total == fmt.Sprint(len(s.data))
	}
	switch {
	case o.status < 0:
		panic(http.ErrAbortHandler)
	case o.status > 0:
		w.WriteHeader(o.status)
	case request == "BEGIN":
		w.Header().Set("Location", s.URL+"/session")
	case s.complete:
		io.WriteString(w, "{}")
	default:
		if len(s.data) > 0 {
			w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(s.data)-1))
		}
		w.WriteHeader(http.StatusPermanentRedirect)
	}
}

// TestGoogleWriterFaults writes objects of two and a half chunks. A writer asks what has
// arrived after each request that has failed, and goes on from there.
func TestGoogleWriterFaults(t *testing.T) {
	const (
		chunk  = objects.WriterMemory / 2
		size   = 5 * chunk / 2
		first  = "0-8388607/*"
		second = "8388608-16777215/*"
		third  = "16777216-20971519/20971520"
	)
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	all := outcome{keep: -1}
	for _, test := range []struct {
		name     string
		faults   map[string][]outcome // of a request, one after the other
		requests []string             // those that the writer makes
		fails    bool
	}{
		{"none", nil, []string{"BEGIN", first, second, third}, false},
		{"begin again", map[string][]outcome{"BEGIN": {{0, 503}, {0, -1}}}, []string{"BEGIN", "BEGIN", "BEGIN", first, second, third}, false},
		{"lost response", map[string][]outcome{first: {{-1, -1}}}, []string{"BEGIN", first, "*/*", second, third}, false},
		{"lost request", map[string][]outcome{second: {{0, -1}}}, []string{"BEGIN", first, second, "*/*", second, third}, false},
		{"unavailable", map[string][]outcome{second: {{0, 503}}}, []string{"BEGIN", first, second, "*/*", second, third}, false},
		{"busy", map[string][]outcome{second: {{0, 429}}, "*/*": {{0, 503}}}, []string{"BEGIN", first, second, "*/*", "*/*", second, third}, false},
		{"a part is kept", map[string][]outcome{second: {{1 << 20, 0}}}, []string{"BEGIN", first, second, "9437184-16777215/*", third}, false},
		{"a part is kept without a response", map[string][]outcome{second: {{1 << 20, -1}}}, []string{"BEGIN", first, second, "*/*", "9437184-16777215/*", third}, false},
		{"lost response to the last", map[string][]outcome{third: {{-1, -1}}}, []string{"BEGIN", first, second, third, "*/20971520"}, false},
		{"lost request for the last", map[string][]outcome{third: {{0, 500}}}, []string{"BEGIN", first, second, third, "*/20971520", third}, false},
		{"down", map[string][]outcome{second: {{0, 503}}, "*/*": {{0, 503}, {0, 503}}}, []string{"BEGIN", first, second, "*/*", "*/*"}, true},
		{"nothing is kept", map[string][]outcome{second: {{0, 0}, {0, 0}, {0, 0}}}, []string{"BEGIN", first, second, second, second}, true},
		{"forbidden", map[string][]outcome{second: {{0, 403}}}, []string{"BEGIN", first, second}, true},
		{"gone", map[string][]outcome{second: {{0, 404}}}, []string{"BEGIN", first, second}, true},
		{"cancelled", map[string][]outcome{second: {{0, 410}}}, []string{"BEGIN", first, second}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &uploads{fault: func(request string) outcome {
				faults := test.faults[request]
				if len(faults) == 0 {
					return all
				}
				test.faults[request] = faults[1:]
				return faults[0]
			}}
			s.Server = httptest.NewServer(s)
			defer s.Close()
			t.Setenv("STORAGE_EMULATOR_HOST", s.URL)
			w := open(t, "gs://b").NewWriter(context.Background(), "k")
			_, err := w.Write(data)
			err = errors.Join(err, w.Close())
			w.Abort()
			qt.Check(t, qt.Equals(err != nil, test.fails), qt.Commentf("%v", err))
			qt.Check(t, qt.IsFalse(errors.Is(err, objects.ErrNotExist)))
			qt.Check(t, qt.DeepEquals(s.requests, test.requests))
			qt.Check(t, qt.Equals(s.complete, !test.fails))
			if !test.fails {
				qt.Check(t, qt.IsTrue(bytes.Equal(s.data, data)))
			}
		})
	}
}
