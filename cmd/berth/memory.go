// SPDX-License-Identifier: Apache-2.0

// The memory of the process.

package main

import (
	"context"
	"net/http"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/berth-oci/registry"
)

// freeAfterDeletes returns a hook that calls free, which returns memory to the operating
// system, after deletes that succeeded, once there has been a pause without any. Go's
// collector does so when it next runs, but in an idle server that may take many minutes.
func freeAfterDeletes(pause time.Duration, free func()) func(registry.Event) {
	timer := time.AfterFunc(pause, free)
	timer.Stop()
	return func(e registry.Event) {
		if e.HTTP.Method == http.MethodDelete && e.Status < 300 {
			timer.Reset(pause)
		}
	}
}

// heapFloor is the size in bytes of an allocation that is never used, and so takes no
// memory. Go's collector runs whenever the heap has doubled: without it, a server with
// little content would collect 50 times a second.
const heapFloor = 12 << 20

// raiseHeap makes the collector run less often while the heap is small, until the
// returned function is called. The limit is that of the process's memory, 0 for none.
func raiseHeap(limit int64) (release func()) {
	if limit > 0 && limit < 16*heapFloor {
		return func() {}
	}
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
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
