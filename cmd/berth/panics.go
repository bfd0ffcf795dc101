// SPDX-License-Identifier: Apache-2.0

// Panics of handlers.

package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/berth-oci/registry"
)

// catchPanics responds with 500 if h panics, and logs the panic once. If the
// status has been sent, as the ResponseWriter of Observe tells, it aborts the
// connection.
func catchPanics(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			switch p {
			case nil:
				return
			case http.ErrAbortHandler:
				panic(p)
			}
			req, _ := registry.ParseRequest(r)
			log.Error("panic", "op", string(req.Op), "method", r.Method, "url", r.URL.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if resp, ok := w.(interface{ Sent() bool }); !ok || resp.Sent() {
				panic(http.ErrAbortHandler)
			}
			registry.WriteError(w, r, fmt.Errorf("panic: %v", p))
		}()
		h.ServeHTTP(w, r)
	})
}
