// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/berth-oci/registry"
)

func TestHealth(t *testing.T) {
	stopping, stop := context.WithCancel(context.Background())
	var notReady error
	h := withHealth(registry.New(), stopping, func(context.Context) error { return notReady })
	status := func(path string) int {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code
	}
	if a, b, c := status("/healthz"), status("/readyz"), status("/v2/"); a != 200 || b != 200 || c != 200 {
		t.Error(a, b, c)
	}
	notReady = errors.New("the disk is full")
	if a, b, c := status("/healthz"), status("/readyz"), status("/v2/"); a != 200 || b != 503 || c != 200 {
		t.Error(a, b, c)
	}
	notReady = nil
	stop()
	if a, b, c := status("/healthz"), status("/readyz"), status("/v2/"); a != 200 || b != 503 || c != 200 {
		t.Error(a, b, c)
	}
}
