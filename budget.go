// SPDX-License-Identifier: Apache-2.0

// The memory of requests in progress: manifests that arrive, and lists that are
// sent. Stores count their own content.

package registry

import (
	"fmt"
	"sync/atomic"
)

// budget is the number of bytes that all requests in progress may use at once.
// Without a limit it counts nothing.
type budget struct {
	limit int64 // 0: unlimited
	used  atomic.Int64
}

// newBudget returns the budget of a registry that serves s.
func newBudget(l Limits, s Store) *budget {
	if l.InFlightBytes > 0 {
		return &budget{limit: l.InFlightBytes}
	}
	m, ok := unwrap(s).(interface{ memoryLimit() int64 }) // a MemStore, or a store that embeds one
	if !ok || m.memoryLimit() == 0 {
		return &budget{}
	}
	memory := m.memoryLimit()
	return &budget{limit: max(memory/8, manifestCost*min(l.manifestBytes(), memory)+uncounted)}
}

// maxManifest returns the size of the largest manifest: one that can't be parsed
// within the budget is too large, and not worth another try.
func (b *budget) maxManifest(l Limits) int64 {
	if b.limit == 0 {
		return l.manifestBytes()
	}
	return min(l.manifestBytes(), max(b.limit, uncounted)/manifestCost)
}

// manifestCost is roughly the memory that reading and parsing a manifest takes,
// as a multiple of its size.
const manifestCost = 4

// uncounted is the number of bytes that each request may use without a
// reservation.
const uncounted = 16 << 10

// A reservation is one request's share of a budget. The caller must call
// release.
type reservation struct {
	*budget
	size int64
}

// grow extends the reservation to size bytes, unless it is larger already.
func (r *reservation) grow(size int64) error {
	if r.limit == 0 || size <= max(r.size, uncounted) {
		return nil
	}
	if r.used.Add(size-r.size) > r.limit {
		r.used.Add(r.size - size)
		return fmt.Errorf("%w: all requests in progress may use at most %d bytes", errBusy, r.limit)
	}
	r.size = size
	return nil
}

func (r *reservation) release() {
	r.used.Add(-r.size)
	r.size = 0
}
