// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/tracing"
)

func Example() {
	exporter := tracetest.NewInMemoryExporter() // in a program: one of OTLP, in batches
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	defer provider.Shutdown(context.Background())
	options := tracing.Options{TracerProvider: provider, Propagator: propagation.TraceContext{}}

	store := tracing.Store(new(registry.MemStore), options)
	handler := tracing.Handler(registry.New(registry.WithStore(store)), options)
	r := httptest.NewRequest("GET", "/v2/app/manifests/latest", nil)
	r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	handler.ServeHTTP(httptest.NewRecorder(), r)

	for _, span := range exporter.GetSpans() {
		fmt.Println(span.SpanContext.TraceID(), span.SpanKind, span.Name)
	}
	// Output:
	// 0af7651916cd43dd8448eb211c80319c internal Store.GetTag
	// 0af7651916cd43dd8448eb211c80319c server GET /v2/{name}/manifests/{reference}
}
