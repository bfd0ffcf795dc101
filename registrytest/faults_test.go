// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// TestFaults has a GET of a blob meet each fault, over loopback and in process.
func TestFaults(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	d := digest.FromString(data)
	other := digest.FromString("other")
	for _, c := range []struct {
		name   string
		fault  func(http.Handler) http.Handler
		fails  bool // there is no answer
		status int
		header [2]string
		body   func(body string, err error) bool
	}{
		{name: "refuse", fault: registrytest.Refuse(registry.ErrDenied), status: 403, header: [2]string{"Content-Type", "application/json"},
			body: func(body string, err error) bool { return strings.Contains(body, "DENIED") }},
		{name: "answer", fault: registrytest.Answer(503, "try later"), status: 503, header: [2]string{"Content-Type", "text/plain; charset=utf-8"},
			body: func(body string, err error) bool { return body == "try later\n" }},
		{name: "retry_after", fault: registrytest.RetryAfter(90 * time.Second), status: 429, header: [2]string{"Retry-After", "90"}},
		{name: "redirect", fault: registrytest.Redirect("https://other.example"), status: 307, header: [2]string{"Location", "https://other.example/v2/a/blobs/" + d.String() + "?x=y"}},
		{name: "delay", fault: registrytest.Delay(time.Millisecond), status: 200, body: func(body string, err error) bool { return body == data && err == nil }},
		{name: "drop_before", fault: registrytest.Drop(false), fails: true},
		{name: "drop_after", fault: registrytest.Drop(true), fails: true},
		{name: "cut", fault: registrytest.Cut(4567, false), status: 200, header: [2]string{"Content-Length", "10000"},
			body: func(body string, err error) bool { return body == data[:4567] && errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "cut_at_once", fault: registrytest.Cut(0, false), status: 200,
			body: func(body string, err error) bool { return body == "" && errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "cut_clean", fault: registrytest.Cut(4567, true), status: 200, header: [2]string{"Content-Length", ""},
			body: func(body string, err error) bool { return body == data[:4567] && err == nil }},
		{name: "drip", fault: registrytest.Drip(1_000_000), status: 200, body: func(body string, err error) bool { return body == data && err == nil }},
		{name: "corrupt", fault: registrytest.Corrupt(), status: 200,
			body: func(body string, err error) bool {
				return err == nil && len(body) == len(data) && body != data && body[1:] == data[1:]
			}},
		{name: "wrong_digest", fault: registrytest.WrongDigest(other), status: 200, header: [2]string{"Docker-Content-Digest", other.String()},
			body: func(body string, err error) bool { return body == data && err == nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := new(registry.MemStore)
			qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), store, "a", d, strings.NewReader(data))))
			faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpBlobGet, Fault: c.fault})
			h := faults.Handler(registry.New(registry.WithStore(store)))
			s := httptest.NewServer(h)
			defer s.Close()
			for _, transport := range []http.RoundTripper{s.Client().Transport, registrytest.Transport(h)} {
				req, err := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+d.String()+"?x=y", nil)
				qt.Assert(t, qt.IsNil(err))
				resp, err := transport.RoundTrip(req)
				if c.fails {
					qt.Check(t, qt.IsNotNil(err))
					continue
				}
				qt.Assert(t, qt.IsNil(err))
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				qt.Check(t, qt.Equals(resp.StatusCode, c.status))
				if c.header[0] != "" {
					qt.Check(t, qt.Equals(resp.Header.Get(c.header[0]), c.header[1]))
				}
				if c.body != nil {
					qt.Check(t, qt.IsTrue(c.body(string(body), err)), qt.Commentf("%d bytes, %v", len(body), err))
				}
			}
			qt.Check(t, qt.HasLen(faults.Unfired(), 0))
		})
	}
}

func TestDropAfterTheRegistryDidIt(t *testing.T) {
	store := new(registry.MemStore)
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpManifestPut, Nth: 1, Fault: registrytest.Drop(true)})
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(registry.New(registry.WithStore(store))))}
	put := func() error {
		req, _ := http.NewRequest("PUT", "http://registry.example/v2/a/manifests/tag", strings.NewReader("m"))
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	qt.Check(t, qt.IsNotNil(put()))
	_, err := store.GetTag(t.Context(), "a", "tag")
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(put()))
}

func TestRules(t *testing.T) {
	inner := registry.New()
	teapot := registrytest.Answer(418, "")
	faults := registrytest.NewFaults(
		registrytest.Rule{Op: registry.OpTags, Nth: 2, Fault: teapot},
		registrytest.Rule{Repo: "bad", Fault: teapot},
		registrytest.Rule{Reference: "bad", Fault: teapot},
		registrytest.Rule{Match: func(r *http.Request, _ registry.Request) bool { return r.Header.Get("Range") != "" }, Fault: teapot},
		registrytest.Rule{Op: registry.OpCatalog, Fault: teapot},
	)
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(inner))}
	for _, c := range []struct {
		path   string
		ranges string
		status int
	}{
		{"/v2/a/tags/list", "", 404},
		{"/v2/a/tags/list", "", 418},
		{"/v2/a/tags/list", "", 404},
		{"/v2/bad/manifests/x", "", 418},
		{"/v2/a/manifests/bad", "", 418},
		{"/v2/a/manifests/good", "", 404},
		{"/v2/a/manifests/good", "bytes=0-", 418},
	} {
		req, _ := http.NewRequest("GET", "http://registry.example"+c.path, nil)
		if c.ranges != "" {
			req.Header.Set("Range", c.ranges)
		}
		resp, err := client.Do(req)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.StatusCode, c.status), qt.Commentf("%s", c.path))
	}
	unfired := faults.Unfired()
	qt.Assert(t, qt.HasLen(unfired, 1))
	qt.Check(t, qt.Equals(unfired[0].Op, registry.OpCatalog))
}
