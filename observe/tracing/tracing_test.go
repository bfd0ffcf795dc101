// SPDX-License-Identifier: Apache-2.0

package tracing

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/storetest"
)

// newOptions returns options whose spans are recorded.
func newOptions() (Options, *tracetest.SpanRecorder) {
	spans := tracetest.NewSpanRecorder()
	return Options{
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		Propagator:     propagation.TraceContext{},
	}, spans
}

// attributesOf returns a span's attributes in the form of strings.
func attributesOf(s sdktrace.ReadOnlySpan) map[string]string {
	m := make(map[string]string)
	for _, a := range s.Attributes() {
		m[string(a.Key)] = a.Value.Emit()
	}
	return m
}

func TestHandler(t *testing.T) {
	o, spans := newOptions()
	h := Handler(registry.New(), o)
	d := digest.FromString("hello").String()
	for _, test := range []struct {
		method, path, name string
		status             int
	}{
		{"GET", "/v2/", "GET /v2/", 200},
		{"GET", "/v2/_catalog", "GET /v2/_catalog", 200},
		{"POST", "/v2/app/blobs/uploads/?digest=" + d, "POST /v2/{name}/blobs/uploads/", 201},
		{"POST", "/v2/app/blobs/uploads/", "POST /v2/{name}/blobs/uploads/", 202},
		{"PATCH", "/v2/app/blobs/uploads/x", "PATCH /v2/{name}/blobs/uploads/{reference}", 404},
		{"HEAD", "/v2/a/b/blobs/" + d, "HEAD /v2/{name}/blobs/{digest}", 404},
		{"GET", "/v2/app/blobs/bad", "GET /v2/{name}/blobs/{digest}", 400},
		{"GET", "/v2/app/manifests/latest", "GET /v2/{name}/manifests/{reference}", 404},
		{"GET", "/v2/app/tags/list?n=1&sig=secret", "GET /v2/{name}/tags/list", 200},
		{"GET", "/v2/app/referrers/" + d, "GET /v2/{name}/referrers/{digest}", 200},
		{"GET", "/secret/path", "GET", 404},
		{"BREW", "/v2/app/tags/list", "HTTP /v2/{name}/tags/list", 405},
	} {
		spans.Reset()
		r := httptest.NewRequest(test.method, test.path, strings.NewReader("hello"))
		r.Header.Set("User-Agent", "test/1")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		ended := spans.Ended()
		qt.Assert(t, qt.HasLen(ended, 1))
		s := ended[0]
		qt.Check(t, qt.Equals(w.Code, test.status))
		qt.Check(t, qt.Equals(s.Name(), test.name))
		qt.Check(t, qt.Equals(s.SpanKind(), trace.SpanKindServer))
		qt.Check(t, qt.Equals(s.Status().Code, codes.Unset))
		want := map[string]string{
			"http.request.method":       test.method,
			"http.response.status_code": http.StatusText(0),
			"url.scheme":                "http",
			"url.path":                  r.URL.Path,
			"server.address":            "example.com",
			"client.address":            "192.0.2.1",
			"user_agent.original":       "test/1",
			"network.protocol.version":  "1.1",
		}
		if r.URL.RawQuery != "" {
			want["url.query"] = strings.Replace(r.URL.RawQuery, "=secret", "=%28hidden%29", 1)
		}
		if method, route, ok := strings.Cut(test.name, " "); ok {
			want["http.route"] = route
			if method == "HTTP" {
				want["http.request.method"], want["http.request.method_original"] = "_OTHER", test.method
			} else {
				qt.Check(t, qt.Equals(method, test.method))
			}
		}
		got := attributesOf(s)
		qt.Check(t, qt.Equals(got["http.response.status_code"], attribute.IntValue(test.status).Emit()))
		got["http.response.status_code"] = ""
		qt.Check(t, qt.DeepEquals(got, want))
	}
}

// TestRoutes checks that each path that the registry parses has the route of its
// operation, and a path that it does not find has none.
func TestRoutes(t *testing.T) {
	d := digest.FromString("").String()
	for _, test := range []struct{ method, path, route string }{
		{"GET", "/v2", "/v2/"},
		{"GET", "/v2/", "/v2/"},
		{"GET", "/v2/_catalog", "/v2/_catalog"},
		{"GET", "/v2/a/b/manifests/x", "/v2/{name}/manifests/{reference}"},
		{"GET", "/v2/manifests/manifests/x", "/v2/{name}/manifests/{reference}"},
		{"GET", "/v2/a/blobs/" + d, "/v2/{name}/blobs/{digest}"},
		{"POST", "/v2/a/blobs/uploads", "/v2/{name}/blobs/uploads/"},
		{"POST", "/v2/a/blobs/uploads/", "/v2/{name}/blobs/uploads/"},
		{"PUT", "/v2/a/blobs/uploads/x", "/v2/{name}/blobs/uploads/{reference}"},
		{"GET", "/v2/a/tags/list", "/v2/{name}/tags/list"},
		{"GET", "/v2/a/referrers/" + d, "/v2/{name}/referrers/{digest}"},
		{"GET", "/", ""},
		{"GET", "/v1/", ""},
		{"GET", "/v2x/a/tags/list", ""},
		{"GET", "/v2/a", ""},
		{"GET", "/v2/a/tags/other", ""},
		{"GET", "/v2/tags/list", ""},
		{"GET", "/v2/uploads/x", ""},
	} {
		i := routeOf(test.path)
		if test.route == "" {
			qt.Check(t, qt.Equals(i, -1), qt.Commentf("%s", test.path))
		} else if qt.Check(t, qt.IsTrue(i >= 0), qt.Commentf("%s", test.path)) {
			qt.Check(t, qt.Equals(routes[i], test.route))
		}
		_, err := registry.ParseRequest(httptest.NewRequest(test.method, test.path, nil))
		qt.Check(t, qt.Equals(err == nil, test.route != ""), qt.Commentf("%s: %v", test.path, err))
	}
}

// TestParent checks that a span continues the client's trace, and that middleware and
// handlers get the span.
func TestParent(t *testing.T) {
	o, spans := newOptions()
	var inner trace.SpanContext
	h := Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		inner = trace.SpanContextFromContext(r.Context())
	}), o)
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	h.ServeHTTP(httptest.NewRecorder(), r)
	s := spans.Ended()[0]
	qt.Check(t, qt.Equals(s.Parent().SpanID().String(), "b7ad6b7169203331"))
	qt.Check(t, qt.Equals(s.SpanContext().TraceID().String(), "0af7651916cd43dd8448eb211c80319c"))
	qt.Check(t, qt.IsTrue(inner.Equal(s.SpanContext())))
	qt.Check(t, qt.Equals(attributesOf(s)["http.response.status_code"], "200"))

	o.Propagator = propagation.NewCompositeTextMapPropagator()
	Handler(registry.New(), o).ServeHTTP(httptest.NewRecorder(), r)
	qt.Check(t, qt.IsFalse(spans.Ended()[1].Parent().IsValid()))
}

// TestSampler checks that a sampler can choose by the method and the route.
func TestSampler(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	o := Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithSampler(noPings{}))}
	h := Handler(registry.New(), o)
	for _, path := range []string{"/v2/", "/v2/app/tags/list", "/v2/", "/other"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	var names []string
	for _, s := range spans.Ended() {
		names = append(names, s.Name())
		qt.Check(t, qt.Equals(attributesOf(s)["server.address"], "example.com"))
	}
	qt.Check(t, qt.DeepEquals(names, []string{"GET /v2/{name}/tags/list", "GET"}))
}

// noPings samples all requests except those of GET /v2/.
type noPings struct{}

func (noPings) Description() string { return "no pings" }

func (noPings) ShouldSample(p sdktrace.SamplingParameters) (result sdktrace.SamplingResult) {
	if p.Name != "GET /v2/" {
		result.Decision = sdktrace.RecordAndSample
	}
	return result
}

func TestErrors(t *testing.T) {
	o, spans := newOptions()
	h := Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/503":
			w.WriteHeader(503)
		case "/late":
			w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		default:
			panic(http.ErrAbortHandler)
		}
	}), o)
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/503", nil))
	for _, path := range []string{"/early", "/late"} {
		qt.Check(t, qt.PanicMatches(func() {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
		}, ".*abort.*"))
	}
	for i, want := range []struct{ errorType, status string }{{"503", "503"}, {"aborted", ""}, {"aborted", "200"}} {
		s := spans.Ended()[i]
		qt.Check(t, qt.Equals(s.Status().Code, codes.Error))
		qt.Check(t, qt.Equals(attributesOf(s)["error.type"], want.errorType))
		qt.Check(t, qt.Equals(attributesOf(s)["http.response.status_code"], want.status))
	}
}

// TestLongStrings checks that a client can't fill memory by its headers, and that an
// exporter gets valid UTF-8.
func TestLongStrings(t *testing.T) {
	o, spans := newOptions()
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.Host = "[2001:db8::1]:5000"
	r.TLS = new(tls.ConnectionState)
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header.Set("User-Agent", "\xff"+strings.Repeat("ä", 1<<16))
	r.URL.Path = "/\xff"
	Handler(registry.New(), o).ServeHTTP(httptest.NewRecorder(), r)
	got := attributesOf(spans.Ended()[0])
	qt.Check(t, qt.IsTrue(len(got["user_agent.original"]) <= 1024))
	qt.Check(t, qt.Equals(got["url.path"], "/\uFFFD"))
	qt.Check(t, qt.Equals(got["server.address"], "2001:db8::1"))
	qt.Check(t, qt.Equals(got["server.port"], "5000"))
	qt.Check(t, qt.Equals(got["url.scheme"], "https"))
	qt.Check(t, qt.Equals(got["network.protocol.version"], "2"))
}

func TestStoreContract(t *testing.T) {
	o, _ := newOptions()
	open := map[string]func(*testing.T) registry.Store{
		"memory": func(*testing.T) registry.Store { return Store(new(registry.MemStore), o) },
		"dir":    func(t *testing.T) registry.Store { return Store(openDir(t, t.TempDir()), o) },
		"not sampled": func(*testing.T) registry.Store {
			return Store(new(registry.MemStore), Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))})
		},
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, open)
			storetest.RunHTTP(t, open)
		})
	}
}

// TestStoreNotSampled checks in which contexts the calls of a store have spans, and that
// they allocate nothing where they have none.
func TestStoreNotSampled(t *testing.T) {
	never := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("")
	notSampled, _ := never.Start(context.Background(), "request")
	always := sdktrace.NewTracerProvider().Tracer("")
	sampled, _ := always.Start(context.Background(), "request")
	ended, span := always.Start(context.Background(), "request")
	span.End()
	remote := trace.ContextWithRemoteSpanContext(context.Background(), trace.SpanContextFromContext(notSampled))
	o, spans := newOptions()
	o.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	memory := new(registry.MemStore)
	s := Store(memory, o)
	for _, test := range []struct {
		name string
		ctx  context.Context
		want int
	}{
		{"no span", context.Background(), 1},
		{"sampled", sampled, 1},
		{"sampled, and ended", ended, 1},
		{"sampled, by its context alone", trace.ContextWithSpanContext(context.Background(), trace.SpanContextFromContext(sampled)), 1},
		{"not sampled", notSampled, 0},
		{"not sampled by the client", remote, 1},
	} {
		spans.Reset()
		s.GetTag(test.ctx, "app", "latest")
		qt.Check(t, qt.HasLen(spans.Ended(), test.want), qt.Commentf("%s", test.name))
	}
	allocs := func(s registry.Store) float64 {
		return testing.AllocsPerRun(100, func() { s.GetTag(notSampled, "app", "latest") })
	}
	qt.Check(t, qt.Equals(allocs(s), allocs(memory)))
}

func openDir(t *testing.T, dir string) *ocidir.Store {
	s, err := ocidir.Open(dir, nil)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(s.Close())) })
	return s
}

// TestStoreSpans checks the spans of a push and a pull.
func TestStoreSpans(t *testing.T) {
	o, spans := newOptions()
	h := Handler(registry.New(registry.WithStore(Store(new(registry.MemStore), o))), o)
	send := func(method, path, body string) *httptest.ResponseRecorder {
		spans.Reset()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w
	}
	check := func(want ...string) {
		t.Helper()
		qt.Check(t, qt.HasLen(spans.Started(), len(spans.Ended())))
		var got []string
		ended := spans.Ended()
		byID := make(map[trace.SpanID]string)
		for _, s := range ended {
			byID[s.SpanContext().SpanID()] = s.Name()
		}
		for _, s := range ended[:len(ended)-1] {
			parent := byID[s.Parent().SpanID()]
			if strings.HasPrefix(s.Name(), "Store.") {
				parent = ""
				qt.Check(t, qt.Equals(s.Parent().SpanID(), ended[len(ended)-1].SpanContext().SpanID()))
			}
			a := attributesOf(s)
			got = append(got, strings.TrimSpace(parent+" > "+s.Name()+" "+a["berth.bytes"]+a["berth.results"]+a["error.type"]))
		}
		qt.Check(t, qt.DeepEquals(got, want))
	}
	d := digest.FromString("hello").String()

	w := send("POST", "/v2/app/blobs/uploads/", "")
	qt.Assert(t, qt.Equals(w.Code, 202))
	check("> Store.CreateUpload")
	w = send("PUT", w.Header().Get("Location")+"?digest="+d, "hello")
	qt.Assert(t, qt.Equals(w.Code, 201))
	check("Store.ResumeUpload > Upload.ReadFrom 5", "Store.ResumeUpload > Upload.Commit", "> Store.ResumeUpload")
	w = send("GET", "/v2/app/blobs/"+d, "")
	qt.Assert(t, qt.Equals(w.Body.String(), "hello"))
	check("> Store.OpenBlob 5")
	send("GET", "/v2/app/tags/list", "")
	check("> Store.Tags 0")
	send("GET", "/v2/app/manifests/latest", "")
	check("> Store.GetTag MANIFEST_UNKNOWN")
}

// TestStoreErrors checks which errors make a span's status Error.
func TestStoreErrors(t *testing.T) {
	o, spans := newOptions()
	for _, test := range []struct {
		err       error
		errorType string
		failed    bool
	}{
		{registry.ErrBlobUnknown, "BLOB_UNKNOWN", false},
		{registry.ErrUnavailable, "UNAVAILABLE", true},
		{errors.New("disk full"), "_OTHER", true},
		{context.Canceled, "canceled", false},
	} {
		spans.Reset()
		err := Store(failing{err: test.err}, o).DeleteBlob(context.Background(), "app", "")
		qt.Check(t, qt.ErrorIs(err, test.err))
		s := spans.Ended()[0]
		qt.Check(t, qt.Equals(attributesOf(s)["error.type"], test.errorType))
		qt.Check(t, qt.Equals(s.Status().Code == codes.Error, test.failed))
		if test.failed {
			qt.Check(t, qt.Equals(s.Status().Description, test.err.Error()))
		}
	}
}

type failing struct {
	registry.UnimplementedStore
	err error
}

func (f failing) DeleteBlob(context.Context, string, digest.Digest) error { return f.err }

func TestUnwrap(t *testing.T) {
	o, _ := newOptions()
	m := new(registry.MemStore)
	qt.Check(t, qt.Equals(Store(m, o).(interface{ Unwrap() registry.Store }).Unwrap(), registry.Store(m)))
	qt.Check(t, qt.PanicMatches(func() { Store(nil, o) }, ".*requires a store"))
}

// TestInMemory checks that the registry still knows a MemStore to be in memory: it looks
// for the blobs of a manifest one after the other, since goroutines would take longer.
func TestInMemory(t *testing.T) {
	o, spans := newOptions()
	s := Store(new(registry.MemStore), o)
	var layers, want []string
	for i := range 10 {
		d := digest.FromString(strings.Repeat("x", i)).String()
		layers = append(layers, `{"mediaType":"a/b","size":1,"digest":"`+d+`"}`)
		want = append(want, d)
	}
	_, err := registry.PushManifest(context.Background(), s, "app", registry.ManifestPush{
		MediaType: "application/vnd.oci.image.manifest.v1+json",
		Content:   []byte(`{"config":` + layers[0] + `,"layers":[` + strings.Join(layers[1:], ",") + `]}`),
	})
	qt.Assert(t, qt.ErrorIs(err, registry.ErrManifestBlobUnknown))
	var got []string
	for _, s := range spans.Ended() {
		got = append(got, attributesOf(s)["berth.digest"])
	}
	slices.Sort(want) // as the registry does
	qt.Check(t, qt.DeepEquals(got, want))
}

// TestShortcuts checks that content keeps its methods.
func TestShortcuts(t *testing.T) {
	o, _ := newOptions()
	ctx := context.Background()
	s := Store(oneBlob{content: &blob{Reader: strings.NewReader("hello")}}, o)
	content, err := s.OpenBlob(ctx, "app", "")
	qt.Assert(t, qt.IsNil(err))
	defer content.Close()
	qt.Check(t, qt.ErrorMatches(content.(interface{ Prepare() error }).Prepare(), "prepared"))
	var b strings.Builder
	n, err := content.(interface {
		WriteToN(io.Writer, int64) (int64, error)
	}).WriteToN(&b, 2)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, 2))
	_, err = io.Copy(&b, content)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(b.String(), "WriteToN 2, hello"))

	// A file reaches the connection as a file.
	name := filepath.Join(t.TempDir(), "blob")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, []byte("hello"), 0o600)))
	f, err := os.Open(name)
	qt.Assert(t, qt.IsNil(err))
	content, err = Store(oneBlob{content: f}, o).OpenBlob(ctx, "app", "")
	qt.Assert(t, qt.IsNil(err))
	defer content.Close()
	qt.Check(t, qt.IsNil(content.(interface{ Prepare() error }).Prepare()))
	var got connection
	_, err = content.(interface {
		WriteToN(io.Writer, int64) (int64, error)
	}).WriteToN(&got, 2)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got.limited.R, io.Reader(f)))
}

// connection is a writer that io.Copy lets read.
type connection struct {
	io.Writer
	limited *io.LimitedReader
}

func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	c.limited = r.(*io.LimitedReader)
	return io.Copy(io.Discard, r)
}

type oneBlob struct {
	registry.UnimplementedStore
	content io.ReadSeekCloser
}

func (s oneBlob) OpenBlob(context.Context, string, digest.Digest) (io.ReadSeekCloser, error) {
	return s.content, nil
}

type blob struct{ *strings.Reader }

func (*blob) Prepare() error { return errors.New("prepared") }
func (*blob) Close() error   { return nil }
func (*blob) WriteToN(w io.Writer, n int64) (int64, error) {
	_, err := w.Write([]byte("WriteToN 2, "))
	return n, err
}

func BenchmarkHandler(b *testing.B) {
	for name, sampler := range map[string]sdktrace.Sampler{"always": sdktrace.AlwaysSample(), "never": sdktrace.NeverSample()} {
		b.Run(name, func(b *testing.B) {
			h := Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
				Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler)), Propagator: propagation.TraceContext{}})
			r := httptest.NewRequest("GET", "/v2/app/manifests/latest", nil)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
		})
	}
}
