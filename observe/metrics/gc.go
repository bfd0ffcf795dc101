// SPDX-License-Identifier: Apache-2.0

// The metrics of garbage collection.

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// GCRun is the result of a run of garbage collection.
type GCRun struct {
	Duration   time.Duration
	FreedBytes int64
	Blobs      int   // removed
	Manifests  int   // removed
	Err        error // why the run has ended early, nil if it has not
}

type gcMetrics struct {
	runs, errors, freedBytes, blobs, manifests prometheus.Counter
	duration                                   prometheus.Histogram
}

func newGCMetrics() gcMetrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "registry_gc_" + name + "_total", Help: help})
	}
	return gcMetrics{
		runs:       counter("runs", "Total number of runs of garbage collection, including those that have failed."),
		errors:     counter("errors", "Total number of runs of garbage collection that have failed."),
		freedBytes: counter("freed_bytes", "Total number of bytes that garbage collection has freed."),
		blobs:      counter("removed_blobs", "Total number of blobs that garbage collection has removed."),
		manifests:  counter("removed_manifests", "Total number of manifests that garbage collection has removed."),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "registry_gc_duration_seconds",
			Help:    "The durations of runs of garbage collection in seconds.",
			Buckets: []float64{.1, 1, 10, 60, 300, 1800, 7200, 21600, 86400},
		}),
	}
}

func (g gcMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{g.runs, g.errors, g.freedBytes, g.blobs, g.manifests, g.duration}
}

// AddGC counts a run of garbage collection, successful or not. Metrics:
//
//	registry_gc_runs_total
//	registry_gc_errors_total
//	registry_gc_freed_bytes_total
//	registry_gc_removed_blobs_total
//	registry_gc_removed_manifests_total
//	registry_gc_duration_seconds          histogram
func (m *Metrics) AddGC(run GCRun) {
	m.gc.runs.Inc()
	if run.Err != nil {
		m.gc.errors.Inc()
	}
	m.gc.freedBytes.Add(float64(max(run.FreedBytes, 0)))
	m.gc.blobs.Add(float64(max(run.Blobs, 0)))
	m.gc.manifests.Add(float64(max(run.Manifests, 0)))
	m.gc.duration.Observe(run.Duration.Seconds())
}
