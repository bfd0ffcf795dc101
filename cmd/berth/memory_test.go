// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestOnlyDeletesThatSucceedFreeMemory checks that a client which may not delete
// anything can't force a full collection, and that many deletes force one.
func TestOnlyDeletesThatSucceedFreeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var freed atomic.Int32
		h := freeAfterDeletes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.URL.RawQuery)
			w.WriteHeader(status)
		}), 3*time.Second, func() { freed.Add(1) })
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
