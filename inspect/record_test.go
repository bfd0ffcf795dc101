// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
)

// TestRecordsAreBounded records requests that are as large as net/http lets them be, and
// measures what is kept of them.
func TestRecordsAreBounded(t *testing.T) {
	const requests, allowed = 60, 8 << 20
	for _, c := range []struct{ name, line, headers string }{
		{"long_path", "GET /v2/" + strings.Repeat("a", 300_000) + "/tags/list HTTP/1.1", ""},
		{"long_query", "GET /v2/a/tags/list?n=" + strings.Repeat("9", 300_000) + " HTTP/1.1", ""},
		{"many_parameters", "GET /v2/?" + strings.Repeat("&", 300_000) + " HTTP/1.1", ""},
		{"long_method", strings.Repeat("M", 300_000) + " /v2/ HTTP/1.1", ""},
		{"long_values", "GET /v2/ HTTP/1.1", "User-Agent: " + strings.Repeat("u", 300_000) + "\r\nAccept: " + strings.Repeat("a", 300_000) + "\r\n"},
		{"one_small_value_among_large_ones", "GET /v2/ HTTP/1.1", "Accept: */*\r\nX-Large: " + strings.Repeat("x", 300_000) + "\r\n"},
		{"many_values", "GET /v2/ HTTP/1.1", strings.Repeat("Accept:\r\n", 30_000)},
		{"many_headers", "GET /v2/ HTTP/1.1", func() string {
			var b strings.Builder
			for n := range 20_000 {
				fmt.Fprintf(&b, "%s:\r\n", strconv.FormatInt(int64(n), 36))
			}
			return b.String()
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := New(new(registry.MemStore), Options{})
			h := i.Handler(registry.New())
			before := heap()
			for range requests {
				r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.line + "\r\nHost: a\r\n" + c.headers + "\r\n")))
				qt.Assert(t, qt.IsNil(err))
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			if kept := heap() - before; kept > allowed {
				t.Errorf("%d requests keep %d bytes, more than %d", requests, kept, allowed)
			}
			runtime.KeepAlive(i)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRing checks the limits of the records, in number and in bytes.
func TestRing(t *testing.T) {
	for _, c := range []struct {
		name  string
		agent string
		want  func(records, bytes int) bool
	}{
		{"small", "a", func(records, bytes int) bool { return records == maxRecords && bytes < maxBytes }},
		{"large", strings.Repeat("a", 5000), func(records, bytes int) bool { return records < maxRecords+1 && bytes <= maxBytes }},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := New(new(registry.MemStore), Options{})
			for n := range 3 * maxRecords {
				r := httptest.NewRequest("GET", "/v2/?last="+strings.Repeat("z", len(c.agent)), nil)
				for k := range min(n, 8) {
					r.Header.Set("X-"+strconv.Itoa(k), "a")
				}
				for _, name := range []string{"User-Agent", "Accept", "Accept-Language", "Via", "Range"} {
					r.Header.Set(name, c.agent)
				}
				i.Record(registry.Event{HTTP: r, Header: r.Header, Err: errors.New(c.agent), Time: time.Now().Add(time.Duration(n) * 10 * time.Millisecond)})
			}
			tl := &i.timeline
			if !c.want(len(tl.records), tl.bytes) {
				t.Errorf("%d records of %d bytes", len(tl.records), tl.bytes)
			}
			sum := 0
			for _, r := range tl.records {
				sum += r.size
			}
			qt.Check(t, qt.Equals(tl.bytes, sum))
			qt.Check(t, qt.Equals(tl.last, 3*maxRecords))
		})
	}
}

// TestRecordFromManyGoroutines records while pages read. It is for the race detector.
func TestRecordFromManyGoroutines(t *testing.T) {
	i := New(new(registry.MemStore), Options{})
	h := i.Handler(registry.New())
	var wait sync.WaitGroup
	for range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			header := http.Header{"Accept": {"a", "b"}, "User-Agent": {"x"}}
			for n := range 100 {
				r := httptest.NewRequest("GET", "/v2/a/tags/list", nil)
				r.Header = header // which a client may use again
				h.ServeHTTP(httptest.NewRecorder(), r)
				header["Accept"][0] = strconv.Itoa(n)
				if n%10 == 0 {
					for _, path := range []string{"requests", "findings", "stats"} {
						h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", Path+"api/"+path, nil))
					}
				}
			}
		}()
	}
	wait.Wait()
}

// TestSecrets plants secrets in requests and responses, and searches for them in everything
// that the page can get.
func TestSecrets(t *testing.T) {
	const secret = "s3cr3tVALUE"
	type planted struct {
		name     string
		target   string
		request  http.Header
		response http.Header
		err      error
	}
	all := []planted{
		{name: "basic", request: http.Header{"Authorization": {"Basic " + secret}}},
		{name: "bearer", request: http.Header{"Authorization": {"Bearer " + secret}}},
		{name: "no_scheme", request: http.Header{"Authorization": {secret}}},
		{name: "proxy", request: http.Header{"Proxy-Authorization": {"Basic " + secret}}},
		{name: "cookie", request: http.Header{"Cookie": {"session=" + secret}}, response: http.Header{"Set-Cookie": {"session=" + secret}}},
		{name: "registry_auth", request: http.Header{"X-Registry-Auth": {secret}, "X-Meta-Auth": {secret}, "X-Amz-Security-Token": {secret}, "X-Forwarded-Access-Token": {secret}}},
		{name: "not_canonical", request: http.Header{"authorization": {"Bearer " + secret}, "cookie": {secret}}},
		{name: "custom", request: http.Header{"Private-Token": {secret}, "Api-Key": {secret}}, response: http.Header{"X-Subject-Token": {secret}}},
		{name: "signed_location", response: http.Header{"Location": {"https://user:" + secret + "@bucket.example/a?X-Amz-Signature=" + secret + "&X-Amz-Credential=" + secret + "#" + secret}}},
		{name: "opaque_location", response: http.Header{"Location": {"bucket:" + secret}}},
		{name: "malformed_location", response: http.Header{"Location": {"https://[bucket/" + secret}}},
		{name: "content_location", response: http.Header{"Content-Location": {"/a?sig=" + secret}}},
		{name: "referer", request: http.Header{"Referer": {"https://user:" + secret + "@ci.example/?token=" + secret}}},
		{name: "link", response: http.Header{"Link": {`</v2/a?token=` + secret + `>; rel="next"`}}},
		{name: "links", response: http.Header{"Link": {`</a>; rel="next", <https://b.example/?sig=` + secret + `>; rel="prev"`}}},
		{name: "token_request", target: "/token?service=berth&scope=repository:a:pull&password=" + secret + "&refresh_token=" + secret},
		{name: "query", target: "/v2/a/tags/list?n=1&access_token=" + secret},
		{name: "query_without_name", target: "/v2/?" + secret},
		{name: "query_of_spaces", target: "/v2/?%6e=" + secret},
		{name: "query_with_semicolon", target: "/v2/a/tags/list?n=1;token=" + secret},
		{name: "long_query", target: "/v2/?" + strings.Repeat("a=b&", 250) + "token=" + secret},
		{name: "userinfo", target: "http://user:" + secret + "@registry.example/v2/"},
		{name: "store_error", err: fmt.Errorf(`Get "https://user:%s@bucket.example/x?X-Amz-Signature=%[1]s": dial tcp: refused`, secret)},
		{name: "joined_error", err: errors.Join(registry.ErrBlobUnknown, fmt.Errorf("Get https://b.example/?sig=%s: EOF", secret))},
	}
	users := auth.Policy(func(context.Context, string, auth.Action, registry.Request) error { return nil })
	for _, policy := range []auth.Policy{nil, users} {
		i := New(new(registry.MemStore), Options{Policy: policy})
		h := i.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := strconv.Atoi(r.Header.Get("Accept"))
			for name, values := range all[n].response {
				w.Header()[name] = values
			}
			if all[n].err != nil {
				registry.WriteError(w, r, all[n].err)
			}
		}))
		for n, p := range all {
			r := httptest.NewRequest("GET", "/v2/", nil)
			if p.target != "" {
				r = httptest.NewRequest("GET", p.target, nil)
			}
			for name, values := range p.request {
				r.Header[name] = values
			}
			r.Header.Set("Accept", strconv.Itoa(n))
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		for n, p := range all {
			t.Run(fmt.Sprintf("%s/policy=%v", p.name, policy != nil), func(t *testing.T) {
				_, got := get(h, fmt.Sprintf("api/requests?id=%d", n+1))
				if strings.Contains(got, secret) || !strings.Contains(got, fmt.Sprintf(`"id":%d,`, n+1)) {
					t.Errorf("the page gets %s", got)
				}
			})
		}
		for _, path := range []string{"api/requests", "api/findings", "api/stats", "events"} {
			if _, got := get(h, path); strings.Contains(got, secret) {
				t.Errorf("%s contains a secret: %s", path, got)
			}
		}
	}
}

// TestErrorsOfStores checks that users get no details of how a store has failed, which the
// client has not got either.
func TestErrorsOfStores(t *testing.T) {
	failure := errors.New("open /var/lib/berth/x: permission denied")
	for _, c := range []struct {
		name   string
		policy auth.Policy
		err    error
		want   string
	}{
		{"nobody_else", nil, failure, failure.Error()},
		{"users", func(context.Context, string, auth.Action, registry.Request) error { return nil }, failure, "the registry's store has failed"},
		{"users_and_an_error_of_the_spec", func(context.Context, string, auth.Action, registry.Request) error { return nil }, fmt.Errorf("%w: of a", registry.ErrBlobUnknown), "blob unknown to registry: of a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := New(new(registry.MemStore), Options{Policy: c.policy})
			h := i.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registry.WriteError(w, r, c.err) }))
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
			_, got := get(h, "api/requests")
			qt.Check(t, qt.StringContains(got, strconv.Quote(c.want)))
		})
	}
}

// get returns the status and the body of a response to a request for a part of the page, of a
// stream only its beginning.
func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", Path+path, nil)
	if path == "events" {
		ctx, cancel := context.WithCancel(context.Background())
		r = r.WithContext(ctx)
		cancel() // it sends one message
	}
	h.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Body)
	return w.Code, string(bytes.TrimSpace(body))
}

// BenchmarkRecord measures what a request costs more because it is recorded.
func BenchmarkRecord(b *testing.B) {
	i := New(new(registry.MemStore), Options{})
	r := httptest.NewRequest("GET", "/v2/team/app/manifests/v1", nil)
	r.Header = http.Header{"User-Agent": {"containers/5.29.2 (github.com/containers/image)"}, "Accept": {"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"}, "Accept-Encoding": {"gzip"}}
	req, _ := registry.ParseRequest(r)
	header := http.Header{
		"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}, "Content-Length": {"1234"}, "Docker-Content-Digest": {"sha256:" + strings.Repeat("0", 64)},
		"Docker-Distribution-Api-Version": {"registry/2.0"}, "Etag": {"\"sha256:" + strings.Repeat("0", 64) + "\""}, "Accept-Ranges": {"bytes"},
	}
	e := registry.Event{HTTP: r, Request: req, Header: header, Status: 200, Time: time.Now()}
	b.ReportAllocs()
	for range b.N {
		i.Record(e)
	}
}
