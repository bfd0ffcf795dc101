// SPDX-License-Identifier: Apache-2.0

// Metrics, health checks and profiles on an address of their own.

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/guard"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/observe/metrics"
)

// newMetrics returns the server's metrics. What the store holds is counted only if that
// takes no time: with quotas, or in memory.
func (s *server) newMetrics() *metrics.Metrics {
	o := metrics.Options{Repositories: s.start.MetricsRepositories}
	_, inMemory := s.start.store.(*registry.MemStore)
	switch {
	case inMemory:
		o.Storage = func(ctx context.Context) (metrics.Storage, error) {
			return metrics.Count(mirror.WithoutUpstream(ctx), s.store)
		}
	case s.quotas != nil:
		o.Storage = func(context.Context) (metrics.Storage, error) {
			total, repositories := s.quotas.Total(), int64(0)
			for range s.quotas.All() {
				repositories++
			}
			return metrics.Storage{Bytes: total.Bytes, Blobs: total.Blobs, Manifests: total.Manifests, Repositories: repositories, Tags: -1, Uploads: -1}, nil
		}
	}
	return metrics.New(o)
}

// serveDebug serves metrics, health checks and profiles on addr until the returned Closer
// is closed.
func (s *server) serveDebug(addr string, stopping context.Context) (io.Closer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: s.debugHandler(stopping, isLoopback(listener.Addr())), ReadHeaderTimeout: 10 * time.Second}
	s.log.Info("serving metrics and profiles", "addr", listener.Addr().String())
	go server.Serve(listener)
	return server, nil
}

// debugHandler returns the handler of the debug address. On loopback, it rejects requests
// of web pages as the server does: see guardHosts.
func (s *server) debugHandler(stopping context.Context, loopback bool) http.Handler {
	all := prometheus.NewRegistry()
	all.MustRegister(s.metrics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	h := withHealth(mux, stopping, s.ready)
	if loopback {
		h = guard.Hosts(guard.Local())(h)
	}
	return h
}
