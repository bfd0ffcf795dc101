// SPDX-License-Identifier: Apache-2.0

package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

// endpoint is a receiver without a network.
type endpoint struct {
	mu       sync.Mutex // guards the fields below
	requests []*http.Request
	bodies   [][]byte
	times    []time.Time
	respond  func(n int, body []byte) *http.Response // to the n-th request; nil for 200
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.requests)
	e.requests = append(e.requests, r)
	e.bodies = append(e.bodies, body)
	e.times = append(e.times, time.Now())
	if e.respond != nil {
		if resp := e.respond(n, body); resp != nil {
			if resp.StatusCode == 0 {
				return nil, errors.New("connection refused")
			}
			return resp, nil
		}
	}
	return response(200), nil
}

func response(status int, headers ...string) *http.Response {
	h := make(http.Header)
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
}

// events returns the events of all requests.
func (e *endpoint) events(t *testing.T) []Event {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Event
	for _, body := range e.bodies {
		var envelope Envelope
		qt.Assert(t, qt.IsNil(json.Unmarshal(body, &envelope)))
		all = append(all, envelope.Events...)
	}
	return all
}

// start returns a Sender to e.
func start(t *testing.T, e *endpoint, o Options) *Sender {
	t.Helper()
	o.Transport = e
	if o.URL == "" {
		o.URL = "https://hooks.example/"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(o)
	qt.Assert(t, qt.IsNil(err))
	return s
}

// closeSender closes s, which must deliver everything.
func closeSender(t *testing.T, s *Sender) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	qt.Assert(t, qt.IsNil(s.Close(ctx)))
}

// push makes an event of the n-th push.
func push(s *Sender, n int) {
	s.Observe(registry.Event{
		Request: registry.Request{Op: registry.OpManifestPut, Repo: "app", Tag: fmt.Sprint("v", n)},
		HTTP:    httptest.NewRequest("PUT", fmt.Sprint("/v2/app/manifests/v", n), nil),
		Status:  201, Changed: true, Digest: digest.FromString(fmt.Sprint(n)), Size: 100, MediaType: manifestType,
		Tags: []string{fmt.Sprint("v", n)}, Time: time.Now(),
	})
}

// checkTags checks that events are pushes of the tags v0 to v(n-1), in order.
func checkTags(t *testing.T, events []Event, n int) {
	t.Helper()
	qt.Assert(t, qt.HasLen(events, n))
	for i, e := range events {
		qt.Assert(t, qt.Equals(e.Target.Tag, fmt.Sprint("v", i)))
	}
}

// TestEvents checks the events of requests to a registry.
func TestEvents(t *testing.T) {
	e := new(endpoint)
	s := start(t, e, Options{Source: "node-1"})
	h := registry.Observe(s.Observe)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		registry.ReportUser(r.Context(), "alice")
		handler.ServeHTTP(w, r)
	}))
	location := ""
	send := func(method, path, body string, want int, headers ...string) {
		t.Helper()
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Host = "registry.example:5000"
		r.Header.Set("User-Agent", "test/1")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		qt.Assert(t, qt.Equals(w.Code, want), qt.Commentf("%s %s: %s", method, path, w.Body))
		location = w.Header().Get("Location")
	}
	d := digest.FromString("hello").String()
	manifest := `{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"` + d + `","size":5},"layers":[]}`
	m := digest.FromString(manifest).String()
	size := int64(len(manifest))

	send("POST", "/v2/app/blobs/uploads/?digest="+d, "hello", 201)
	send("POST", "/v2/other/blobs/uploads/", "", 202)
	send("PUT", location+"?digest="+d, "hello", 201)
	send("POST", "/v2/third/blobs/uploads/?from=app&mount="+d, "", 201)
	send("PUT", "/v2/app/manifests/latest", manifest, 201, "Content-Type", manifestType, "X-Request-Id", "request-1")
	send("PUT", "/v2/app/manifests/"+m+"?tag=a&tag=b", manifest, 201, "Content-Type", manifestType)
	send("PUT", "/v2/app/manifests/latest", "{", 400, "Content-Type", manifestType)
	send("HEAD", "/v2/app/manifests/latest", "", 200)
	send("GET", "/v2/app/manifests/latest", "", 200)
	send("GET", "/v2/app/manifests/latest", "", 304, "If-None-Match", `"`+m+`"`)
	send("GET", "/v2/app/blobs/"+d, "", 200)
	send("GET", "/v2/app/blobs/"+d, "", 206, "Range", "bytes=0-1")
	send("GET", "/v2/app/blobs/"+d, "", 206, "Range", "bytes=2-")
	send("GET", "/v2/app/tags/list", "", 200)
	send("DELETE", "/v2/app/manifests/a", "", 202)
	send("DELETE", "/v2/app/manifests/"+m, "", 202)
	send("DELETE", "/v2/app/blobs/"+d, "", 202)
	send("DELETE", "/v2/app/blobs/"+d, "", 404)
	closeSender(t, s)

	base := "http://registry.example:5000"
	blob := func(repo string) Target {
		return Target{MediaType: "application/octet-stream", Digest: digest.Digest(d), Size: 5, Length: 5, Repository: repo, URL: base + "/v2/" + repo + "/blobs/" + d}
	}
	image := func(tag string) Target {
		return Target{MediaType: manifestType, Digest: digest.Digest(m), Size: size, Length: size, Repository: "app", URL: base + "/v2/app/manifests/" + m, Tag: tag}
	}
	mounted := blob("third")
	mounted.FromRepository = "app"
	mounted.Size, mounted.Length = 0, 0
	want := []struct {
		action string
		target Target
	}{
		{Push, blob("app")},
		{Push, blob("other")},
		{Mount, mounted},
		{Push, image("latest")},
		{Push, image("a")},
		{Push, image("b")},
		{Pull, image("latest")},
		{Pull, blob("app")},
		{Pull, blob("app")},
		{Delete, Target{Repository: "app", Tag: "a"}},
		{Delete, Target{Repository: "app", Digest: digest.Digest(m), URL: base + "/v2/app/manifests/" + m}},
		{Delete, Target{Repository: "app", Digest: digest.Digest(d), URL: base + "/v2/app/blobs/" + d}},
	}
	events := e.events(t)
	qt.Assert(t, qt.HasLen(events, len(want)))
	ids := make(map[string]bool)
	for i, event := range events {
		qt.Check(t, qt.Equals(event.Action, want[i].action))
		qt.Check(t, qt.Equals(event.Target, want[i].target), qt.Commentf("%d", i))
		qt.Check(t, qt.Equals(event.Actor.Name, "alice"))
		qt.Check(t, qt.Equals(event.Source.Addr, "node-1"))
		qt.Check(t, qt.Equals(event.Source.InstanceID, events[0].Source.InstanceID))
		qt.Check(t, qt.Equals(event.Request.Host, "registry.example:5000"))
		qt.Check(t, qt.Equals(event.Request.Addr, "192.0.2.1:1234"))
		qt.Check(t, qt.Equals(event.Request.UserAgent, "test/1"))
		qt.Check(t, qt.IsTrue(time.Since(event.Timestamp) < time.Minute))
		qt.Check(t, qt.HasLen(event.ID, 36))
		qt.Check(t, qt.IsFalse(ids[event.ID]))
		ids[event.ID] = true
	}
	qt.Check(t, qt.Equals(events[3].Request.ID, "request-1"))
	qt.Check(t, qt.Equals(events[4].Request.ID, events[5].Request.ID))
	qt.Check(t, qt.Not(qt.Equals(events[0].Request.ID, events[1].Request.ID)))
	qt.Check(t, qt.Equals(e.requests[0].Header.Get("Content-Type"), "application/vnd.docker.distribution.events.v2+json"))
	qt.Check(t, qt.Equals(s.Stats(), Stats{Delivered: uint64(len(want))}))
}

var handler = registry.New()

func TestRedirectIsPull(t *testing.T) {
	e := new(endpoint)
	s := start(t, e, Options{BaseURL: "https://registry.example/"})
	d := digest.FromString("hello")
	r := httptest.NewRequest("GET", "/v2/app/blobs/"+d.String(), nil)
	r.TLS = new(tls.ConnectionState)
	s.Observe(registry.Event{Request: registry.Request{Op: registry.OpBlobGet, Repo: "app", Digest: d}, HTTP: r, Status: 307, Digest: d, Size: -1})
	closeSender(t, s)
	got := e.events(t)[0]
	qt.Check(t, qt.Equals(got.Action, Pull))
	qt.Check(t, qt.Equals(got.Target.URL, "https://registry.example/v2/app/blobs/"+d.String()))
	qt.Check(t, qt.Equals(got.Target.Size, 0))
}

func TestFilters(t *testing.T) {
	e := new(endpoint)
	s := start(t, e, Options{Actions: []string{Push}, Repositories: []string{"team/**", "app-*"}, MediaTypes: []string{"application/vnd.oci.*"}})
	for _, test := range []struct {
		repo, mediaType string
		op              registry.Op
	}{
		{"team/a", manifestType, registry.OpManifestPut},
		{"team/a/b", manifestType, registry.OpManifestPut},
		{"app-1", manifestType, registry.OpManifestPut},
		{"app-1/b", manifestType, registry.OpManifestPut},
		{"team", manifestType, registry.OpManifestPut},
		{"team/b", "text/plain", registry.OpManifestPut},
		{"team/c", manifestType, registry.OpManifestDelete},
	} {
		s.Observe(registry.Event{Request: registry.Request{Op: test.op, Repo: test.repo}, HTTP: httptest.NewRequest("PUT", "/", nil), Status: 201, Changed: true, MediaType: test.mediaType})
	}
	closeSender(t, s)
	var got []string
	for _, e := range e.events(t) {
		got = append(got, e.Target.Repository)
	}
	qt.Check(t, qt.DeepEquals(got, []string{"team/a", "team/a/b", "app-1"}))
}

func TestCloudEvents(t *testing.T) {
	for _, format := range []Format{CloudEvents, CloudEventsBatch} {
		e := &endpoint{respond: func(n int, _ []byte) *http.Response {
			if n == 0 {
				time.Sleep(time.Millisecond)
			}
			return nil
		}}
		s := start(t, e, Options{Format: format, BaseURL: "https://registry.example"})
		push(s, 0)
		push(s, 1)
		closeSender(t, s)
		var got []map[string]any
		for i, body := range e.bodies {
			if format == CloudEvents {
				qt.Check(t, qt.Equals(e.requests[i].Header.Get("Content-Type"), "application/cloudevents+json"))
				got = append(got, nil)
				qt.Assert(t, qt.IsNil(json.Unmarshal(body, &got[i])))
				continue
			}
			qt.Check(t, qt.Equals(e.requests[i].Header.Get("Content-Type"), "application/cloudevents-batch+json"))
			var batch []map[string]any
			qt.Assert(t, qt.IsNil(json.Unmarshal(body, &batch)))
			got = append(got, batch...)
		}
		qt.Assert(t, qt.HasLen(got, 2))
		data := got[0]["data"].(map[string]any)
		qt.Check(t, qt.Equals(data["action"], any("push")))
		qt.Check(t, qt.Equals(data["id"], got[0]["id"]))
		qt.Check(t, qt.Equals(data["timestamp"], got[0]["time"]))
		delete(got[0], "data")
		delete(got[0], "id")
		delete(got[0], "time")
		qt.Check(t, qt.DeepEquals(got[0], map[string]any{
			"specversion": "1.0", "source": "https://registry.example", "type": "com.github.berth-oci.registry.push",
			"subject": "app@" + digest.FromString("0").String(), "datacontenttype": "application/json",
		}))
	}
}

// TestRetries checks the pauses between attempts, and that order and IDs are kept.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{respond: func(n int, _ []byte) *http.Response {
			switch n {
			case 0, 1, 2, 3, 4, 5:
				return response(500)
			case 6:
				return response(0)
			case 7:
				return response(429, "Retry-After", "100")
			case 8:
				return response(302, "Location", "/")
			}
			return nil
		}}
		s := start(t, e, Options{Backoff: time.Second, MaxBackoff: 8 * time.Second, Batch: 3})
		for n := range 5 {
			push(s, n)
		}
		time.Sleep(10 * time.Minute)
		closeSender(t, s)
		for i, want := range []time.Duration{1, 2, 4, 8, 8, 8, 8, 100, 8} {
			pause := e.times[i+1].Sub(e.times[i])
			want *= time.Second
			least := want / 2
			if i == 7 {
				least = want
			}
			qt.Check(t, qt.IsTrue(pause >= least && pause <= want), qt.Commentf("%d: %v", i, pause))
		}
		qt.Check(t, qt.Equals(s.Stats(), Stats{Delivered: 5, Failures: 9}))
		id := ""
		for i := range 10 {
			var envelope Envelope
			qt.Assert(t, qt.IsNil(json.Unmarshal(e.bodies[i], &envelope)))
			if id == "" {
				id = envelope.Events[0].ID
			}
			qt.Check(t, qt.Equals(envelope.Events[0].ID, id))
		}
		e.bodies = e.bodies[9:]
		checkTags(t, e.events(t), 5)
	})
}

// TestSplit checks that an event that the endpoint rejects does not take others with
// it, and is dropped after its attempts.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{respond: func(_ int, body []byte) *http.Response {
			if bytes.Contains(body, []byte(`"tag":"v2"`)) {
				return response(400)
			}
			return nil
		}}
		var log bytes.Buffer
		s := start(t, e, Options{Attempts: 8, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		block := make(chan struct{})
		e.respond = blockFirst(e.respond, block)
		for n := range 9 {
			push(s, n)
		}
		close(block)
		time.Sleep(time.Hour)
		closeSender(t, s)
		qt.Check(t, qt.Equals(s.Stats().Delivered, 8))
		qt.Check(t, qt.Equals(s.Stats().Dropped, 1))
		qt.Check(t, qt.StringContains(log.String(), "dropped after too many attempts"))
	})
}

// blockFirst makes the first response wait, so that a batch collects.
func blockFirst(respond func(int, []byte) *http.Response, block chan struct{}) func(int, []byte) *http.Response {
	return func(n int, body []byte) *http.Response {
		if n == 0 {
			<-block
		}
		return respond(n, body)
	}
}

// TestFullQueue checks that the hook does not wait for an endpoint that hangs, and
// that drops are counted and logged.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		e := &endpoint{respond: func(int, []byte) *http.Response { <-release; return nil }}
		var log bytes.Buffer
		s := start(t, e, Options{Queue: 10, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for n := range 25 {
			push(s, n)
		}
		qt.Check(t, qt.Equals(s.Stats(), Stats{Queued: 10, Dropped: 15}))
		close(release)
		synctest.Wait()
		push(s, 25)
		closeSender(t, s)
		push(s, 26)
		qt.Check(t, qt.Equals(s.Stats(), Stats{Delivered: 11, Dropped: 16}))
		qt.Check(t, qt.StringContains(log.String(), "the queue is full"))
	})
}

// TestClose checks what is lost if the endpoint does not respond in time.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		down := &endpoint{respond: func(int, []byte) *http.Response { return response(503) }}
		for _, journal := range []string{"", dir} {
			s := start(t, down, Options{Journal: journal})
			push(s, 0)
			push(s, 1)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := s.Close(ctx)
			cancel()
			if journal == "" {
				qt.Check(t, qt.ErrorIs(err, context.DeadlineExceeded))
				qt.Check(t, qt.ErrorMatches(err, "notify: 2 events are not delivered: .*"))
			} else {
				qt.Check(t, qt.IsNil(err))
			}
			qt.Check(t, qt.ErrorMatches(s.Close(t.Context()), ".*already closed"))
		}
		up := new(endpoint)
		s := start(t, up, Options{Journal: dir})
		push(s, 2)
		closeSender(t, s)
		checkTags(t, up.events(t), 3)
	})
}

// TestCloseTriesAtOnce checks that Close does not wait for the end of a pause.
func TestCloseTriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{respond: func(n int, _ []byte) *http.Response {
			if n == 0 {
				return response(503, "Retry-After", "600")
			}
			return nil
		}}
		s := start(t, e, Options{})
		push(s, 0)
		synctest.Wait()
		closeSender(t, s)
		checkTags(t, e.events(t)[1:], 1)
	})
}

func TestOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, nil, 0o600)))
	for _, test := range []struct {
		o    Options
		want string
	}{
		{Options{}, `.*is not one of http or https`},
		{Options{URL: "ftp://host/"}, `.*is not one of http or https`},
		{Options{URL: "https://user:pass\x7f@host"}, `notify: the URL is malformed`},
		{Options{URL: "https://h", Actions: []string{"fetch"}}, `.*unknown action "fetch"`},
		{Options{URL: "https://h", Repositories: []string{"["}}, `.*malformed pattern.*`},
		{Options{URL: "https://h", Format: 7}, `.*unknown format 7`},
		{Options{URL: "https://h", Format: CloudEvents, Batch: 2}, `.*one event in a request.*`},
		{Options{URL: "https://h", Durable: true}, `.*option Durable requires a Journal`},
		{Options{URL: "https://h", Journal: filepath.Join(file, "journal")}, `notify: .*`},
	} {
		_, err := New(test.o)
		qt.Check(t, qt.ErrorMatches(err, test.want))
	}
}

func TestSignature(t *testing.T) {
	e := new(endpoint)
	secret := []byte("secret")
	s := start(t, e, Options{Secret: secret, Header: http.Header{"authorization": {"Bearer x"}}})
	push(s, 0)
	closeSender(t, s)
	qt.Check(t, qt.Equals(e.requests[0].Header.Get("Authorization"), "Bearer x"))
	header, body := e.requests[0].Header.Get(SignatureHeader), e.bodies[0]
	qt.Check(t, qt.IsNil(Verify(secret, header, body, time.Minute)))
	qt.Check(t, qt.IsNil(Verify(secret, header+",v1=00,v2=x", body, time.Minute)))
	for _, test := range []struct {
		secret, header, body, want string
	}{
		{"other", header, string(body), ".*does not match"},
		{"secret", header, string(body) + " ", ".*does not match"},
		{"secret", strings.Replace(header, "t=", "t=1", 1), string(body), ".*is from.*"},
		{"secret", sign(secret, body, time.Now().Add(-time.Hour)), string(body), ".*is from.*"},
		{"secret", sign(secret, body, time.Now().Add(time.Hour)), string(body), ".*is from.*"},
		{"secret", "", string(body), ".*has no time"},
		{"secret", "t=1,v1=x", string(body), ".*not hexadecimal"},
		{"", header, string(body), ".*secret is empty"},
	} {
		qt.Check(t, qt.ErrorMatches(Verify([]byte(test.secret), test.header, []byte(test.body), time.Minute), test.want))
	}
	qt.Check(t, qt.Equals(sign([]byte("secret"), []byte("{}"), time.Unix(1767225600, 0)),
		"t=1767225600,v1=fa7eaa06bf97d7815f3f456e97cde70c9e50cb005f01660c8d10b10c21964887"))
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "x": 0, "-1": 0, "7": 7 * time.Second, "86400": time.Hour, "99999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:05 GMT": 0,
	} {
		qt.Check(t, qt.Equals(parseRetryAfter(header, now), want), qt.Commentf("%q", header))
	}
}

// TestLongStrings checks that events of a client with long headers stay small.
func TestLongStrings(t *testing.T) {
	e := new(endpoint)
	s := start(t, e, Options{})
	r := httptest.NewRequest("GET", "/v2/app/manifests/x", nil)
	r.Host = strings.Repeat("h", 1<<16)
	r.Header.Set("User-Agent", strings.Repeat("ä", 1<<16))
	r.Header.Set("X-Request-Id", strings.Repeat("x", 1<<16))
	s.Observe(registry.Event{Request: registry.Request{Op: registry.OpManifestGet, Repo: "app"}, HTTP: r, Status: 200, User: strings.Repeat("u", 1<<16)})
	closeSender(t, s)
	qt.Check(t, qt.IsTrue(len(e.bodies[0]) < 5<<10), qt.Commentf("%d bytes", len(e.bodies[0])))
}

// TestConcurrent sends events from many goroutines, with and without a journal.
func TestConcurrent(t *testing.T) {
	for _, o := range []Options{{}, {Journal: t.TempDir()}, {Journal: t.TempDir(), Durable: true}} {
		e := new(endpoint)
		s := start(t, e, o)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for n := range 50 {
					push(s, n)
					s.Stats()
				}
			})
		}
		wg.Wait()
		closeSender(t, s)
		ids := make(map[string]bool)
		for _, e := range e.events(t) {
			ids[e.ID] = true
		}
		qt.Check(t, qt.HasLen(ids, 400))
	}
}

func BenchmarkObserve(b *testing.B) {
	e := registry.Event{Request: registry.Request{Op: registry.OpManifestGet, Repo: "app", Tag: "v1"}, HTTP: httptest.NewRequest("GET", "/v2/app/manifests/v1", nil),
		Status: 200, Digest: digest.FromString("x"), Size: 100, MediaType: manifestType}
	for name, actions := range map[string][]string{"filtered": {Push}, "queued": nil} {
		b.Run(name, func(b *testing.B) {
			s, err := New(Options{URL: "http://h", Actions: actions, Transport: discard{}, Queue: 1 << 20})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Observe(e)
			}
			b.StopTimer()
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			s.Close(ctx)
		})
	}
}

type discard struct{}

func (discard) RoundTrip(*http.Request) (*http.Response, error) { return response(200), nil }
