// SPDX-License-Identifier: Apache-2.0

// The client of all tests, and the checks that apply to every response.

package model

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/registrytest"
)

var (
	racesTime = flag.Duration("races", 0, "how long TestRaces runs; 0 for a few rounds of each race")
	modelTime = flag.Duration("model", 0, "how long all TestModel* tests together run; 0 for a short run")
	seedFlag  = flag.Uint64("seed", 0, "the seed of TestModel; 0 for a new one")
)

// stores lists the stores under test. It has no bucket: see the caveats of package
// bucket.
var stores = map[string]func(testing.TB) registry.Store{
	"memory": func(testing.TB) registry.Store { return new(registry.MemStore) },
	"spill": func(testing.TB) registry.Store {
		return &registry.MemStore{Limits: registry.MemLimits{MemoryBytes: 64 << 20}}
	},
	"directory": func(t testing.TB) registry.Store {
		s, err := ocidir.Open(t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	},
}

// transports lists the ways to reach a registry. In process, only the handler's
// own calls race; over loopback, net/http's buffers and connections take part.
var transports = []string{"in_process", "loopback"}

// eachRegistry runs test with each store and each transport, and checks that it
// leaves no goroutine behind.
func eachRegistry(t *testing.T, test func(t *testing.T, c *client)) {
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			for _, transport := range transports {
				t.Run(transport, func(t *testing.T) {
					checkGoroutines(t)
					test(t, newClient(t, stores[name], transport))
				})
			}
		})
	}
}

// checkGoroutines fails t if more goroutines run after all other cleanups than run
// now.
func checkGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		n := runtime.NumGoroutine()
		// The goroutines of closed connections need a moment to end.
		for range 200 {
			if n <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
			n = runtime.NumGoroutine()
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines at the start, %d at the end:\n%s", before, n, stacks[:runtime.Stack(stacks, true)])
	})
}

// reporter is implemented by *testing.T and *rapid.T. It has no fatal methods,
// because the functions that use it are called from goroutines.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// client sends requests to a registry.
type client struct {
	base string
	http *http.Client
	open func() http.Handler

	handler atomic.Pointer[http.Handler]
	clock   atomic.Int64 // orders the beginnings and ends of all requests
	count   atomic.Int64 // the number of requests

	outcomes map[string]int // of races: see countOutcome
}

func newClient(t testing.TB, open func(testing.TB) registry.Store, transport string) *client {
	c := &client{
		base: "http://registry.example",
		open: func() http.Handler { return registry.New(registry.WithStore(open(t))) },

		outcomes: make(map[string]int),
	}
	c.reset()
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*c.handler.Load()).ServeHTTP(w, r)
	})
	if transport == "in_process" {
		c.http = &http.Client{Transport: registrytest.Transport(serve)}
		return c
	}
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	connections := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t.Cleanup(connections.CloseIdleConnections)
	c.base = s.URL
	c.http = &http.Client{Transport: connections}
	return c
}

// reset replaces the registry with an empty one, so that a long run does not
// exhaust the memory. No request may be in progress.
func (c *client) reset() {
	h := c.open()
	c.handler.Store(&h)
}

// request is a request to send.
type request struct {
	method string
	url    string // path and query
	header map[string]string
	body   string
	slow   bool // send the body in pieces, with pauses
}

// response is the response to a request. Its fields are zero if no response
// arrived, which do has reported.
type response struct {
	request
	status int
	header http.Header
	body   string
	codes  []string // of the errors, if any

	from, to int64 // the client's clock before the request and after the response
}

// String describes the exchange, with a limited part of the bodies.
func (a response) String() string {
	return fmt.Sprintf("%s %s %v (%d bytes): %d %v %.500q", a.method, a.url, a.request.header, len(a.request.body), a.status, a.header, a.body)
}

// countOutcome counts an outcome of a race: if the log shows a single outcome,
// nothing raced. It must not be called concurrently.
func (c *client) countOutcome(responses ...response) {
	var s []string
	for _, a := range responses {
		s = append(s, fmt.Sprintf("%s_%d", a.method, a.status))
	}
	slices.Sort(s)
	c.outcomes[strings.Join(s, "+")]++
}

// send sends a request. The caller must close the response's body.
func (c *client) send(req request) (*http.Response, error) {
	var body io.Reader
	if req.body != "" {
		body = strings.NewReader(req.body)
		if req.slow {
			body = &slowBody{rest: req.body}
		}
	}
	r, err := http.NewRequest(req.method, c.base+req.url, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = int64(len(req.body))
	for k, v := range req.header {
		r.Header.Set(k, v)
	}
	c.count.Add(1)
	return c.http.Do(r)
}

// do sends a request, and makes the checks that apply to every response.
func (c *client) do(t reporter, req request) response {
	t.Helper()
	a := response{request: req, from: c.clock.Add(1)}
	resp, err := c.send(req)
	if err != nil {
		t.Errorf("%s %s: %v", req.method, req.url, err)
		a.to = c.clock.Add(1)
		return a
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	a.to = c.clock.Add(1)
	if err != nil {
		t.Errorf("%s %s: %d, then %v", req.method, req.url, resp.StatusCode, err)
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, string(body)
	a.check(t)
	return a
}

// hasStatus reports whether a has one of the given statuses. If not, it fails t.
func (a response) hasStatus(t reporter, statuses ...int) bool {
	t.Helper()
	if slices.Contains(statuses, a.status) {
		return true
	}
	if a.status != 0 { // otherwise do has reported it
		t.Errorf("%v; want one of %v", a, statuses)
	}
	return false
}

// hasError reports whether a has the given status and error code. If not, it fails
// t.
func (a response) hasError(t reporter, status int, code string) bool {
	t.Helper()
	if !a.hasStatus(t, status) {
		return false
	}
	if a.method != "HEAD" && !slices.Equal(a.codes, []string{code}) {
		t.Errorf("%s %s %v: %d %v; want %s", a.method, a.url, a.request.header, a.status, a.codes, code)
		return false
	}
	return true
}

// specCodes lists the codes of the spec's section "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
	"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

// check makes the checks that apply to every response, and sets a.codes.
func (a *response) check(t reporter) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%v: "+format, append([]any{*a}, args...)...)
	}
	if a.method == "HEAD" && a.body != "" {
		fail("a response to HEAD with a body")
	}
	switch {
	case a.status >= 500:
		fail("a server error")
	case a.status >= 400:
		if a.header.Get("Content-Type") != "application/json" {
			fail("an error that is not JSON")
		}
		if a.method == "HEAD" {
			return
		}
		var doc struct {
			Errors []struct {
				Code    string          `json:"code"`
				Message string          `json:"message"`
				Detail  json.RawMessage `json:"detail"`
			} `json:"errors"`
		}
		dec := json.NewDecoder(strings.NewReader(a.body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&doc); err != nil || len(doc.Errors) == 0 {
			fail("the error does not have the spec's shape: %v", err)
		}
		for _, e := range doc.Errors {
			if !slices.Contains(specCodes, e.Code) || e.Message == "" {
				fail("the spec has no such error, or it has no message: %+v", e)
			}
			a.codes = append(a.codes, e.Code)
		}
	case a.status == 200 || a.status == 206:
		d := digest.Digest(a.header.Get("Docker-Content-Digest"))
		if d == "" {
			return // a list
		}
		if a.header.Get("Etag") != `"`+d.String()+`"` {
			fail("the ETag is not the digest")
		}
		if err := d.Validate(); err != nil {
			fail("%v", err)
			return
		}
		if a.method == "GET" && a.status == 200 && d.Algorithm().FromString(a.body) != d {
			fail("the body does not have the digest")
		}
	}
}

// slowBody is a body that is sent in pieces, so that other requests can interleave
// with it.
type slowBody struct{ rest string }

func (d *slowBody) Read(p []byte) (int, error) {
	if d.rest == "" {
		return 0, io.EOF
	}
	pause()
	n := copy(p, d.rest[:min(len(d.rest), 1+rand.IntN(8<<10))])
	d.rest = d.rest[n:]
	return n, nil
}

// pause sometimes lets other goroutines run first.
func pause() {
	switch rand.IntN(4) {
	case 0:
		time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
	case 1:
		for range rand.IntN(20) {
			runtime.Gosched()
		}
	}
}

// concurrently calls functions at the same time, and waits for all of them.
func concurrently(functions ...func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, f := range functions {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			pause()
			f()
		}()
	}
	close(start)
	wg.Wait()
}

// Requests that several tests send.

func sha(s string) string { return digest.FromString(s).String() }

func blobURL(repo, d string) string { return "/v2/" + repo + "/blobs/" + d }

func manifestURL(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }

// startUpload opens an upload session, and returns its location.
func (c *client) startUpload(t reporter, repo string) string {
	t.Helper()
	a := c.do(t, request{method: "POST", url: "/v2/" + repo + "/blobs/uploads/"})
	a.hasStatus(t, 202)
	return a.header.Get("Location")
}

// closeURL returns the URL of the PUT that closes the session at location.
func closeURL(location, d string) string { return location + "?digest=" + d }

func (c *client) pushBlob(t reporter, repo, data string) response {
	t.Helper()
	return c.do(t, request{method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + sha(data), body: data})
}

func (c *client) pushManifest(t reporter, repo, ref, mediaType, data string) response {
	t.Helper()
	return c.do(t, request{method: "PUT", url: manifestURL(repo, ref), header: map[string]string{"Content-Type": mediaType}, body: data})
}

func (c *client) get(t reporter, url string) response {
	t.Helper()
	return c.do(t, request{method: "GET", url: url})
}

func (c *client) delete(t reporter, url string) response {
	t.Helper()
	return c.do(t, request{method: "DELETE", url: url})
}

// checkBlob checks that repo has a blob, with the right content.
func (c *client) checkBlob(t reporter, repo, data string) {
	t.Helper()
	if a := c.get(t, blobURL(repo, sha(data))); a.hasStatus(t, 200) && a.body != data {
		t.Errorf("%s: the content differs from the pushed one", a.url)
	}
}

// checkNoBlob checks that repo does not have a blob.
func (c *client) checkNoBlob(t reporter, repo, d string) {
	t.Helper()
	c.get(t, blobURL(repo, d)).hasStatus(t, 404)
}

// walk reads a list of names page by page, and returns the names and the
// responses. It stops at a page that is rejected or out of order.
func (c *client) walk(t reporter, url, field string) (names []string, pages []response) {
	t.Helper()
	for url != "" {
		a := c.get(t, url)
		pages = append(pages, a)
		if a.status != 200 {
			return names, pages
		}
		var doc map[string]json.RawMessage
		var page []string
		err := json.Unmarshal([]byte(a.body), &doc)
		if err == nil {
			err = json.Unmarshal(doc[field], &page)
		}
		if err != nil || page == nil {
			t.Errorf("%s: %v: %s", url, err, a.body)
		}
		for _, name := range page {
			if len(names) > 0 && names[len(names)-1] >= name {
				t.Errorf("%s: %q, then %q", url, names[len(names)-1], name)
				return names, pages // the list may be endless
			}
			names = append(names, name)
		}
		url = nextPage(t, a)
	}
	return names, pages
}

// nextPage returns the URL of the next page of a list, "" at its end.
func nextPage(t reporter, a response) string {
	t.Helper()
	link := a.header.Get("Link")
	if link == "" {
		return ""
	}
	url, ok := strings.CutPrefix(link, "<")
	url, ok2 := strings.CutSuffix(url, `>; rel="next"`)
	if !ok || !ok2 {
		t.Errorf("%s: Link: %s", a.url, link)
		return ""
	}
	return url
}
