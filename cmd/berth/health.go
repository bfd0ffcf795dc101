// SPDX-License-Identifier: Apache-2.0

// Health checks of a running server.

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// withHealth adds /healthz and /readyz to h. /readyz responds with 503 once stopping
// is done, and while ready returns an error.
func withHealth(h http.Handler, stopping context.Context, ready func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			if stopping.Err() != nil {
				http.Error(w, "stopping", http.StatusServiceUnavailable)
				return
			}
			if err := ready(r.Context()); err != nil {
				http.Error(w, "the store takes no changes: "+err.Error(), http.StatusServiceUnavailable)
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

// readyFor is how long a result of a store's Ready is used: it may write to a disk.
const readyFor = 2 * time.Second

// ready returns a function that returns an error if the store takes no changes.
func (c *serveCmd) ready() func(context.Context) error {
	s, ok := c.store.(interface{ Ready(context.Context) error })
	if !ok {
		return func(context.Context) error { return nil }
	}
	var (
		mu   sync.Mutex
		last time.Time
		err  error
	)
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= readyFor {
			last, err = now, s.Ready(context.WithoutCancel(ctx))
		}
		return err
	}
}
