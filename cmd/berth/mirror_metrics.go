// SPDX-License-Identifier: Apache-2.0

// The metrics of mirrors.

package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-oci/registry/mirror"
)

// mirrorMetrics collects the counts of a mirror.
type mirrorMetrics struct{ mirror *mirror.Mirror }

func mirrorDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("registry_mirror_"+name, help, []string{"upstream"}, nil)
}

// Metrics of each upstream.
var (
	mirrorHits      = mirrorDesc("hits_total", "Requests for content of the upstream that was stored.")
	mirrorStale     = mirrorDesc("stale_total", "Hits that were not revalidated, since the upstream failed.")
	mirrorMisses    = mirrorDesc("misses_total", "Requests for content of the upstream that was not stored.")
	mirrorRequests  = mirrorDesc("upstream_requests_total", "Requests to the upstream.")
	mirrorFailures  = mirrorDesc("upstream_failures_total", "Requests to the upstream that failed, except with 404.")
	mirrorSeconds   = mirrorDesc("upstream_seconds_total", "Time until the upstream's responses began.")
	mirrorBytes     = mirrorDesc("upstream_bytes_total", "Bytes that the upstream has sent.")
	mirrorLimit     = mirrorDesc("upstream_rate_limit", "The upstream's limit of requests, as it says itself.")
	mirrorRemaining = mirrorDesc("upstream_rate_remaining", "Requests left of the upstream's limit, as it says itself.")

	mirrorStored = prometheus.NewDesc("registry_mirror_stored_bytes", "Fetched content that is stored, with --mirror-size.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m mirrorMetrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m mirrorMetrics) Collect(ch chan<- prometheus.Metric) {
	for name, s := range m.mirror.Stats() {
		send := func(desc *prometheus.Desc, kind prometheus.ValueType, value float64) {
			ch <- prometheus.MustNewConstMetric(desc, kind, value, name)
		}
		send(mirrorHits, prometheus.CounterValue, float64(s.Hits))
		send(mirrorStale, prometheus.CounterValue, float64(s.Stale))
		send(mirrorMisses, prometheus.CounterValue, float64(s.Misses))
		send(mirrorRequests, prometheus.CounterValue, float64(s.Calls))
		send(mirrorFailures, prometheus.CounterValue, float64(s.Failures))
		send(mirrorSeconds, prometheus.CounterValue, s.Time.Seconds())
		send(mirrorBytes, prometheus.CounterValue, float64(s.Bytes))
		if s.RateLimit >= 0 {
			send(mirrorLimit, prometheus.GaugeValue, float64(s.RateLimit))
		}
		if s.RateRemaining >= 0 {
			send(mirrorRemaining, prometheus.GaugeValue, float64(s.RateRemaining))
		}
	}
	ch <- prometheus.MustNewConstMetric(mirrorStored, prometheus.GaugeValue, float64(m.mirror.Bytes()))
}
