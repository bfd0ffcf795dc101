// SPDX-License-Identifier: Apache-2.0

// The memory of the process.

package main

import (
	"context"
	"net/http"
	"runtime/metrics"
	"time"

	"github.com/berth-oci/registry/internal/recorder"
)

// freeAfterDeletes calls free, which returns memory to the operating system, after
// deletes that succeeded, once there has been a pause without any. Go's collector
// does so when it next runs, but in an idle server that may take many minutes.
func freeAfterDeletes(h http.Handler, pause time.Duration, free func()) http.Handler {
	timer := time.AfterFunc(pause, free)
	timer.Stop()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodDelete {
			h.ServeHTTP(w, r)
			return
		}
		resp := &recorder.Recorder{ResponseWriter: w}
		h.ServeHTTP(resp, r)
		if resp.Status < 300 {
			timer.Reset(pause)
		}
	})
}

// busy is the number of bytes that a server allocates between two looks while it
// serves clients, and not only health checks.
const busy = 1 << 20

// freeWhenIdle calls free whenever the process was busy and is idle again, until ctx
// is done: loading a large repository, or writing its index.json, leaves garbage.
// The function allocated returns the number of bytes allocated so far.
func freeWhenIdle(ctx context.Context, pause time.Duration, allocated func() uint64, free func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	last, freed := allocated(), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := allocated()
		if now-last < busy && now-freed >= busy {
			free()
			freed = allocated()
		}
		last = now
	}
}

// allocatedBytes returns the number of bytes that the process has allocated.
func allocatedBytes() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
