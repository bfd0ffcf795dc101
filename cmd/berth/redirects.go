// SPDX-License-Identifier: Apache-2.0

// The log of redirects to a bucket.

package main

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/recorder"
)

// logRedirects logs the redirects of h, which do not reach the registry and its
// log.
func logRedirects(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		resp := &recorder.Recorder{ResponseWriter: w}
		h.ServeHTTP(resp, r)
		if resp.Status == http.StatusTemporaryRedirect {
			log.Info("request", "op", string(registry.OpBlobGet), "method", r.Method, "url", r.URL.String(),
				"status", resp.Status, "duration", time.Since(start), "remote", r.RemoteAddr)
		}
	})
}
