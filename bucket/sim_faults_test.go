// SPDX-License-Identifier: Apache-2.0

// The faults of a simulation: which there are, and how often they happen.

package bucket_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// faultClass is a class of faults.
type faultClass string

const (
	faultSlow      faultClass = "slow"      // a call takes seconds, rarely minutes
	faultLost      faultClass = "lost"      // a call has no effect, and fails
	faultResponse  faultClass = "response"  // a call takes effect, and fails
	faultDelayed   faultClass = "delayed"   // a write fails, and takes effect afterwards
	faultDuplicate faultClass = "duplicate" // a write takes effect twice
	faultThrottled faultClass = "throttled" // a call is rejected
	faultBody      faultClass = "body"      // the body of an object breaks off
	faultPage      faultClass = "page"      // a page of a list is short, but not the last
	faultPartition faultClass = "partition" // a replica can't reach the bucket
	faultCrash     faultClass = "crash"     // a replica ends, and another takes its place
	faultClock     faultClass = "clock"     // the clocks disagree
	faultDelete    faultClass = "delete"    // the bucket has no conditional deletes
	faultAbandon   faultClass = "abandon"   // a client gives up early
)

// callRates are the probabilities of the faults of a call, in a run of average
// weather.
var callRates = []struct {
	fault faultClass
	rate  float64
}{
	{faultSlow, .01}, {faultLost, .004}, {faultResponse, .006}, {faultDelayed, .008},
	{faultDuplicate, .01}, {faultThrottled, .003}, {faultBody, .003}, {faultPage, .05},
}

// allFaults lists the classes.
var allFaults = []faultClass{
	faultSlow, faultLost, faultResponse, faultDelayed, faultDuplicate, faultThrottled,
	faultBody, faultPage, faultPartition, faultCrash, faultClock, faultDelete,
	faultAbandon,
}

// weather decides the faults of a run. Each decision comes from a stream of its own,
// so that it depends neither on the order of goroutines nor on other decisions.
type weather struct {
	seed  uint64
	rates map[faultClass]float64 // without an entry, the class does not happen

	mu     sync.Mutex
	off    map[string]bool // the faults that don't happen, by name
	active bool
	log    []logEntry
}

type logEntry struct {
	at    time.Time
	class faultClass
	name  string // of the fault: it depends on the seed alone
	text  string
}

// newWeather returns the weather of a seed. Most runs have some classes of faults
// only, so that a rare one is not always hidden behind another.
func newWeather(seed uint64) *weather {
	w := &weather{seed: seed, rates: make(map[faultClass]float64), off: make(map[string]bool), active: true}
	r := w.stream("weather")
	fine := r.IntN(8) == 0
	for _, f := range allFaults {
		happens, strength := r.IntN(10) < 6, []float64{.3, 1, 3}[r.IntN(3)]
		if happens && !fine {
			w.rates[f] = strength
		}
	}
	for _, c := range callRates {
		if s, ok := w.rates[c.fault]; ok {
			w.rates[c.fault] = s * c.rate
		}
	}
	return w
}

// stream returns the random numbers of a name.
func (w *weather) stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// happens reports whether the faults of a class happen in this run.
func (w *weather) happens(f faultClass) bool { return w.rates[f] > 0 }

// note records that a fault happens, or returns false if it is turned off.
func (w *weather) note(f faultClass, name, format string, args ...any) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.active || w.off[name] {
		return false
	}
	w.log = append(w.log, logEntry{time.Now(), f, name, fmt.Sprintf(format, args...)})
	return true
}

// clear ends the faults of calls.
func (w *weather) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active = false
}

// choose returns the fault of a call, "" for none.
func (w *weather) choose(r *rand.Rand, write bool) faultClass {
	p := r.Float64()
	for _, c := range callRates {
		rate := w.rates[c.fault]
		if p < rate {
			if !write && (c.fault == faultDelayed || c.fault == faultDuplicate) {
				return ""
			}
			return c.fault
		}
		p -= rate
	}
	return ""
}

// between returns a duration from the logarithmic distribution. It has odd
// nanoseconds, so that hardly any two events happen at the same time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return time.Duration(float64(least) * math.Pow(float64(most)/float64(least), r.Float64()))
}

// caller identifies the request that a call to the bucket belongs to, and collects
// facts about its calls.
type caller struct {
	name string

	mu         sync.Mutex
	calls      map[string]int // by kind and key
	pending    int            // effects that are still to come
	lastEffect int64          // tick
	handled    int64          // tick; 0 while the handler is running
}

type callerKey struct{}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// count returns the name of a call, the same in each run with the same seed. The
// store chooses UUIDs at random, so they don't count.
func (c *caller) count(kind, key string) string {
	call := kind + " " + withoutUUIDs(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = make(map[string]int)
	}
	c.calls[call]++
	return fmt.Sprint(c.name, " ", call, " ", c.calls[call])
}

func (c *caller) add(pending int, tick int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending += pending
	c.lastEffect = max(c.lastEffect, tick)
}

// over returns the tick after which nothing that the request began has an effect.
func (c *caller) over() (tick int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.lastEffect, c.handled), c.pending == 0 && c.handled != 0
}

// mayHaveWritten reports whether a request may have changed anything. A push that was
// rejected at once has moved no tag for a moment.
func (e *event) mayHaveWritten() bool {
	return slices.ContainsFunc(e.callers, func(c *caller) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.calls == nil || c.lastEffect != 0 || c.pending != 0
	})
}

// withoutUUIDs replaces UUIDs by stars.
func withoutUUIDs(key string) string {
	if strings.Count(key, "-") < 4 {
		return key
	}
	var b strings.Builder
	for i := 0; i < len(key); {
		if isUUID(key[i:]) {
			b.WriteByte('*')
			i += 36
			continue
		}
		b.WriteByte(key[i])
		i++
	}
	return b.String()
}

// isUUID reports whether s begins with a UUID.
func isUUID(s string) bool {
	if len(s) < 36 {
		return false
	}
	for i := range 36 {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := s[i] >= '0' && s[i] <= '9' || s[i] >= 'a' && s[i] <= 'f'
		if dash != (s[i] == '-') || !dash && !hex {
			return false
		}
	}
	return true
}
