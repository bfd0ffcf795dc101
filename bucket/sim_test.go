// SPDX-License-Identifier: Apache-2.0

// A simulation of a fleet: replicas with a shared bucket, clients, faults, and a
// check of all responses. It runs in fake time, and each run depends on a seed.

package bucket_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
	"github.com/berth-oci/registry/ocidir"
)

var (
	simSeeds    = flag.Int("seeds", 0, "the number of simulations (default: as many as fit into CI)")
	simSeed     = flag.Uint64("seed", 0, "the only seed of a simulation, which is printed")
	simFirst    = flag.Uint64("first-seed", 1, "the first seed of several simulations")
	simNoShrink = flag.Bool("no-shrink", false, "don't shrink a simulation that fails")
	simOps      = flag.Int("ops", 500, "the operations of a simulation")
	simClients  = flag.Int("clients", 8, "the clients of a simulation")
)

// TestSimulationMemory checks the clients and the model with a MemStore, which must
// keep its promises to the letter.
func TestSimulationMemory(t *testing.T) {
	runSeeds(t, 40, simTarget{
		name:     "memory",
		replicas: 1,
		open:     func(objects.Bucket, func() time.Time) registry.Store { return new(registry.MemStore) },
	})
}

// TestSimulationDirectory does the same with a directory.
func TestSimulationDirectory(t *testing.T) {
	runSeeds(t, 8, simTarget{
		name:     "directory",
		replicas: 1,
		open: func(objects.Bucket, func() time.Time) registry.Store {
			dir, err := os.MkdirTemp(t.TempDir(), "")
			if err != nil {
				panic(err)
			}
			s, err := ocidir.Open(dir, nil)
			if err != nil {
				panic(err)
			}
			return s
		},
		close: func(s registry.Store) { s.(*ocidir.Store).Close() },
	})
}

// TestSimulationToy simulates a fleet with a store that is certainly correct.
func TestSimulationToy(t *testing.T) { runSeeds(t, 40, toyTarget("")) }

func toyTarget(broken string) simTarget {
	return simTarget{
		name:     "toy",
		replicas: simReplicas,
		open:     func(b objects.Bucket, _ func() time.Time) registry.Store { return &toy{b: b, broken: broken} },
	}
}

// planFor makes the plan of a seed for a target.
func planFor(seed uint64, target simTarget) *simPlan {
	p := newPlan(seed, *simClients, *simOps)
	if target.replicas == 1 { // in memory or in a directory: there is no bucket to fail
		p.events = nil
		clear(p.weather.rates)
		for _, ops := range p.ops { // without latencies, requests meet only if they begin together
			for i := range ops {
				ops[i].think = ops[i].think.Round(time.Second) / 100
			}
		}
	}
	return p
}

// simShare divides the number of simulations.
var simShare = 1

// runSeeds simulates many seeds, on all processors.
func runSeeds(t *testing.T, n int, target simTarget) {
	if *simSeed != 0 {
		res := simulate(t, planFor(*simSeed, target), target)
		t.Log("\n" + res.describe())
		report(t, res, target)
		return
	}
	if testing.Short() {
		n = n/10 + 1
	}
	n = max(1, n/simShare)
	if *simSeeds > 0 {
		n = *simSeeds
	}
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a run leaves much garbage, and keeps little
	var next atomic.Uint64
	var mu sync.Mutex
	var total result
	requests, unknown, begun := 0, 0, time.Now()
	faults := make(map[faultClass]int)
	t.Run("seeds", func(t *testing.T) {
		for w := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("worker", w), func(t *testing.T) {
				t.Parallel()
				for !t.Failed() {
					i := next.Add(1) - 1
					if i >= uint64(n) {
						return
					}
					seed := *simFirst + i
					// A store that waits for a mutex while its holder waits for time
					// to pass stops the bubble's clock.
					watchdog := time.AfterFunc(time.Minute, func() {
						panic(fmt.Sprintf("simulation: seed %d hangs: a mutex is held during a call to the bucket?", seed))
					})
					defer watchdog.Stop() // simulate may end the test
					res := simulate(t, planFor(seed, target), target)
					watchdog.Stop()
					report(t, res, target)
					mu.Lock()
					total.timeouts += res.timeouts
					total.loose += res.loose
					total.partitions += res.partitions
					requests += len(res.history)
					for _, e := range res.history {
						if e.unknown() {
							unknown++
						}
					}
					for _, l := range res.plan.weather.log {
						faults[l.class]++
					}
					mu.Unlock()
				}
			})
		}
	})
	took := time.Since(begun)
	t.Logf("%s: %d seeds in %.1fs (%.1f per second), %d requests, %d of them with unknown outcomes, %d partitions, %d with loose bounds, %d timeouts of Porcupine; faults: %v",
		target.name, n, took.Seconds(), float64(n)/took.Seconds(), requests, unknown, total.partitions, total.loose, total.timeouts, faults)
	if total.timeouts*100 > total.partitions {
		t.Errorf("%d of %d partitions could not be checked in time", total.timeouts, total.partitions)
	}
}

// report fails the test if promises were broken.
func report(t *testing.T, res *result, target simTarget) {
	t.Helper()
	for i, v := range res.violations {
		if i == 5 {
			t.Errorf("and %d more", len(res.violations)-i)
			break
		}
		t.Errorf("seed %d: %s: %s", res.plan.seed, v.check, v.text)
	}
	if len(res.violations) == 0 || *simNoShrink {
		return
	}
	small := shrink(t, res, target)
	t.Errorf("seed %d, shrunk (replay all of it with -seed=%d): %s: %s\n%s",
		res.plan.seed, res.plan.seed, small.violations[0].check, small.violations[0].text, small.describe())
}
