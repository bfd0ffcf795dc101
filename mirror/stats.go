// SPDX-License-Identifier: Apache-2.0

// Counts of what the mirror has done.

package mirror

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Stats counts the mirror's work for an upstream since the process has started.
type Stats struct {
	Hits   uint64 // requests for content that was stored
	Stale  uint64 // those among them that were not asked upstream, because it failed
	Misses uint64 // requests for content that was not stored

	Calls    uint64        // requests upstream, without those for tokens
	Failures uint64        // those among them that failed, except with 404
	Time     time.Duration // between these requests and the headers of their responses
	Bytes    uint64        // fetched

	// RateLimit and RateRemaining are what the upstream has said last of its rate
	// limit in the headers ratelimit-limit and ratelimit-remaining; -1 if it has not.
	RateLimit, RateRemaining int64
}

// counters are Stats that requests change.
type counters struct {
	hits, stale, misses, calls, failures, bytes atomic.Uint64
	time                                        atomic.Int64
	limit, remaining                            atomic.Int64 // plus 1: 0 is unknown
}

// Stats returns the counts of each upstream, by its name.
func (m *Mirror) Stats() map[string]Stats {
	all := make(map[string]Stats)
	for name, u := range m.current.Load().byName {
		all[name] = Stats{
			Hits:          u.hits.Load(),
			Stale:         u.stale.Load(),
			Misses:        u.misses.Load(),
			Calls:         u.calls.Load(),
			Failures:      u.failures.Load(),
			Time:          time.Duration(u.time.Load()),
			Bytes:         u.bytes.Load(),
			RateLimit:     u.limit.Load() - 1,
			RateRemaining: u.remaining.Load() - 1,
		}
	}
	return all
}

// noteRateLimit notes what docker.io and others say: "76;w=21600", 76 requests in 6 hours.
func (u *upstream) noteRateLimit(h http.Header) {
	for name, value := range map[string]*atomic.Int64{"Ratelimit-Limit": &u.limit, "Ratelimit-Remaining": &u.remaining} {
		text, _, _ := strings.Cut(h.Get(name), ";")
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n >= 0 {
			value.Store(n + 1)
		}
	}
}
