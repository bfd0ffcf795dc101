// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/interop/internal/berth"
	"github.com/berth-oci/registry/observe/tracing"
	"github.com/berth-oci/registry/ocidir"
)

// collector receives spans by OTLP over HTTP.
type collector struct {
	mu      sync.Mutex // guards the fields below
	spans   []*tracepb.Span
	service string
	err     error
}

// fromJSON returns a request in Protocol Buffers, by the code of OpenTelemetry's
// collector.
func fromJSON(body []byte) ([]byte, error) {
	request := ptraceotlp.NewExportRequest()
	if err := request.UnmarshalJSON(body); err != nil {
		return nil, err
	}
	return request.MarshalProto()
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && r.Header.Get("Content-Type") == "application/json" {
		body, err = fromJSON(body)
	}
	var request collectorpb.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = err
	}
	for _, rs := range request.ResourceSpans {
		for _, a := range rs.Resource.GetAttributes() {
			if a.Key == "service.name" {
				c.service = a.Value.GetStringValue()
			}
		}
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// TestOTLP exports the spans of a push and of a pull to a collector, as a program does
// that embeds the registry, and by berth serve.
func TestOTLP(t *testing.T) {
	t.Run("library", func(t *testing.T) {
		c := new(collector)
		endpoint := httptest.NewServer(c)
		defer endpoint.Close()
		ctx := context.Background()
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint.URL+"/v1/traces"))
		qt.Assert(t, qt.IsNil(err))
		provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(resource.Empty()))
		options := tracing.Options{TracerProvider: provider, Propagator: propagation.TraceContext{}}

		store, err := ocidir.Open(t.TempDir(), nil)
		qt.Assert(t, qt.IsNil(err))
		defer store.Close()
		h := registry.New(registry.WithStore(tracing.Store(store, options)))
		server := httptest.NewServer(tracing.Handler(h, options))
		defer server.Close()
		testSpans(t, c, server.URL, func() {
			server.Close() // so that the last span has ended
			qt.Assert(t, qt.IsNil(provider.Shutdown(ctx)))
		})
	})
	t.Run("command", func(t *testing.T) {
		c := new(collector)
		endpoint := httptest.NewServer(c)
		defer endpoint.Close()
		server := berth.Start(t, "--store=dir:"+t.TempDir(), "--traces="+endpoint.URL, "--log-level=error")
		testSpans(t, c, "http://"+server.Addr, func() {
			qt.Assert(t, qt.IsNil(server.Cmd.Process.Signal(syscall.SIGTERM)))
			qt.Assert(t, qt.IsNil(server.Cmd.Wait()))
			qt.Check(t, qt.Equals(server.Log.String(), ""))
		})
		qt.Check(t, qt.Equals(c.service, "berth"))
	})
}

// testSpans pushes and pulls a blob, stops the server, and checks the spans.
func testSpans(t *testing.T, c *collector, url string, stop func()) {
	d, status, err := pushBlob(url, "team/app", []byte(strings.Repeat("hello", 1<<16)))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(status, http.StatusCreated))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	r, err := http.NewRequest("GET", url+"/v2/team/app/blobs/"+d.String(), nil)
	qt.Assert(t, qt.IsNil(err))
	r.Header.Set("Traceparent", "00-"+trace+"-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(r)
	qt.Assert(t, qt.IsNil(err))
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 5<<16))
	stop()

	c.mu.Lock()
	defer c.mu.Unlock()
	qt.Assert(t, qt.IsNil(c.err))
	byName := make(map[string]*tracepb.Span)
	for _, s := range c.spans {
		byName[s.Name] = s
	}
	get, open := byName["GET /v2/{name}/blobs/{digest}"], byName["Store.OpenBlob"]
	qt.Assert(t, qt.IsNotNil(get))
	qt.Assert(t, qt.IsNotNil(open))
	qt.Check(t, qt.Equals(hex.EncodeToString(get.TraceId), trace))
	qt.Check(t, qt.Equals(hex.EncodeToString(get.ParentSpanId), "b7ad6b7169203331"))
	qt.Check(t, qt.Equals(get.Kind, tracepb.Span_SPAN_KIND_SERVER))
	qt.Check(t, qt.DeepEquals(open.ParentSpanId, get.SpanId))
	for key, want := range map[string]string{"http.route": "/v2/{name}/blobs/{digest}", "http.request.method": "GET", "client.address": "127.0.0.1", "network.protocol.version": "1.1"} {
		qt.Check(t, qt.Equals(stringAttribute(get, key), want), qt.Commentf("%s", key))
	}
	qt.Check(t, qt.Equals(stringAttribute(open, "berth.digest"), d.String()))

	push, create := byName["POST /v2/{name}/blobs/uploads/"], byName["Store.CreateUpload"]
	qt.Assert(t, qt.IsNotNil(push))
	qt.Assert(t, qt.IsNotNil(create))
	qt.Check(t, qt.DeepEquals(create.ParentSpanId, push.SpanId))
	for _, name := range []string{"Upload.ReadFrom", "Upload.Commit"} {
		qt.Assert(t, qt.IsNotNil(byName[name]))
		qt.Check(t, qt.DeepEquals(byName[name].ParentSpanId, create.SpanId))
	}
}

func stringAttribute(s *tracepb.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}
