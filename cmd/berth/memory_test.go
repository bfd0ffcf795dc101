// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-oci/registry"
)

// TestOnlyDeletesThatSucceedFreeMemory checks that a client which may not delete
// anything can't force a full collection, and that many deletes force one.
func TestOnlyDeletesThatSucceedFreeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var freed atomic.Int32
		hook := freeAfterDeletes(3*time.Second, func() { freed.Add(1) })
		h := registry.Observe(hook)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.URL.RawQuery)
			w.WriteHeader(status)
		}))
		for _, test := range []struct {
			method, status string
			want           int32
		}{
			{"DELETE", "401", 0}, {"DELETE", "403", 0}, {"DELETE", "404", 0}, {"DELETE", "405", 0},
			{"DELETE", "429", 0}, {"DELETE", "500", 0}, {"GET", "200", 0}, {"DELETE", "202", 1}, {"DELETE", "204", 1},
		} {
			freed.Store(0)
			for range 10 {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(test.method, "/?"+test.status, nil))
				time.Sleep(time.Second)
			}
			time.Sleep(time.Minute)
			if freed.Load() != test.want {
				t.Errorf("%s with status %s: freed %d times, want %d", test.method, test.status, freed.Load(), test.want)
			}
		}
	})
}

// TestFreeWhenIdle frees memory once after each time that the process was busy.
func TestFreeWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var bytes atomic.Uint64
		var freed atomic.Int32
		go freeWhenIdle(ctx, time.Second, bytes.Load, func() { freed.Add(1) })
		time.Sleep(time.Second / 2)
		for _, step := range []struct {
			allocated uint64 // each second
			seconds   int
			want      int32 // so far
		}{
			{10 << 10, 50, 0}, {2 << 20, 50, 0}, {10 << 10, 50, 1}, {2 << 20, 1, 1}, {0, 50, 2},
		} {
			for range step.seconds {
				bytes.Add(step.allocated)
				time.Sleep(time.Second)
			}
			if freed.Load() != step.want {
				t.Errorf("after %d s with %d bytes each: freed %d times, want %d", step.seconds, step.allocated, freed.Load(), step.want)
			}
		}
	})
}
