// SPDX-License-Identifier: Apache-2.0

// Health checks and profiles of a running server.

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// withHealth adds /healthz and /readyz to h. Once stopping is done, /readyz
// responds with 503.
func withHealth(h http.Handler, stopping context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			if stopping.Err() != nil {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return
			}
			fallthrough
		case "/healthz":
			fmt.Fprintln(w, "ok")
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// serveProfiles serves Go's profiles on addr until the returned Closer is closed.
func serveProfiles(addr string) (io.Closer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	return server, nil
}
