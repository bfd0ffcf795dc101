// SPDX-License-Identifier: Apache-2.0

// A run of a simulation, from the first request to the last check.

package bucket_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// porcupineLimit is how long the check of a partition may take.
const porcupineLimit = 3 * time.Second

// simulate carries out a plan, and checks the history.
func simulate(t *testing.T, plan *simPlan, target simTarget) *result {
	begun := time.Now()
	res := &result{plan: plan}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(plan, target)
		f.run()
		res.history, res.violations, res.calls = f.history, f.violations, f.ticks.Load()
	})
	for _, p := range partitionsOf(res.history, target.rules) {
		p.check(res, porcupineLimit)
	}
	checkLists(res, target.rules)
	res.took = time.Since(begun)
	return res
}

func (f *fleet) run() {
	var clients sync.WaitGroup
	for n := range f.plan.ops {
		clients.Add(1)
		go func() {
			defer clients.Done()
			(&simClient{fleet: f, n: n, seen: make(map[string]int)}).run()
		}()
	}
	clients.Wait()
	f.handlers.Wait()
	f.late.Wait()

	// All replicas start again, and nothing disturbs them.
	f.clear()
	for _, r := range f.replicas {
		if f.target.replicas > 1 {
			f.crash(r)
			f.start(r)
		}
	}
	first := f.readAll("end", f.replicas[0])
	for _, r := range f.replicas[1:] {
		f.compare(first, f.readAll("end", r), "replica")
	}
	if f.target.gc != nil {
		f.quiet()
		f.compare(first, f.readAll("quiet", f.replicas[0]), "gc")
	}
	for _, r := range f.replicas {
		_, _, s := r.process()
		if f.target.close != nil {
			f.target.close(s)
		}
	}
}

// quiet lets GC do its work while there are no clients, and checks that nothing
// remains that can't be reached.
func (f *fleet) quiet() {
	for i := range 3 {
		time.Sleep(3*time.Hour + time.Duration(i+1))
		_, _, s := f.replicas[i%len(f.replicas)].process()
		c := &caller{name: fmt.Sprint("quiet ", i)}
		if err := f.target.gc(withCaller(context.Background(), c), s); err != nil {
			f.violate("gc", nil, "GC, without faults: %v", err)
		}
	}
	if f.target.leftover == nil {
		return
	}
	all, unfinished := f.bucket.snapshot()
	for _, err := range f.target.leftover(all, f.bucket.condDelete) {
		f.violate("leftover", nil, "%s", err)
	}
	for _, key := range unfinished {
		f.violate("leftover", nil, "an unfinished multipart upload of %s", key)
	}
}

// readAll reads everything through a replica. It returns what there is.
func (f *fleet) readAll(name string, r *replica) map[string]string {
	found := make(map[string]string)
	client := &simClient{fleet: &fleet{network: f.network, target: f.target, plan: f.plan, replicas: []*replica{r}}, seen: make(map[string]int)}
	n := 0
	do := func(op simOp) (e *event) {
		for range max(f.target.tries, 1) {
			n++
			name := fmt.Sprint(name, r.n, ".", n)
			client.do(&operation{simOp: op, simClient: client, name: name, random: f.stream(name)})
			if e = client.history[len(client.history)-1]; !e.unknown() {
				return e
			}
		}
		client.violate("final", e, "%s: without faults", e)
		return e
	}
	shown := func(op simOp) string { return fmt.Sprint(do(op).names) }
	for _, repo := range simRepos {
		var tags, referrers []string
		exists := false
		for _, tag := range simTags {
			e := do(simOp{kind: opGetTag, repo: repo, tags: []string{tag}})
			if e.status == 200 {
				tags = append(tags, tag)
				found[repo+" "+tag] = fmt.Sprint("m", e.found)
			}
		}
		for i, m := range simManifests {
			if e := do(simOp{kind: opGetManifest, repo: repo, manifest: i}); e.status == 200 {
				exists = true
				found[fmt.Sprint(repo, " m", i)] = "present"
				if m.subject >= 0 {
					referrers = append(referrers, m.digest.String())
				}
			}
			if i < 2 {
				referrers = nil
				if s := i + 2; do(simOp{kind: opHeadManifest, repo: repo, manifest: s}).status == 200 {
					referrers = []string{simManifests[s].digest.String()}
				}
				if got, want := shown(simOp{kind: opReferrers, repo: repo, manifest: i}), fmt.Sprint(referrers); got != want {
					client.violate("final", nil, "referrers of m%d in %s: %s, want %s", i, repo, got, want)
				}
			}
		}
		for i := range simBlobs {
			kind := opGetBlob
			if r.n > 0 && i == len(simBlobs)-1 {
				kind = opHeadBlob
			}
			if e := do(simOp{kind: kind, repo: repo, blob: i}); e.status == 200 {
				exists = true
				found[fmt.Sprint(repo, " b", i)] = "present"
			}
		}
		if got, want := shown(simOp{kind: opTags, repo: repo}), fmt.Sprint(tags); got != want {
			client.violate("final", nil, "tags of %s: %s, want %s", repo, got, want)
		}
		if exists {
			found[repo] = "exists"
		}
	}
	repos := slices.DeleteFunc(slices.Clone(simRepos), func(repo string) bool { return found[repo] == "" })
	catalog := do(simOp{kind: opCatalog})
	loose := func(repo string) bool { // until GC mends it; checkLists knows of content that was acknowledged
		at := *catalog
		at.repo = repo
		return f.target.rules.looseNames && name == "end" && slices.ContainsFunc(f.history, func(e *event) bool { return e.leavesName(&at) })
	}
	names := slices.DeleteFunc(slices.Clone(catalog.names), loose)
	if got, want := fmt.Sprint(names), fmt.Sprint(slices.DeleteFunc(repos, loose)); got != want {
		client.violate("final", nil, "repositories: %s, want %s", got, want)
	}
	for _, e := range client.history {
		e.final = true
	}
	f.history = append(f.history, client.history...)
	f.violations = append(f.violations, client.violations...)
	return found
}

func (f *fleet) compare(want, got map[string]string, check string) {
	if maps.Equal(want, got) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			f.violate(check, nil, "%s: %q, but %q in the first replica", name, got[name], want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if want[name] == "" {
			f.violate(check, nil, "%s: %q, but not in the first replica", name, got[name])
		}
	}
}
