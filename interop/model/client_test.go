// SPDX-License-Identifier: Apache-2.0

// What both kinds of tests send their requests with, and what holds for each
// answer.

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
	racesTime = flag.Duration("races", 0, "how long TestRaces runs; 0 for some rounds of each race")
	modelTime = flag.Duration("model", 0, "how long the tests TestModel* run together; 0 for a short run")
	seedFlag  = flag.Uint64("seed", 0, "the seed of TestModel; 0 for a new one")
)

// stores are the backends under test. A further one is a line here. A bucket is
// none of them: see its package's caveats.
var stores = map[string]func(testing.TB) registry.Store{
	"memory": func(testing.TB) registry.Store { return new(registry.MemStore) },
	"spill": func(testing.TB) registry.Store {
		return &registry.MemStore{Limits: registry.Limits{MemoryBytes: 64 << 20}}
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

// transports are the ways to a registry. In process, the handler meets only
// itself; over loopback, net/http's buffers and connections are part of the
// race.
var transports = []string{"in_process", "loopback"}

// eachRegistry runs test with each store and each transport, and looks after
// what each leaves behind.
func eachRegistry(t *testing.T, test func(t *testing.T, c *client)) {
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			for _, transport := range transports {
				t.Run(transport, func(t *testing.T) {
					noGoroutineLeft(t)
					test(t, newClient(t, stores[name], transport))
				})
			}
		})
	}
}

// noGoroutineLeft fails t if, after all other cleanups, there are more
// goroutines than now.
func noGoroutineLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		n := runtime.NumGoroutine()
		// Connections that were closed need a moment to notice.
		for range 200 {
			if n <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
			n = runtime.NumGoroutine()
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines at the beginning, %d at the end:\n%s", before, n, stacks[:runtime.Stack(stacks, true)])
	})
}

// reporter is what *testing.T and *rapid.T have in common. Nothing here is
// fatal: it is called from goroutines.
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
	count   atomic.Int64 // of requests

	outcomes map[string]int // of races: see saw
}

func newClient(t testing.TB, open func(testing.TB) registry.Store, transport string) *client {
	c := &client{
		base: "http://registry.example",
		open: func() http.Handler { return registry.New(registry.WithStore(open(t))) },

		outcomes: make(map[string]int),
	}
	c.renew()
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

// renew has c go on with a registry that is empty, so that a long run does not
// fill the memory. No request may be under way.
func (c *client) renew() {
	h := c.open()
	c.handler.Store(&h)
}

// call is a request.
type call struct {
	method string
	url    string // path and query
	header map[string]string
	body   string
	drips  bool // the body comes in pieces, with pauses
}

// answer is what a request got. Its fields are zero where there was no answer,
// which was reported then.
type answer struct {
	call
	status int
	header http.Header
	body   string
	codes  []string // of the errors, if any

	from, to int64 // the client's clock before and after
}

// String has no more of the bodies than a log should.
func (a answer) String() string {
	return fmt.Sprintf("%s %s %v (%d bytes): %d %v %.500q", a.method, a.url, a.call.header, len(a.call.body), a.status, a.header, a.body)
}

// saw counts how a race ended: a log that has one outcome alone tells that
// nothing raced. It must not be called concurrently.
func (c *client) saw(answers ...answer) {
	var s []string
	for _, a := range answers {
		s = append(s, fmt.Sprintf("%s_%d", a.method, a.status))
	}
	slices.Sort(s)
	c.outcomes[strings.Join(s, "+")]++
}

// send sends a request. The caller closes the answer's body.
func (c *client) send(call call) (*http.Response, error) {
	var body io.Reader
	if call.body != "" {
		body = strings.NewReader(call.body)
		if call.drips {
			body = &dripping{rest: call.body}
		}
	}
	r, err := http.NewRequest(call.method, c.base+call.url, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = int64(len(call.body))
	for k, v := range call.header {
		r.Header.Set(k, v)
	}
	c.count.Add(1)
	return c.http.Do(r)
}

// do sends a request, and checks what holds for any answer.
func (c *client) do(t reporter, call call) answer {
	t.Helper()
	a := answer{call: call, from: c.clock.Add(1)}
	resp, err := c.send(call)
	if err != nil {
		t.Errorf("%s %s: %v", call.method, call.url, err)
		a.to = c.clock.Add(1)
		return a
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	a.to = c.clock.Add(1)
	if err != nil {
		t.Errorf("%s %s: %d, then %v", call.method, call.url, resp.StatusCode, err)
	}
	a.status, a.header, a.body = resp.StatusCode, resp.Header, string(body)
	a.check(t)
	return a
}

// is reports, to t too, whether a has one of the given statuses.
func (a answer) is(t reporter, statuses ...int) bool {
	t.Helper()
	if slices.Contains(statuses, a.status) {
		return true
	}
	if a.status != 0 { // reported already
		t.Errorf("%v; want one of %v", a, statuses)
	}
	return false
}

// failed reports, to t too, whether a has the status and the error code.
func (a answer) failed(t reporter, status int, code string) bool {
	t.Helper()
	if !a.is(t, status) {
		return false
	}
	if a.method != "HEAD" && !slices.Equal(a.codes, []string{code}) {
		t.Errorf("%s %s %v: %d %v; want %s", a.method, a.url, a.call.header, a.status, a.codes, code)
		return false
	}
	return true
}

// specCodes are the codes of the spec's section "Error Codes".
var specCodes = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID",
	"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
}

func (a *answer) check(t reporter) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%v: "+format, append([]any{*a}, args...)...)
	}
	if a.method == "HEAD" && a.body != "" {
		fail("a body for HEAD")
	}
	switch {
	case a.status >= 500:
		fail("a fault of the registry")
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
			fail("not the spec's shape: %v", err)
		}
		for _, e := range doc.Errors {
			if !slices.Contains(specCodes, e.Code) || e.Message == "" {
				fail("not an error of the spec: %+v", e)
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
			fail("the body is not what the digest says")
		}
	}
}

// dripping is a body that comes in pieces, so that other requests get in
// between.
type dripping struct{ rest string }

func (d *dripping) Read(p []byte) (int, error) {
	if d.rest == "" {
		return 0, io.EOF
	}
	pause()
	n := copy(p, d.rest[:min(len(d.rest), 1+rand.IntN(8<<10))])
	d.rest = d.rest[n:]
	return n, nil
}

// pause lets others go first, sometimes.
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

// together runs functions at once, and returns when all have.
func together(functions ...func()) {
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

// Requests that both kinds of tests make.

func sha(s string) string { return digest.FromString(s).String() }

func blobURL(repo, d string) string { return "/v2/" + repo + "/blobs/" + d }

func manifestURL(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }

// start opens an upload session, and returns its location.
func (c *client) start(t reporter, repo string) string {
	t.Helper()
	a := c.do(t, call{method: "POST", url: "/v2/" + repo + "/blobs/uploads/"})
	a.is(t, 202)
	return a.header.Get("Location")
}

// closeURL is where the PUT goes that closes the session at location.
func closeURL(location, d string) string { return location + "?digest=" + d }

func (c *client) pushBlob(t reporter, repo, data string) answer {
	t.Helper()
	return c.do(t, call{method: "POST", url: "/v2/" + repo + "/blobs/uploads/?digest=" + sha(data), body: data})
}

func (c *client) pushManifest(t reporter, repo, ref, mediaType, data string) answer {
	t.Helper()
	return c.do(t, call{method: "PUT", url: manifestURL(repo, ref), header: map[string]string{"Content-Type": mediaType}, body: data})
}

func (c *client) get(t reporter, url string) answer {
	t.Helper()
	return c.do(t, call{method: "GET", url: url})
}

func (c *client) delete(t reporter, url string) answer {
	t.Helper()
	return c.do(t, call{method: "DELETE", url: url})
}

// hasBlob checks that a blob is there, whole.
func (c *client) hasBlob(t reporter, repo, data string) {
	t.Helper()
	if a := c.get(t, blobURL(repo, sha(data))); a.is(t, 200) && a.body != data {
		t.Errorf("%s: not the content that was pushed", a.url)
	}
}

// hasNoBlob checks that a blob is not there.
func (c *client) hasNoBlob(t reporter, repo, d string) {
	t.Helper()
	c.get(t, blobURL(repo, d)).is(t, 404)
}

// walk reads a list of names page by page, and returns all of it and its
// answers. It ends where a page is refused, or names are not in order.
func (c *client) walk(t reporter, url, field string) (names []string, pages []answer) {
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
				return names, pages // it may go on for ever
			}
			names = append(names, name)
		}
		url = next(t, a)
	}
	return names, pages
}

// next returns where a list goes on, "" at its end.
func next(t reporter, a answer) string {
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
