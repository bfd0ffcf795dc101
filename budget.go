// SPDX-License-Identifier: Apache-2.0

// Memory of requests in progress: manifests on their way in, lists on their way
// out. What is in the store, the store counts.

package registry

import (
	"fmt"
	"net/http"
	"sync/atomic"
)

// budget is what all requests in progress may hold at once. Without a limit it
// counts nothing.
type budget struct {
	limit int64 // bytes
	held  atomic.Int64
}

// newBudget returns the budget of a registry: an eighth of its content's, and
// in any case enough for one manifest.
func newBudget(l Limits) *budget {
	memory := l.TotalBytes
	if l.MemoryBytes > 0 && (memory <= 0 || l.MemoryBytes < memory) {
		memory = l.MemoryBytes
	}
	if memory <= 0 {
		return &budget{}
	}
	return &budget{limit: max(memory/8, manifestCost*min(l.manifestBytes(), memory)+hold{}.free())}
}

// hold is what one request has of a budget. It must be released.
type hold struct {
	*budget
	size int64
}

// free is what a request may hold that nobody counts.
func (hold) free() int64 { return 16 << 10 }

// grow has the request hold size bytes, if not more already.
func (h *hold) grow(size int64) error {
	if h.limit == 0 || size <= max(h.size, h.free()) {
		return nil
	}
	if h.held.Add(size-h.size) > h.limit {
		h.held.Add(h.size - size)
		return fmt.Errorf("%w: the limit of all requests in progress is %d bytes", errBusy, h.limit)
	}
	h.size = size
	return nil
}

func (h *hold) release() {
	h.held.Add(-h.size)
	h.size = 0
}

var errBusy = &Error{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: "too much in progress", Header: http.Header{"Retry-After": {"1"}}}
