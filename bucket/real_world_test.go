// SPDX-License-Identifier: Apache-2.0

// Worlds: parts of a run with real processes whose histories are checked by
// themselves.

package bucket_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// world is a simulation's fleet in front of real processes. Its repositories have
// names of their own: the check of a history takes time that grows with its length,
// above all with the outcomes in it that are unknown, which may take effect at any
// time.
type world struct {
	*fleet
	n int

	mu      sync.Mutex
	callers []*caller         // of requests that may still have effects
	first   map[string]string // the final content
}

// newWorld makes a world with its clients. Their pauses are short.
func newWorld(seed uint64, n, clients, ops int, target simTarget) *world {
	plan := newPlan(seed, clients, ops)
	plan.events = nil
	clear(plan.weather.rates) // which the proxies decide
	plan.weather.rates[faultAbandon] = 1
	for _, ops := range plan.ops {
		for i := range ops {
			ops[i].think = target.pause(ops[i].think)
		}
	}
	w := &world{fleet: &fleet{network: &network{weather: plan.weather}, target: target, plan: plan}, n: n}
	for i := range target.replicas {
		w.replicas = append(w.replicas, &replica{n: i})
	}
	return w
}

// prefix precedes the names of the repositories. Those of later worlds follow.
func (w *world) prefix() string { return fmt.Sprintf("w%05d/", w.n) }

// run runs the clients.
func (w *world) run() {
	var clients sync.WaitGroup
	for n := range w.plan.ops {
		clients.Add(1)
		go func() {
			defer clients.Done()
			(&simClient{fleet: w.fleet, n: n, seen: make(map[string]int)}).run()
		}()
	}
	clients.Wait()
	w.handlers.Wait()
}

// quiet ends the time in which requests may have effects.
func (w *world) quiet() {
	w.clear()
	tick := w.tick()
	for _, c := range w.callers {
		c.add(-1, tick)
	}
	w.callers = nil
}

// readEverything reads everything through each replica, and compares that with an
// earlier time.
func (w *world) readEverything(name, check string) {
	for i, r := range w.replicas {
		found := w.readAll(name, r)
		if w.first == nil {
			w.first = found
			continue
		}
		if i > 0 {
			check = "replica"
		}
		w.compare(w.first, found, check)
	}
}

// check checks the history. It also returns the partitions that are legal only if
// requests had effects after quiet, and those that could not be checked in time.
func (w *world) check() (res *result, loose, timeouts []*partition) {
	res = &result{plan: w.plan, history: w.history, violations: w.violations}
	begun := time.Now()
	for _, p := range partitionsOf(res.history, w.target.rules) {
		before := *res
		p.check(res, porcupineLimit)
		if res.loose > before.loose {
			loose = append(loose, p)
		}
		if res.timeouts > before.timeouts {
			timeouts = append(timeouts, p)
		}
	}
	checkLists(res, w.target.rules)
	res.took = time.Since(begun)
	return res, loose, timeouts
}

// forwarder sends the requests of a world's clients to a process. It adds the
// world's prefix to names, and removes it from responses.
type forwarder struct {
	world *world
	http  *http.Client
	addr  string
}

func (f *forwarder) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(callerKey{}).(*caller)
	c.add(1, 0) // until world.quiet
	f.world.mu.Lock()
	f.world.callers = append(f.world.callers, c)
	f.world.mu.Unlock()

	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL.Host, out.Host = f.addr, ""
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	query := out.URL.Query()
	catalog := strings.HasPrefix(r.URL.Path, "/v2/_catalog")
	if catalog {
		query.Set("last", fmt.Sprintf("w%05d/zzz", f.world.n-1))
	} else {
		out.URL.Path = "/v2/" + f.world.prefix() + strings.TrimPrefix(r.URL.Path, "/v2/")
		out.URL.RawPath = ""
	}
	if from := query.Get("from"); from != "" {
		query.Set("from", f.world.prefix()+from)
	}
	out.URL.RawQuery = query.Encode()
	resp, err := f.http.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	for name, values := range resp.Header {
		rw.Header()[name] = values
	}
	if l := resp.Header.Get("Location"); l != "" {
		rw.Header().Set("Location", strings.Replace(l, f.world.prefix(), "", 1))
	}
	if catalog && resp.StatusCode == http.StatusOK {
		body = f.ownNames(rw.Header(), body)
	}
	rw.WriteHeader(resp.StatusCode)
	rw.Write(body)
}

// ownNames removes the names of later worlds from a page of the catalog.
func (f *forwarder) ownNames(header http.Header, body []byte) []byte {
	var doc struct{ Repositories []string }
	if err := json.Unmarshal(body, &doc); err != nil {
		return body // for the client to report
	}
	own := slices.DeleteFunc(slices.Clone(doc.Repositories), func(name string) bool {
		return name > f.world.prefix() && !strings.HasPrefix(name, f.world.prefix())
	})
	if len(own) < len(doc.Repositories) {
		header.Del("Link") // the rest of the list isn't this world's
	}
	for i, name := range own {
		own[i] = strings.TrimPrefix(name, f.world.prefix())
	}
	body, err := json.Marshal(map[string][]string{"repositories": own})
	if err != nil {
		panic(err)
	}
	return body
}
