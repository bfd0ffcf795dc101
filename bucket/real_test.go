// SPDX-License-Identifier: Apache-2.0

// The histories of the simulation with real processes and a real MinIO, in real
// time. Two replicas reach MinIO through proxies that inject faults, and are killed.
// A run can't be repeated, but it does not depend on the simulation's double.

package bucket_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/berth-oci/registry/bucket/miniotest"
)

var (
	realOps  = flag.Int("real-ops", 800, "the operations of a run with real processes")
	realSeed = flag.Uint64("real-seed", 0, "the seed of a run with real processes (default: a random one), which decides operations and faults but not their times")
)

const (
	realReplicas  = 2
	realClients   = 8   // of a world
	realWorldOps  = 250 // of a world, at most
	realWorlds    = 10  // at a time
	realGCEvery   = 8 * time.Second
	realQuietTime = time.Minute // how long requests may go on without faults
)

var realTarget = simTarget{
	name:     "real",
	replicas: realReplicas,
	rules:    relaxed,
	timeout:  4 * time.Second,
	speed:    1500,
	tries:    5,
}

// realRun is a run with real processes.
type realRun struct {
	t         *testing.T
	random    *rand.Rand // of the run itself
	processes []*realProcess
	total     result
	requests  int
	unknown   int
	kills     int
	gcs       int
	lastGC    string
}

// TestRealFleet checks the histories of clients of two processes that share a bucket
// in MinIO.
func TestRealFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	t.Parallel()
	seed := *realSeed
	if seed == 0 {
		seed = rand.Uint64N(1e6)
	}
	t.Logf("-real-seed=%d", seed)
	server := miniotest.Start(t)
	bucketURL, err := url.Parse(server.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	defer transport.CloseIdleConnections()
	r := &realRun{t: t, random: rand.New(rand.NewPCG(seed, 0))}
	for i := range realReplicas {
		proxy := newTCPProxy(t, server.Address(0), rand.New(rand.NewPCG(seed, uint64(1+i))))
		p := &realProcess{
			t: t, n: i, proxy: proxy, http: &http.Client{Transport: transport},
			bucketURL: server.URLAt(bucketURL.Host, proxy.listener.Addr().String()),
		}
		p.start()
		defer p.kill()
		r.processes = append(r.processes, p)
	}
	if t.Failed() {
		return
	}
	var worlds []*world
	begun := time.Now()
	var clients time.Duration
	ops := min(realWorldOps, max(*realOps/4, realClients)) // a short run has several worlds, too
	for left := *realOps; left > 0 && !t.Failed(); {
		var round []*world
		for ; left > 0 && len(round) < realWorlds; left -= ops {
			n := len(worlds) + 1
			w := newWorld(seed+uint64(n), n, realClients, min(left, ops), realTarget)
			worlds, round = append(worlds, w), append(round, w)
		}
		took := r.round(round)
		clients += took
		t.Logf("world %d to %d: %.0fs; so far %d requests, %d with unknown outcomes, %d timeouts of Porcupine",
			round[0].n, len(worlds), took.Seconds(), r.requests, r.unknown, r.total.timeouts)
	}
	if !t.Failed() {
		r.end(worlds)
	}
	counts := make(map[faultClass]int)
	for _, p := range r.processes {
		for class, n := range p.proxy.counts {
			counts[class] += n
		}
	}
	t.Logf("%d operations in %.0fs of %.0fs (%.0f per second), %d requests, %d of them with unknown outcomes, %d partitions, %d with loose bounds, %d timeouts of Porcupine; %d kills, %d runs of GC, the last %s; faults: %v",
		*realOps, clients.Seconds(), time.Since(begun).Seconds(), float64(*realOps)/clients.Seconds(), r.requests, r.unknown,
		r.total.partitions, r.total.loose, r.total.timeouts, r.kills, r.gcs, r.lastGC, counts)
	if r.total.timeouts > max(3, r.total.partitions/100) { // a short run has about 100
		t.Errorf("%d of %d partitions could not be checked in time", r.total.timeouts, r.total.partitions)
	}
}

// round runs some worlds at once, and checks them. It returns how long the clients
// took.
func (r *realRun) round(worlds []*world) time.Duration {
	strength := []float64{0, .3, 1, 1, 2}[r.random.IntN(5)]
	if *realOps <= realWorlds*realWorldOps {
		strength = 1 // in the only round
	}
	for _, p := range r.processes {
		p.attach(worlds)
		p.proxy.takeLog()
		p.proxy.setFaults(strength)
	}
	stop := make(chan struct{})
	var others, clients sync.WaitGroup
	for i, f := range []func(*rand.Rand, <-chan struct{}){r.disturb, r.collect} {
		others.Add(1)
		random := rand.New(rand.NewPCG(r.random.Uint64(), uint64(i)))
		go func() {
			defer others.Done()
			f(random, stop)
		}()
	}
	begun := time.Now()
	for _, w := range worlds {
		clients.Add(1)
		go func() {
			defer clients.Done()
			w.run()
		}()
	}
	clients.Wait()
	took := time.Since(begun)
	close(stop)
	others.Wait()
	if r.t.Failed() {
		return took
	}
	r.quiet()
	r.gc(r.processes[r.random.IntN(len(r.processes))])
	for _, w := range worlds {
		w.quiet()
		w.readEverything("end", "replica")
		r.check(w)
	}
	return took
}

// disturb kills processes and cuts them off from MinIO, until it is told to stop.
func (r *realRun) disturb(random *rand.Rand, stop <-chan struct{}) {
	for sleep(between(random, 500*time.Millisecond, 6*time.Second), stop) {
		p := r.processes[random.IntN(len(r.processes))]
		if random.IntN(3) > 0 {
			p.proxy.partition(between(random, 200*time.Millisecond, 3*time.Second), random.IntN(2) == 0)
			continue
		}
		p.kill()
		r.kills++
		time.Sleep(between(random, 10*time.Millisecond, 2*time.Second))
		p.start()
	}
}

// collect collects garbage now and then. GC may fail: there are faults.
func (r *realRun) collect(random *rand.Rand, stop <-chan struct{}) {
	for sleep(between(random, realGCEvery/4, realGCEvery), stop) {
		p := r.processes[random.IntN(len(r.processes))]
		r.gc(p)
	}
}

// gc collects garbage once.
func (r *realRun) gc(p *realProcess) {
	ctx, cancel := context.WithTimeout(r.t.Context(), realQuietTime)
	defer cancel()
	stats, status, err := p.post(ctx, "/gc")
	if err == nil && status == http.StatusOK {
		r.gcs++
		r.lastGC = stats
	}
}

// sleep lets time pass, or returns false if it is told to stop.
func sleep(d time.Duration, stop <-chan struct{}) bool {
	select {
	case <-time.After(d):
		return true
	case <-stop:
		return false
	}
}

// quiet ends the faults, and waits until no request is in progress anywhere.
func (r *realRun) quiet() {
	ctx, cancel := context.WithTimeout(r.t.Context(), realQuietTime)
	defer cancel()
	for _, p := range r.processes {
		p.proxy.setFaults(0)
	}
	for _, p := range r.processes {
		if _, _, err := p.post(ctx, "/quiet"); err != nil {
			r.t.Errorf("replica %d does not finish its requests: %v", p.n, err)
		}
	}
	for _, p := range r.processes {
		if !p.proxy.wait() {
			r.t.Errorf("MinIO does not finish the requests of replica %d", p.n)
		}
	}
}

// check checks a world's history, and reports what is wrong.
func (r *realRun) check(w *world) {
	res, loose, timeouts := w.check()
	for _, p := range loose {
		ops, _ := p.operations(true)
		verdict := porcupine.CheckOperationsTimeout(simModel, ops, porcupineLimit)
		r.t.Logf("world %d: %s needs loose bounds: %s", w.n, p.name, verdict)
		if verdict == porcupine.Illegal {
			r.t.Log(explain(ops, porcupineLimit))
		}
	}
	for _, p := range timeouts {
		unknown := 0
		for _, s := range p.ops {
			if s.optional {
				unknown++
			}
		}
		r.t.Logf("world %d: %s could not be checked in time: %d sub-operations, %d of them optional", w.n, p.name, len(p.ops), unknown)
	}
	r.total.partitions += res.partitions
	r.total.loose += res.loose
	r.total.timeouts += res.timeouts
	r.requests += len(res.history)
	for _, e := range res.history {
		if e.unknown() {
			r.unknown++
		}
	}
	r.report(w, res.violations)
	if len(res.violations) == 0 {
		return
	}
	for _, p := range r.processes {
		w.plan.weather.log = append(w.plan.weather.log, p.proxy.takeLog()...)
	}
	r.t.Errorf("world %d: its history:\n%s", w.n, res.describe())
}

func (r *realRun) report(w *world, violations []violation) {
	for i, v := range violations {
		if i == 5 {
			r.t.Errorf("world %d: and %d more", w.n, len(violations)-i)
			break
		}
		r.t.Errorf("world %d: %s: %s", w.n, v.check, v.text)
	}
}

// end restarts all processes, and reads everything again: nothing has changed since
// its world ended.
func (r *realRun) end(worlds []*world) {
	for _, p := range r.processes {
		p.kill()
		p.start()
		p.attach(worlds)
	}
	for _, w := range worlds {
		known := len(w.violations)
		w.readEverything("after", "later")
		r.report(w, w.violations[known:])
	}
}
