// SPDX-License-Identifier: Apache-2.0

// RunHTTP, which tests a store through the registry.

package storetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/berth-oci/registry"
)

// RunHTTP sends requests to a registry that serves the store under test, and checks
// the responses. For each request it calls open, which must return a new, empty
// store.
func RunHTTP(t *testing.T, open func(t *testing.T) registry.Store) {
	for _, e := range slices.Concat(blobExchanges, manifestExchanges) {
		t.Run(e.name, func(t *testing.T) {
			opts := []registry.Option{registry.WithStore(open(t))}
			if e.clientUploadIDs {
				opts = append(opts, registry.ClientUploadIDs())
			}
			e.run(t, registry.New(opts...))
		})
		if !e.clientUploadIDs {
			continue
		}
		// A registry without the option does not know these sessions.
		t.Run(e.name+"_without_client_upload_ids", func(t *testing.T) {
			e.uploads = nil
			e.status, e.wantHeader, e.wantBody, e.wantCode = 404, nil, "", "BLOB_UPLOAD_UNKNOWN"
			e.run(t, registry.New(registry.WithStore(open(t))))
		})
	}
}

// exchange is a request to a registry with some content, and the expected response.
type exchange struct {
	name string

	manifests, blobs, uploads map[string]string // content by path, digest and session ID
	clientUploadIDs           bool              // the request requires registry.ClientUploadIDs

	method, url string
	header      map[string]string
	body        string

	status     int
	wantHeader map[string]string
	wantBody   string // unless empty
	wantCode   string // of the first error, unless empty
}

// run pushes the content, sends the request and checks the response.
func (e exchange) run(t *testing.T, h http.Handler) {
	for path, data := range e.manifests {
		e.setUp(t, h, "PUT", "/v2/"+path, data, "Content-Type", "application/octet-stream")
	}
	for d, data := range e.blobs {
		e.setUp(t, h, "POST", "/v2/foo/blobs/uploads/?digest="+d, data, "Content-Type", "application/octet-stream")
	}
	for id, data := range e.uploads {
		e.setUp(t, h, "PATCH", "/v2/foo/blobs/uploads/"+id, data, "Content-Range", fmt.Sprintf("0-%d", len(data)-1))
	}
	w := e.send(h, e.method, e.url, e.body, e.header)
	dump := fmt.Sprintf("%s %s: %d %v %.1000s", e.method, e.url, w.Code, w.Header(), w.Body)
	if w.Code != e.status {
		t.Errorf("got status %d, want %d\n%s", w.Code, e.status, dump)
	}
	for k, v := range e.wantHeader {
		if got := strings.Join(w.Header().Values(k), ", "); got != v {
			t.Errorf("got %s %q, want %q\n%s", k, got, v, dump)
		}
	}
	if e.wantBody != "" && w.Body.String() != e.wantBody {
		t.Errorf("got body %q, want %q\n%s", w.Body, e.wantBody, dump)
	}
	if w.Code < 400 || e.method == "HEAD" {
		return
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || len(doc.Errors) == 0 || doc.Errors[0].Message == "" {
		t.Fatalf("malformed error response: %v\n%s", err, dump)
	}
	if e.wantCode != "" && doc.Errors[0].Code != e.wantCode {
		t.Errorf("got code %s, want %s\n%s", doc.Errors[0].Code, e.wantCode, dump)
	}
}

// setUp sends a request that pushes content.
func (e exchange) setUp(t *testing.T, h http.Handler, method, url, body, headerName, headerValue string) {
	t.Helper()
	if w := e.send(h, method, url, body, map[string]string{headerName: headerValue}); w.Code != 201 && w.Code != 202 {
		t.Fatalf("setup: %s %s: got status %d, want 201 or 202: %s", method, url, w.Code, w.Body)
	}
}

// send sends a request to h.
func (exchange) send(h http.Handler, method, url, body string, header map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
