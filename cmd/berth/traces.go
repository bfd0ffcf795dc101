// SPDX-License-Identifier: Apache-2.0

// Traces of requests.

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/berth-oci/registry/observe/tracing"
)

// TraceFlags are the flags of berth serve about traces.
type TraceFlags struct {
	Traces      string
	TraceSample float64
}

func (f *TraceFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.Traces, "traces", "", "Send traces of requests to the collector at this `URL`, such as http://127.0.0.1:4318, by OTLP in JSON over HTTP.")
	flags.Float64Var(&f.TraceSample, "trace-sample", 0, "`SHARE` of the requests that are traced, unless the client says whether to trace one (default 1).")
}

func (f *TraceFlags) check() error {
	switch u, err := url.Parse(f.Traces); {
	case f.Traces == "" && f.TraceSample != 0:
		return errors.New("--trace-sample requires --traces")
	case f.Traces == "":
		return nil
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("--traces=%s: this requires a URL with http:// or https://", f.Traces)
	case !(f.TraceSample >= 0 && f.TraceSample <= 1):
		return errors.New("--trace-sample requires a number above 0 and up to 1")
	}
	return nil
}

// tracer sends the traces of a server.
type tracer struct {
	provider *trace.TracerProvider
	tracing.Options
}

// openTraces returns the tracer that the flags ask for, or nil. The caller must shut its
// provider down.
func (f *TraceFlags) openTraces(log *slog.Logger) (*tracer, error) {
	if f.Traces == "" {
		return nil, nil
	}
	u, err := url.Parse(f.Traces)
	if err != nil {
		return nil, err
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces" // of a collector, by the specification
	}
	// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have precedence.
	r, err := resource.New(context.Background(),
		resource.WithAttributes(attribute.String("service.name", "berth"), attribute.String("service.version", version())),
		resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces", "error", err) }))
	exporter := &spanExporter{url: u.String(), client: &http.Client{Timeout: 30 * time.Second}}
	provider := trace.NewTracerProvider(
		trace.WithBatcher(exporter),
		trace.WithResource(r),
		trace.WithSampler(trace.ParentBased(trace.TraceIDRatioBased(cmp.Or(f.TraceSample, 1)))),
	)
	return &tracer{provider, tracing.Options{TracerProvider: provider, Propagator: propagation.TraceContext{}}}, nil
}
