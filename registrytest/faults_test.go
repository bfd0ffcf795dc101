// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"encoding/json"
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
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/registrytest"
)

// TestFaults sends a GET of a blob through each fault, over loopback and in
// process.
func TestFaults(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	d := digest.FromString(data)
	other := digest.FromString("other")
	for _, c := range []struct {
		name   string
		fault  func(http.Handler) http.Handler
		fails  bool // the client gets no response
		status int
		header [2]string
		body   func(body string, err error) bool
	}{
		{name: "reject", fault: registrytest.Reject(registry.ErrDenied), status: 403, header: [2]string{"Content-Type", "application/json"},
			body: func(body string, err error) bool { return strings.Contains(body, "DENIED") }},
		{name: "respond", fault: registrytest.Respond(503, "try later"), status: 503, header: [2]string{"Content-Type", "text/plain; charset=utf-8"},
			body: func(body string, err error) bool { return body == "try later\n" }},
		{name: "retry_after", fault: registrytest.RetryAfter(90 * time.Second), status: 429, header: [2]string{"Retry-After", "90"}},
		{name: "redirect", fault: registrytest.Redirect("https://other.example"), status: 307, header: [2]string{"Location", "https://other.example/v2/a/blobs/" + d.String() + "?x=y"}},
		{name: "delay", fault: registrytest.Delay(time.Millisecond), status: 200, body: func(body string, err error) bool { return body == data && err == nil }},
		{name: "drop_request", fault: registrytest.DropRequest(), fails: true},
		{name: "drop_response", fault: registrytest.DropResponse(), fails: true},
		{name: "disconnect", fault: registrytest.Disconnect(4567), status: 200, header: [2]string{"Content-Length", "10000"},
			body: func(body string, err error) bool { return body == data[:4567] && errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "disconnect_at_start", fault: registrytest.Disconnect(0), status: 200,
			body: func(body string, err error) bool { return body == "" && errors.Is(err, io.ErrUnexpectedEOF) }},
		{name: "truncate", fault: registrytest.Truncate(4567), status: 200, header: [2]string{"Content-Length", ""},
			body: func(body string, err error) bool { return body == data[:4567] && err == nil }},
		{name: "throttle", fault: registrytest.Throttle(1_000_000), status: 200, body: func(body string, err error) bool { return body == data && err == nil }},
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

func TestDropResponse(t *testing.T) {
	store := new(registry.MemStore)
	faults := registrytest.NewFaults(registrytest.Rule{Op: registry.OpManifestPut, Nth: 1, Fault: registrytest.DropResponse()})
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
	teapot := registrytest.Respond(418, "")
	faults := registrytest.NewFaults(
		registrytest.Rule{Op: registry.OpTags, Nth: 2, Fault: teapot},
		registrytest.Rule{Repo: "bad", Fault: teapot},
		registrytest.Rule{Reference: "bad", Fault: teapot},
		registrytest.Rule{Match: func(r *http.Request, _ registry.Request) bool { return r.Header.Get("Range") != "" }, Fault: teapot},
		registrytest.Rule{Op: registry.OpCatalog, Fault: teapot},
	)
	client := &http.Client{Transport: registrytest.Transport(faults.Handler(inner))}
	for _, c := range []struct {
		path        string
		rangeHeader string
		status      int
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
		if c.rangeHeader != "" {
			req.Header.Set("Range", c.rangeHeader)
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

func TestRulePerPath(t *testing.T) {
	faults := registrytest.NewFaults(
		registrytest.Rule{Nth: 1, PerPath: true, Fault: registrytest.Respond(503, "")},
		registrytest.Rule{Nth: 9, PerPath: true, Fault: registrytest.Respond(418, "")},
	)
	c := newJournaled(t, faults.Handler(registry.New()))
	for _, want := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/v2/", 503}, {"GET", "/v2/", 200}, {"HEAD", "/v2/", 503}, {"GET", "/v2/_catalog", 503},
		{"GET", "/v2/_catalog", 200}, {"GET", "/v2/_catalog?n=1", 200}, {"HEAD", "/v2/", 200},
	} {
		qt.Check(t, qt.Equals(c.send(want.method, want.path, "").StatusCode, want.status), qt.Commentf("%s %s", want.method, want.path))
	}
	qt.Check(t, qt.HasLen(faults.Unfired(), 1))
}

func TestSometimes(t *testing.T) {
	pattern := func(seed uint64) (s string) {
		sometimes := registrytest.Sometimes(0.3, seed)
		for range 1000 {
			s += map[bool]string{true: "x", false: "."}[sometimes(nil, registry.Request{})]
		}
		return s
	}
	one := pattern(1)
	qt.Check(t, qt.Equals(pattern(1), one))
	qt.Check(t, qt.Not(qt.Equals(pattern(2), one)))
	qt.Check(t, qt.IsTrue(strings.Count(one, "x") > 200 && strings.Count(one, "x") < 400))
	qt.Check(t, qt.IsFalse(registrytest.Sometimes(0, 1)(nil, registry.Request{})))
	qt.Check(t, qt.IsTrue(registrytest.Sometimes(1, 1)(nil, registry.Request{})))
}

func TestStaleTag(t *testing.T) {
	store := new(registry.MemStore)
	push := func(content string) digest.Digest {
		m, err := registry.PushManifest(t.Context(), store, "a", registry.ManifestPush{MediaType: "text/plain", Content: []byte(content), Tags: []string{"latest"}})
		qt.Assert(t, qt.IsNil(err))
		return m.Digest
	}
	old := push("old")
	current := push("new")
	faults := registrytest.NewFaults(registrytest.Rule{Fault: registrytest.StaleTag(old)})
	c := newJournaled(t, faults.Handler(registry.New(registry.WithStore(store))))
	for path, want := range map[string]digest.Digest{
		"/v2/a/manifests/latest":              old,
		"/v2/a/manifests/" + current.String(): current,
	} {
		for _, method := range []string{"GET", "HEAD"} {
			qt.Check(t, qt.Equals(c.send(method, path, "").Header.Get("Docker-Content-Digest"), want.String()))
		}
	}
	c.send("PUT", "/v2/a/manifests/latest", "newer", "Content-Type", "text/plain") // a push is not affected
	m, err := store.GetTag(t.Context(), "a", "latest")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(m.Content), "newer"))
}

func TestExpiredToken(t *testing.T) {
	tokens := &auth.TokenServer{Service: "s"}
	faults := registrytest.NewFaults(registrytest.Rule{Nth: 2, Fault: registrytest.ExpiredToken()})
	resp, err := registrytest.Transport(tokens).RoundTrip(httptest.NewRequest("GET", "http://tokens.example/", nil))
	qt.Assert(t, qt.IsNil(err))
	var body struct{ Token string }
	qt.Assert(t, qt.IsNil(json.NewDecoder(resp.Body).Decode(&body)))
	c := newJournaled(t, faults.Handler(auth.Bearer("r", "s", tokens.Verify)(registry.New())))
	for _, want := range []int{200, 401, 200} {
		resp := c.send("GET", "/v2/", "", "Authorization", "Bearer "+body.Token)
		qt.Check(t, qt.Equals(resp.StatusCode, want))
		qt.Check(t, qt.Equals(strings.Contains(resp.Header.Get("Www-Authenticate"), "invalid_token"), want == 401))
	}
}
