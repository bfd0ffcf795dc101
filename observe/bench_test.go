// SPDX-License-Identifier: Apache-2.0

package observe_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/observe/metrics"
	"github.com/berth-oci/registry/observe/notify"
	"github.com/berth-oci/registry/observe/tracing"
)

// BenchmarkManifestGet pulls a manifest over loopback, observed in several ways, in turn
// with pulls that are not observed, and reports the ratio of the medians. Traces are
// exported to nowhere, in batches; notifications go to an endpoint on the same machine.
func BenchmarkManifestGet(b *testing.B) {
	m := metrics.New(metrics.Options{})
	prometheus.NewRegistry().MustRegister(m)
	newOptions := func(ratio float64) tracing.Options {
		return tracing.Options{
			TracerProvider: sdktrace.NewTracerProvider(
				sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))),
				sdktrace.WithBatcher(nowhere{})),
			Propagator: propagation.TraceContext{},
		}
	}
	rarely, always := newOptions(0.01), newOptions(1)
	newSender := func(actions ...string) *notify.Sender {
		receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		s, err := notify.New(notify.Options{URL: receiver.URL, Journal: b.TempDir(), Actions: actions})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			s.Close(ctx)
			receiver.Close()
		})
		return s
	}
	pushes, all := newSender(notify.Push, notify.Mount, notify.Delete), newSender()

	for _, c := range []struct {
		name string
		wrap func(http.Handler) http.Handler
	}{
		{"none", func(h http.Handler) http.Handler { return h }},
		{"observe", registry.Observe(func(registry.Event) {})},
		{"metrics", func(h http.Handler) http.Handler { return m.Handler(h) }},
		{"notify", registry.Observe(pushes.Observe)},
		{"notify-pulls", registry.Observe(all.Observe)},
		{"tracing-1%", func(h http.Handler) http.Handler { return tracing.Handler(h, rarely) }},
		{"tracing-all", func(h http.Handler) http.Handler { return tracing.Handler(h, always) }},
		{"three", func(h http.Handler) http.Handler { return tracing.Handler(m.Handler(h, pushes.Observe), rarely) }},
		{"three-everything", func(h http.Handler) http.Handler { return tracing.Handler(m.Handler(h, all.Observe), always) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newRegistry(b)
			plain, observed := httptest.NewServer(h), httptest.NewServer(c.wrap(h))
			defer plain.Close()
			defer observed.Close()
			var durations [2][]time.Duration
			for b.Loop() {
				for i, s := range []*httptest.Server{plain, observed} {
					start := time.Now()
					get(b, s)
					durations[i] = append(durations[i], time.Since(start))
				}
			}
			for _, d := range durations {
				slices.Sort(d)
			}
			n := len(durations[0]) / 2
			b.ReportMetric(float64(durations[1][n])/float64(durations[0][n]), "median/plain")
			b.ReportMetric(float64(durations[0][n].Nanoseconds()), "plain-ns")
			b.ReportMetric(0, "ns/op") // of both together
		})
	}
}

func get(b *testing.B, s *httptest.Server) {
	resp, err := s.Client().Get(s.URL + "/v2/app/manifests/latest")
	if err != nil {
		b.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status)
	}
}

// newRegistry returns a registry with a manifest.
func newRegistry(b *testing.B) http.Handler {
	h := registry.New(registry.AllowSparse())
	r := httptest.NewRequest("PUT", "/v2/app/manifests/latest", strings.NewReader(`{"layers":[`+strings.Repeat(" ", 1<<10)+`],"config":{
		"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}`))
	r.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		b.Fatal(w.Code, w.Body)
	}
	return h
}

type nowhere struct{}

func (nowhere) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (nowhere) Shutdown(context.Context) error                             { return nil }
