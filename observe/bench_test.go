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
// with pulls that are not observed, and reports the median of the pairs' ratios, which a
// machine that changes its speed does not change. Traces are exported to nowhere, in batches;
// notifications go to an endpoint on the same machine.
func BenchmarkManifestGet(b *testing.B) {
	m := metrics.New(metrics.Options{})
	prometheus.NewRegistry().MustRegister(m)
	newOptions := func(ratio float64) *tracing.Options {
		return &tracing.Options{
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

	none := func(h http.Handler) http.Handler { return h }
	for _, c := range []struct {
		name   string
		wrap   func(http.Handler) http.Handler
		traces *tracing.Options // nil without
	}{
		{"none", none, nil},
		{"observe", registry.Observe(func(registry.Event) {}), nil},
		{"metrics", func(h http.Handler) http.Handler { return m.Handler(h) }, nil},
		{"notify", registry.Observe(pushes.Observe), nil},
		{"notify-pulls", registry.Observe(all.Observe), nil},
		{"tracing-1%", none, rarely},
		{"tracing-all", none, always},
		{"three", func(h http.Handler) http.Handler { return m.Handler(h, pushes.Observe) }, rarely},
		{"three-everything", func(h http.Handler) http.Handler { return m.Handler(h, all.Observe) }, always},
	} {
		b.Run(c.name, func(b *testing.B) {
			var store registry.Store = new(registry.MemStore)
			h := newRegistry(b, store)
			plain := httptest.NewServer(h)
			if c.traces != nil {
				h = newRegistry(b, tracing.Store(store, *c.traces))
			}
			h = c.wrap(h)
			if c.traces != nil {
				h = tracing.Handler(h, *c.traces)
			}
			observed := httptest.NewServer(h)
			defer plain.Close()
			defer observed.Close()
			var durations, ratios []float64
			for b.Loop() {
				first, second := get(b, plain), get(b, observed)
				durations, ratios = append(durations, first), append(ratios, second/first)
				first, second = get(b, observed), get(b, plain) // the second is a little faster
				durations, ratios = append(durations, second), append(ratios, first/second)
			}
			slices.Sort(durations)
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "observed/plain")
			b.ReportMetric(durations[len(durations)/2]*1e9, "plain-ns")
			b.ReportMetric(0, "ns/op") // of both together
		})
	}
}

// get pulls the manifest, and returns how many seconds it took.
func get(b *testing.B, s *httptest.Server) float64 {
	start := time.Now()
	resp, err := s.Client().Get(s.URL + "/v2/app/manifests/latest")
	if err != nil {
		b.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b.Fatal(resp.Status)
	}
	return time.Since(start).Seconds()
}

// newRegistry returns a registry that serves a store, and puts a manifest into it.
func newRegistry(b *testing.B, store registry.Store) http.Handler {
	h := registry.New(registry.AllowSparse(), registry.WithStore(store))
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
