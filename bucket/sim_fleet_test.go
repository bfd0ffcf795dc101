// SPDX-License-Identifier: Apache-2.0

// The fleet of a simulation: replicas that share a bucket, and their ends.

package bucket_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// simTarget is the kind of store that a simulation is about.
type simTarget struct {
	name     string
	replicas int
	rules    rules
	open     func(b objects.Bucket, clock func() time.Time) registry.Store
	close    func(registry.Store)
	gc       func(ctx context.Context, s registry.Store) error                // nil: none
	leftover func(objects map[string][]byte, condDelete bool) (errs []string) // nil: not checked

	// For runs in real time: see TestRealFleet.
	timeout time.Duration // of clients, between once and twice that; 0: clientTimeout
	speed   int           // by which the pauses of clients are shorter; 0: 1
	tries   int           // of each read of the final check; 0: 1
}

// pause returns how long a pause of a client really is.
func (t simTarget) pause(d time.Duration) time.Duration { return d / time.Duration(max(t.speed, 1)) }

// rules are the promises that a store need not keep to the letter. Each is a
// sub-operation of the model: see partitions.
type rules struct {
	// A push puts the manifest, and moves its tags afterwards, one by one. It is
	// not a single step.
	steps bool
	// (a) A conditional push that is rejected may leave its manifest, without
	// the tag.
	leavesManifest bool
	// (b) A push that overlaps deletes of the same manifest may take effect on the
	// manifest again, after each of them.
	secondPut bool
	// (c) A conditional push of several tags that is rejected may have moved
	// some of them for a moment.
	moment bool
	// (d) A list of tags may show a tag whose manifest is being deleted at that
	// time, or whose delete ended with an unknown outcome.
	staleLists bool
	// (e) The name of a repository is not one step with its content. The catalog,
	// and the distinction between NAME_UNKNOWN and an empty list, may be wrong
	// while a push or a delete is in progress there. After one that failed, the
	// catalog may name a repository without content, or lack one that has what the
	// push has left, until GC.
	looseNames bool
}

var relaxed = rules{steps: true, leavesManifest: true, secondPut: true, moment: true, staleLists: true, looseNames: true}

// clientTimeout is when a client gives up, between once and twice that.
const clientTimeout = time.Minute

// handlerBound is how long a handler may run after its client has gone.
const handlerBound = 15 * time.Minute

// fleet is a running simulation.
type fleet struct {
	*network
	target   simTarget
	plan     *simPlan
	replicas []*replica
	handlers sync.WaitGroup

	mu         sync.Mutex
	history    []*event
	violations []violation
	sessions   []*session
}

// replica is a process of the fleet, one after another.
type replica struct {
	n           int
	incarnation int
	offset      time.Duration // of its clock
	drift       float64

	mu    sync.Mutex
	h     *handle // nil while it is down
	store registry.Store
	serve http.Handler
}

func newFleet(plan *simPlan, target simTarget) *fleet {
	f := &fleet{network: &network{weather: plan.weather, bucket: newDouble()}, target: target, plan: plan}
	f.bucket.condDelete = !f.happens(faultDelete)
	for i := range target.replicas {
		r := &replica{n: i}
		if f.happens(faultClock) {
			random := f.stream(fmt.Sprint("clock ", i))
			r.offset = time.Duration(random.Int64N(int64(80*time.Minute))) - 40*time.Minute
			r.drift = (random.Float64() - .5) / 200 // up to 5 minutes in 30 hours
			f.note(faultClock, fmt.Sprint("clock ", i), "the clock of replica %d is off by %s", i, r.offset)
		}
		f.start(r)
		f.replicas = append(f.replicas, r)
	}
	if f.happens(faultClock) {
		f.bucket.skew = time.Duration(f.stream("bucket clock").Int64N(int64(time.Minute)))
	}
	return f
}

// start starts a process for a replica.
func (f *fleet) start(r *replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.incarnation++
	r.h = f.newHandle(fmt.Sprintf("r%d.%d", r.n, r.incarnation))
	clock := func() time.Time {
		now := time.Now()
		if f.off[fmt.Sprint("clock ", r.n)] {
			return now
		}
		return now.Add(r.offset + time.Duration(r.drift*float64(now.Sub(simStart))))
	}
	r.store = f.target.open(r.h, clock)
	r.serve = registry.New(registry.WithStore(r.store), registry.AllowSparse())
}

// crash ends the process of a replica: none of its calls begins anymore.
func (f *fleet) crash(r *replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.h != nil {
		close(r.h.crashed)
		r.h = nil
	}
}

// process returns a replica's process, nil if it is down.
func (r *replica) process() (*handle, http.Handler, registry.Store) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.h, r.serve, r.store
}

// begin lets an event happen in the background.
func (f *fleet) begin(e simEvent) {
	f.late.Go(func() {
		time.Sleep(e.delay)
		r := f.replicas[e.replica%len(f.replicas)]
		h, _, _ := r.process()
		if h == nil || !f.note(e.class, e.name, "%s: %s for %s", h.name, e.class, e.duration) {
			return
		}
		if e.class == faultPartition {
			h.partition(e.duration, e.hangs)
			return
		}
		f.crash(r)
		time.Sleep(e.duration)
		f.start(r)
	})
}

func (f *fleet) violate(check string, e *event, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := violation{check: check, text: fmt.Sprintf(format, args...)}
	if e != nil {
		v.events = []*event{e}
	}
	f.violations = append(f.violations, v)
}

func (f *fleet) record(e *event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history = append(f.history, e)
}

// response is a response as a client sees it.
type response struct {
	status int // 0: unknown
	header http.Header
	body   []byte
}

// simRequest is a request that a client sends.
type simRequest struct {
	method, uri string
	header      http.Header
	body        []byte
	want        []byte // the expected body of a 200, which is then not kept
}

// send sends a request to a replica, and sets the event's times and status.
func (f *fleet) send(e *event, r *replica, random *rand.Rand, req simRequest) response {
	timeout := cmp.Or(f.target.timeout, clientTimeout)
	timeout += time.Duration(random.Int64N(int64(timeout)))
	early := between(random, 5*time.Millisecond, 5*time.Second)
	if f.happens(faultAbandon) && random.Float64() < .01*f.rates[faultAbandon] && f.note(faultAbandon, e.name, "%s gives up after %s", e.name, early) {
		timeout = early
	}
	c := &caller{name: e.name}
	e.callers = append(e.callers, c)
	ctx, cancel := context.WithTimeout(withCaller(context.Background(), c), timeout)
	defer cancel()
	if e.start == 0 {
		e.start, e.from0 = f.tick(), time.Now()
	}
	h, handler, _ := r.process()
	w := &simWriter{header: make(http.Header), want: req.want}
	end := func(status int) response {
		e.end, e.to, e.status = f.tick(), time.Now(), status
		if status == 0 {
			return response{}
		}
		return response{status, w.header, w.body}
	}
	if h == nil { // connection refused
		c.handled = f.tick()
		time.Sleep(f.target.pause(between(random, time.Millisecond, time.Second)))
		return end(0)
	}
	e.replica = h.name
	r2, err := http.NewRequestWithContext(ctx, req.method, "http://registry"+req.uri, nil)
	if err != nil {
		panic(err)
	}
	if req.header != nil {
		r2.Header = req.header
	}
	body := &simBody{Reader: *bytes.NewReader(req.body), ctx: ctx, target: f.target}
	if random.IntN(10) == 0 || f.target.replicas == 1 {
		body.random = f.stream(e.name + " body") // the handler may read on while the client goes on, too
	}
	r2.Body, r2.ContentLength, r2.RequestURI = body, int64(len(req.body)), req.uri

	done := make(chan error, 1)
	f.handlers.Add(1)
	go func() {
		defer f.handlers.Done()
		begun := time.Now()
		err := serve(handler, w, r2)
		c.mu.Lock()
		c.handled = f.tick()
		c.mu.Unlock()
		if took := time.Since(begun); took > handlerBound {
			f.violate("bound", nil, "%s: the handler ran for %s", c.name, took)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if ctx.Err() != nil {
			return end(0)
		}
		select {
		case <-h.crashed:
			return end(0)
		default:
		}
		if err != nil && !errors.Is(err, errAborted) {
			f.violate("panic", e, "%s: %v", e.name, err)
		}
		if err != nil || w.broken() {
			return end(0)
		}
		if w.status >= 500 && w.status != http.StatusServiceUnavailable {
			f.violate("status", e, "%s %s: %d %s", req.method, req.uri, w.status, w.body)
		}
		if w.wrong {
			f.violate("bytes", e, "%s %s: wrong content", req.method, req.uri)
		}
		return end(w.status)
	case <-ctx.Done():
	case <-h.crashed:
	}
	// The handler, and perhaps others, go on at this very moment: let them be first,
	// so that the order is the same in each run.
	time.Sleep(between(random, time.Microsecond, time.Millisecond))
	return end(0)
}

var errAborted = errors.New("simulation: the handler has broken the connection")

// serve calls a handler as net/http does.
func serve(h http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch v := recover(); v {
		case nil:
		case http.ErrAbortHandler:
			err = errAborted
		default:
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	h.ServeHTTP(w, r)
	return nil
}

// simWriter is an http.ResponseWriter that keeps the response, or compares its body
// with the expected one.
type simWriter struct {
	header http.Header
	status int
	body   []byte
	want   []byte
	n      int
	wrong  bool
}

func (w *simWriter) Header() http.Header { return w.header }

func (w *simWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *simWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.want == nil || w.status != http.StatusOK {
		w.body = append(w.body, p...)
	} else if w.n+len(p) > len(w.want) || !bytes.Equal(p, w.want[w.n:w.n+len(p)]) {
		w.wrong = true
	}
	w.n += len(p)
	return len(p), nil
}

// broken reports whether the body is shorter than announced.
func (w *simWriter) broken() bool {
	w.WriteHeader(http.StatusOK)
	return w.want != nil && w.status == http.StatusOK && w.n != len(w.want)
}

// simBody is the body of a request. It comes in pieces if it has random numbers.
type simBody struct {
	bytes.Reader
	ctx    context.Context
	target simTarget
	random *rand.Rand
}

func (b *simBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	if b.random == nil {
		return b.Reader.Read(p)
	}
	pause := b.target.pause(between(b.random, time.Microsecond, time.Second))
	if b.target.replicas == 1 {
		// Without a bucket, requests meet only if they go on at the same time.
		pause = time.Duration(1+b.random.IntN(3)) * time.Millisecond
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.ctx.Done():
		return 0, io.ErrUnexpectedEOF
	}
	return b.Reader.Read(p[:min(len(p), 1+b.random.IntN(1<<20))])
}

// WriteTo hides that of bytes.Reader, which takes no time.
func (b *simBody) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{b})
}

func (b *simBody) Close() error { return nil }
