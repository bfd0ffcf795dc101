// SPDX-License-Identifier: Apache-2.0

// Evict, for stores in memory that are full.

package retention

import (
	"context"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// Evict returns a function for the field Collect of [registry.MemLimits], so that a
// full store collects before it rejects a push:
//
//	store := new(registry.MemStore)
//	store.Limits.TotalBytes = 100 << 20
//	store.Limits.Collect = retention.Evict(store, retention.Options{Grace: 10 * time.Second})
//
// If all garbage was used within the grace period, the push waits for it: at most a
// quarter longer than the grace period, and for one more collection. The period should be
// short, but longer than clients need from finding or pushing content to pushing the
// manifest that names it.
func Evict(s registry.Store, o Options) func() bool {
	e := &evictor{store: s, options: o}
	return e.evict
}

// evictor collects for pushes, one after the other.
type evictor struct {
	store   registry.Store
	options Options

	mu    sync.Mutex // guards the fields below
	ended time.Time  // the latest collection
	freed bool       // by it
}

// evict collects until something is freed, and reports whether something was. Pushes
// that wait at the same time share a collection.
func (e *evictor) evict() bool {
	asked := time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended.After(asked) {
		return e.freed
	}
	grace := max(e.options.Grace, 0)
	for {
		began := time.Now()
		report, _ := collect(context.Background(), e.store, e.options, urgentSlice) // if a repository can't be collected, others can
		e.ended, e.freed = time.Now(), report.Bytes > 0
		if e.freed || report.Young == 0 || began.After(asked.Add(grace+grace/4)) {
			return e.freed
		}
		time.Sleep(max(grace/8, time.Millisecond))
	}
}
