// SPDX-License-Identifier: Apache-2.0

// A concurrent model check: several workers send random requests, and the
// responses must be linearizable: a registry that handles one request at a time
// could have sent them.
//
// The state of a registry consists of the states of many keys: a blob in a
// repository, a tag, a session. Each response is an observation of some keys: each
// was in a state, or changed to one, at some moment between the request and the
// response. For each key, the check searches for an order of its observations that
// explains all of them. When no request is in progress, the key must be in one of
// the states in which such orders end.

package model

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	workers = 4
	// opsPerPhase is the number of operations of each worker between two checks.
	opsPerPhase = 50
	// phasesPerRegistry is the number of phases until a new registry, so that
	// abandoned sessions do not accumulate.
	phasesPerRegistry = 50
)

// key identifies a part of the registry that has a state.
type key struct {
	repo string
	kind string
	n    int
}

// The kinds of keys, with their states. In a new registry each key has state 0.
const (
	aBlob     = "blob"     // 0: absent, 1: present
	aManifest = "manifest" // 0: absent, 1 and 2: present, with its first or second media type
	aReferrer = "referrer" // 0: not in its subject's list, 1: in it
	aTag      = "tag"      // 0: absent, 1+j: points at manifest j
	aSession  = "session"  // 0 to 3: the number of its three chunks that it has, 4: ended
)

const sessionEnded = 4

// states is a set of states of a key, one bit for each.
type states uint16

const anyState states = 1<<16 - 1

func only(s int) states { return 1 << s }

// observation is the information about a key in a response: the key was in one of
// the states in before and, if that state is in change, it changed to after.
type observation struct {
	before, change states
	after          int
	// beforeIfLeased is added to before if another worker may have had the
	// lease on the session.
	beforeIfLeased states

	from, to int64 // the client's clock
	worker   int
	method   string
	url      string
	status   int
}

func (o observation) String() string {
	return fmt.Sprintf("  [%d,%d] worker %d: %s %s: %d (before %04x, change %04x to %d)", o.from, o.to, o.worker, o.method, o.url, o.status, o.before, o.change, o.after)
}

// apply returns the states that a key may be in after the observation, if it is in
// one of start before it: 0 if the observation contradicts start.
func (o observation) apply(start states) states {
	start &= o.before
	end := start &^ o.change
	if start&o.change != 0 {
		end |= only(o.after)
	}
	return end
}

// endStates returns the states that a key may be in after all observations. Each
// worker made its observations in order, and an observation cannot precede one
// whose response arrived before its own request was sent. The result is 0 if no
// order explains the responses.
func endStates(start states, observations [workers][]observation) states {
	type cut [workers]int // the number of observations of each worker that are applied
	total := 0
	for w := range observations {
		total += len(observations[w])
	}
	level := map[cut]states{{}: start}
	for range total {
		nextLevel := make(map[cut]states)
		for c, s := range level {
			for w := range observations {
				if c[w] == len(observations[w]) {
					continue
				}
				o := observations[w][c[w]]
				canBeNext := true
				for v := range observations {
					if v != w && c[v] < len(observations[v]) && observations[v][c[v]].to < o.from {
						canBeNext = false
					}
				}
				if !canBeNext {
					continue
				}
				if after := o.apply(s); after != 0 {
					n := c
					n[w]++
					nextLevel[n] |= after
				}
			}
		}
		level = nextLevel
	}
	var end states
	for _, s := range level {
		end |= s
	}
	return end
}

// session is an upload that all workers share.
type session struct {
	key      key
	location string
	blob     blob
	guess    atomic.Int32 // the number of chunks that it probably has
}

// offset returns the number of bytes in the first k chunks.
func (s *session) offset(k int) int { return len(s.blob.data) * k / 3 }

// world is a registry, and its state between two phases.
type world struct {
	t     *testing.T
	c     *client
	known map[key]states

	mu       sync.Mutex // guards the fields below, while workers run
	sessions []*session
	opened   int
}

// sharedRepos lists the repositories that all workers use. Each worker also has a
// repository of its own, whose state it knows exactly.
var sharedRepos = []string{"a", "a/b", "c"}

func ownRepo(worker int) string { return fmt.Sprintf("own/%d", worker) }

func allRepos() []string {
	repos := slices.Clone(sharedRepos)
	for w := range workers {
		repos = append(repos, ownRepo(w))
	}
	slices.Sort(repos)
	return repos
}

// keys returns all keys of a repository except its sessions.
func keys(repo string) (all []key) {
	for i := range blobPool {
		all = append(all, key{repo, aBlob, i})
	}
	for j, m := range manifestPool {
		all = append(all, key{repo, aManifest, j})
		if m.subject != "" {
			all = append(all, key{repo, aReferrer, j})
		}
	}
	for k := range tagPool {
		all = append(all, key{repo, aTag, k})
	}
	return all
}

// worker sends requests, one at a time.
type worker struct {
	*world
	id           int
	rng          *rand.Rand
	observations map[key][]observation

	clearing bool // mostly delete, until nothing is left
}

// record records an observation of a key.
func (w *worker) record(a response, k key, before, change states, after int) {
	w.observations[k] = append(w.observations[k], observation{before: before, change: change, after: after, beforeIfLeased: before,
		from: a.from, to: a.to, worker: w.id, method: a.method, url: a.url, status: a.status})
}

// recordState records that a key was in one of the given states.
func (w *worker) recordState(a response, k key, before states) { w.record(a, k, before, 0, 0) }

// recordChange records that a key was in one of the states before, and changed to
// after.
func (w *worker) recordChange(a response, k key, before states, after int) {
	w.record(a, k, before, anyState, after)
}

// recordEmpty records that a repository did not exist, so it had no content.
func (w *worker) recordEmpty(a response, repo string) {
	for _, k := range keys(repo) {
		w.recordState(a, k, only(0))
	}
}

// recordMissing records that a key was absent, and checks the error.
func (w *worker) recordMissing(a response, k key, code string) {
	switch {
	case a.method == "HEAD":
		w.recordState(a, k, only(0))
	case slices.Equal(a.codes, []string{"NAME_UNKNOWN"}):
		w.recordEmpty(a, k.repo)
	case a.hasError(w.t, 404, code):
		w.recordState(a, k, only(0))
	}
}

func (w *worker) repo() string {
	if w.rng.IntN(4) == 0 {
		return ownRepo(w.id)
	}
	return sharedRepos[w.rng.IntN(len(sharedRepos))]
}

func (w *worker) chance(percent int) bool { return w.rng.IntN(100) < percent }

// operations lists the operations of workers. The frequency of each is proportional
// to its weight.
var operations = []struct {
	weight int
	run    func(*worker)
	clears bool // more frequent in the phases that delete everything
}{
	{14, (*worker).pushBlob, false},
	{6, (*worker).mount, false},
	{6, (*worker).deleteBlob, true},
	{10, (*worker).getBlob, false},
	{20, (*worker).putManifest, false},
	{5, (*worker).deleteManifest, true},
	{5, (*worker).deleteTag, true},
	{10, (*worker).getManifest, false},
	{4, (*worker).listTags, false},
	{4, (*worker).listReferrers, false},
	{2, (*worker).catalog, false},
	{14, (*worker).useSession, false},
}

// runOne runs a random operation.
func (w *worker) runOne() {
	weight := func(i int) int {
		if w.clearing && operations[i].clears {
			return operations[i].weight * 20
		}
		return operations[i].weight
	}
	total := 0
	for i := range operations {
		total += weight(i)
	}
	n := w.rng.IntN(total)
	for i, o := range operations {
		if n -= weight(i); n < 0 {
			o.run(w)
			return
		}
	}
}

// do is client.do, with bodies that are sometimes sent slowly.
func (w *worker) do(c request) response {
	c.slow = w.chance(20)
	return w.c.do(w.t, c)
}

func (w *worker) pushBlob() {
	repo := w.repo()
	i := w.rng.IntN(len(blobPool))
	b := blobPool[i]
	post := "/v2/" + repo + "/blobs/uploads/"
	var a response
	switch w.rng.IntN(6) {
	case 0, 1: // a single POST
		a = w.do(request{method: "POST", url: post + "?digest=" + b.digest, body: b.data})
	case 2: // POST and PUT
		location := w.c.startUpload(w.t, repo)
		a = w.do(request{method: "PUT", url: closeURL(location, b.digest), body: b.data})
	case 3: // POST, PATCHes and PUT
		location := w.c.startUpload(w.t, repo)
		at := 0
		for at < len(b.data) && w.chance(80) {
			n := 1 + w.rng.IntN(len(b.data)-at)
			c := request{method: "PATCH", url: location, body: b.data[at : at+n]}
			if w.chance(50) {
				c.header = chunk(at, n)
			}
			at += n
			p := w.do(c)
			if want := fmt.Sprintf("0-%d", at-1); p.hasStatus(w.t, 202) && p.header.Get("Range") != want {
				w.t.Errorf("%s: Range %s, want %s", location, p.header.Get("Range"), want)
			}
		}
		a = w.do(request{method: "PUT", url: closeURL(location, b.digest), body: b.data[at:]})
	case 4: // a wrong digest
		data := b.data + "x"
		if w.chance(50) {
			w.do(request{method: "POST", url: post + "?digest=" + b.digest, body: data}).hasError(w.t, 400, "DIGEST_INVALID")
			return
		}
		location := w.c.startUpload(w.t, repo)
		w.do(request{method: "PUT", url: closeURL(location, b.digest), body: data}).hasError(w.t, 400, "DIGEST_INVALID")
		w.do(request{method: "DELETE", url: location}).hasStatus(w.t, 204)
		return
	case 5: // abandoned, and mostly cancelled
		location := w.c.startUpload(w.t, repo)
		w.do(request{method: "PATCH", url: location, body: b.data}).hasStatus(w.t, 202)
		if w.chance(90) {
			w.do(request{method: "DELETE", url: location}).hasStatus(w.t, 204)
			w.do(request{method: "PUT", url: closeURL(location, b.digest)}).hasError(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
		}
		return
	}
	if a.hasStatus(w.t, 201) {
		w.recordChange(a, key{repo, aBlob, i}, anyState, 1)
		if a.header.Get("Location") != blobURL(repo, b.digest) || a.header.Get("Docker-Content-Digest") != b.digest {
			w.t.Errorf("%s: %v", a.url, a.header)
		}
	}
}

func (w *worker) mount() {
	i := w.rng.IntN(len(blobPool))
	b := blobPool[i]
	from, to := w.repo(), w.repo()
	url := "/v2/" + to + "/blobs/uploads/?mount=" + b.digest
	named := w.chance(70)
	if named {
		url += "&from=" + from
	}
	a := w.do(request{method: "POST", url: url})
	if !a.hasStatus(w.t, 201, 202) {
		return
	}
	if named {
		// This must come first, since from may be to.
		w.recordState(a, key{from, aBlob, i}, only(202-a.status))
	}
	if a.status == 201 {
		w.recordChange(a, key{to, aBlob, i}, anyState, 1)
		return
	}
	w.do(request{method: "DELETE", url: a.header.Get("Location")}).hasStatus(w.t, 204)
}

func (w *worker) deleteBlob() {
	k := key{w.repo(), aBlob, w.rng.IntN(len(blobPool))}
	a := w.do(request{method: "DELETE", url: blobURL(k.repo, blobPool[k.n].digest)})
	if a.hasStatus(w.t, 202, 404) && a.status == 404 {
		w.recordMissing(a, k, "BLOB_UNKNOWN")
		return
	}
	w.recordChange(a, k, only(1), 0)
}

func (w *worker) getBlob() {
	k := key{w.repo(), aBlob, w.rng.IntN(len(blobPool))}
	b := blobPool[k.n]
	c := request{method: "GET", url: blobURL(k.repo, b.digest)}
	status, want, length := 200, b.data, len(b.data)
	switch w.rng.IntN(5) {
	case 0:
		c.method, want = "HEAD", ""
	case 1:
		if len(b.data) > 0 {
			first := w.rng.IntN(len(b.data))
			last := first + w.rng.IntN(2*len(b.data)) // past the end, too
			c.header = map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", first, last)}
			want = b.data[first:min(last+1, len(b.data))]
			status, length = 206, len(want)
		}
	case 2:
		if len(b.data) > 0 {
			c.header = map[string]string{"Range": fmt.Sprintf("bytes=%d-", len(b.data))}
			status = 416
		}
	case 3:
		c.header = map[string]string{"If-None-Match": `"` + b.digest + `"`}
		status, want = 304, ""
	}
	a := w.do(c)
	if a.hasStatus(w.t, status, 404) && a.status == 404 {
		w.recordMissing(a, k, "BLOB_UNKNOWN")
		return
	}
	w.recordState(a, k, only(1))
	switch status {
	case 416:
		a.hasError(w.t, 416, "SIZE_INVALID")
	case 200, 206:
		if a.body != want || a.header.Get("Content-Length") != strconv.Itoa(length) || a.header.Get("Docker-Content-Digest") != b.digest {
			w.t.Errorf("%s %s %v: %v and %d bytes, not the pushed content", c.method, c.url, c.header, a.header, len(a.body))
		}
	}
}

func (w *worker) putManifest() {
	repo := w.repo()
	j := w.rng.IntN(len(manifestPool))
	m := manifestPool[j]
	mediaType := w.rng.IntN(len(m.mediaTypes))
	c := request{method: "PUT", url: manifestURL(repo, m.digest), body: m.content, header: map[string]string{"Content-Type": m.mediaTypes[mediaType]}}
	var tagged []int
	condition := anyState // the states of the tag that satisfy the condition
	switch n := w.rng.IntN(10); {
	case n == 0: // a wrong digest
		c.url = manifestURL(repo, manifestPool[(j+1)%len(manifestPool)].digest)
		if manifestPool[(j+1)%len(manifestPool)].content == m.content {
			return
		}
		w.do(c).hasError(w.t, 400, "DIGEST_INVALID")
		return
	case n <= 2: // by digest, without tags
	case n <= 4: // with two tags, possibly equal
		tagged = []int{w.rng.IntN(len(tagPool)), w.rng.IntN(len(tagPool))}
		c.url += "?tag=" + tagPool[tagged[0]] + "&tag=" + tagPool[tagged[1]]
	default:
		tagged = []int{w.rng.IntN(len(tagPool))}
		if m.pushableByTag() {
			c.url = manifestURL(repo, tagPool[tagged[0]])
		} else {
			c.url += "?tag=" + tagPool[tagged[0]]
		}
		switch other := w.rng.IntN(len(manifestPool)); w.rng.IntN(6) {
		case 0:
			c.header["If-None-Match"] = "*"
			condition = only(0)
		case 1:
			c.header["If-Match"] = "*"
			condition = anyState &^ only(0)
		case 2, 3:
			c.header["If-Match"] = `"` + manifestPool[other].digest + `"`
			condition = only(1 + other)
		}
	}
	a := w.do(c)
	statuses := []int{201, 404}
	if condition != anyState {
		statuses = append(statuses, 412)
	}
	if len(m.mediaTypes) > 1 { // the repository may have it with another one
		statuses = append(statuses, 400)
	}
	if len(m.blobs)+len(m.children) == 0 {
		statuses = slices.DeleteFunc(statuses, func(s int) bool { return s == 404 })
	}
	if !a.hasStatus(w.t, statuses...) {
		return
	}
	// The errors name the missing content; the rest was present.
	named := 0
	recordRef := func(k key, d string, present states) {
		if a.status == 404 && strings.Contains(a.body, d) {
			named++
			w.recordState(a, k, only(0))
			return
		}
		w.recordState(a, k, present)
	}
	for _, i := range m.blobs {
		recordRef(key{repo, aBlob, i}, blobPool[i].digest, only(1))
	}
	for _, child := range m.children {
		recordRef(key{repo, aManifest, child}, manifestPool[child].digest, anyState&^only(0))
	}
	switch a.status {
	case 404:
		for _, code := range a.codes {
			if code != "MANIFEST_BLOB_UNKNOWN" {
				w.t.Errorf("%s: %s", c.url, a.body)
			}
		}
		if named == 0 || named != len(a.codes) {
			w.t.Errorf("%s: %d missing: %s", c.url, named, a.body)
		}
	case 412:
		a.hasError(w.t, 412, "DENIED")
		w.recordState(a, key{repo, aTag, tagged[0]}, anyState&^condition)
	case 400: // it keeps its type; the condition may hold or not
		a.hasError(w.t, 400, "MANIFEST_INVALID")
		w.recordState(a, key{repo, aManifest, j}, anyState&^only(0)&^only(1+mediaType))
	case 201:
		if a.header.Get("Docker-Content-Digest") != m.digest || a.header.Get("Location") != manifestURL(repo, m.digest) || a.header.Get("OCI-Subject") != m.subject {
			w.t.Errorf("%s: %v", c.url, a.header)
		}
		w.record(a, key{repo, aManifest, j}, only(0)|only(1+mediaType), anyState, 1+mediaType)
		if m.subject != "" {
			w.recordChange(a, key{repo, aReferrer, j}, anyState, 1)
		}
		for _, k := range tagged {
			w.recordChange(a, key{repo, aTag, k}, condition, 1+j)
		}
	}
}

func (w *worker) deleteManifest() {
	k := key{w.repo(), aManifest, w.rng.IntN(len(manifestPool))}
	m := manifestPool[k.n]
	a := w.do(request{method: "DELETE", url: manifestURL(k.repo, m.digest)})
	if !a.hasStatus(w.t, 202, 404) {
		return
	}
	if a.status == 404 {
		w.recordMissing(a, k, "MANIFEST_UNKNOWN")
		return
	}
	w.recordChange(a, k, anyState&^only(0), 0)
	if m.subject != "" {
		w.recordChange(a, key{k.repo, aReferrer, k.n}, anyState, 0)
	}
	for n := range tagPool {
		w.record(a, key{k.repo, aTag, n}, anyState, only(1+k.n), 0)
	}
}

func (w *worker) deleteTag() {
	k := key{w.repo(), aTag, w.rng.IntN(len(tagPool))}
	c := request{method: "DELETE", url: manifestURL(k.repo, tagPool[k.n])}
	condition := anyState &^ only(0)
	if w.chance(30) {
		j := w.rng.IntN(len(manifestPool))
		c.header = map[string]string{"If-Match": `"` + manifestPool[j].digest + `"`}
		condition = only(1 + j)
	}
	a := w.do(c)
	switch {
	case a.status == 412 && c.header != nil:
		a.hasError(w.t, 412, "DENIED")
		w.recordState(a, k, anyState&^only(0)&^condition)
	case !a.hasStatus(w.t, 202, 404):
	case a.status == 404:
		w.recordMissing(a, k, "MANIFEST_UNKNOWN")
	default:
		w.recordChange(a, k, condition, 0)
	}
}

// identify checks the manifest in a response, and returns its index and the state
// of its key.
func identify(t reporter, a response) (j, state int) {
	t.Helper()
	d := a.header.Get("Docker-Content-Digest")
	j = indexOf(d)
	if j < 0 {
		t.Errorf("%s: %v: unknown manifest", a.url, a.header)
		return -1, 0
	}
	m := manifestPool[j]
	state = 1 + slices.Index(m.mediaTypes, a.header.Get("Content-Type"))
	if state == 0 || a.header.Get("Content-Length") != strconv.Itoa(len(m.content)) || a.method == "GET" && a.body != m.content {
		t.Errorf("%s %s: %v %q: not the pushed manifest", a.method, a.url, a.header, a.body)
		return -1, 0
	}
	return j, state
}

func (w *worker) getManifest() {
	c := request{method: "GET"}
	if w.chance(30) {
		c.method = "HEAD"
	}
	if w.chance(40) {
		k := key{w.repo(), aManifest, w.rng.IntN(len(manifestPool))}
		c.url = manifestURL(k.repo, manifestPool[k.n].digest)
		a := w.do(c)
		if a.hasStatus(w.t, 200, 404) && a.status == 404 {
			w.recordMissing(a, k, "MANIFEST_UNKNOWN")
		} else if j, state := identify(w.t, a); j == k.n {
			w.recordState(a, k, only(state))
		} else {
			w.t.Errorf("%s: wrong manifest: %v", c.url, a.header)
		}
		return
	}
	k := key{w.repo(), aTag, w.rng.IntN(len(tagPool))}
	c.url = manifestURL(k.repo, tagPool[k.n])
	a := w.do(c)
	if a.hasStatus(w.t, 200, 404) && a.status == 404 {
		w.recordMissing(a, k, "MANIFEST_UNKNOWN")
	} else if j, state := identify(w.t, a); j >= 0 {
		w.recordState(a, k, only(1+j))
		w.recordState(a, key{k.repo, aManifest, j}, only(state))
	}
}

// span returns a response that stands for all pages of a list: its observations
// were made between the first request and the last response.
func span(pages []response) response {
	a := pages[0]
	a.to = pages[len(pages)-1].to
	return a
}

func (w *worker) listTags() {
	repo := w.repo()
	names, pages := w.c.walk(w.t, "/v2/"+repo+"/tags/list"+[]string{"", "?n=1", "?n=2", "?n=3"}[w.rng.IntN(4)], "tags")
	last := pages[len(pages)-1]
	if last.status != 200 {
		if !last.hasError(w.t, 404, "NAME_UNKNOWN") {
			return
		}
		w.recordEmpty(last, repo)
	}
	for k, name := range tagPool {
		if slices.Contains(names, name) {
			w.recordState(span(pages), key{repo, aTag, k}, anyState&^only(0))
		} else {
			w.recordState(span(pages), key{repo, aTag, k}, only(0))
		}
	}
	for _, name := range names {
		if !slices.Contains(tagPool, name) {
			w.t.Errorf("%s: tag %q", repo, name)
		}
	}
}

func (w *worker) listReferrers() {
	repo := w.repo()
	subject := subjects[w.rng.IntN(len(subjects))]
	listed, pages := w.c.referrers(w.t, repo, subject, []string{"", "?n=1"}[w.rng.IntN(2)])
	if pages[len(pages)-1].status != 200 {
		return
	}
	for j, m := range manifestPool {
		if m.subject == subject {
			state := 0
			if slices.Contains(listed, j) {
				state = 1
			}
			w.recordState(span(pages), key{repo, aReferrer, j}, only(state))
		}
	}
}

func (w *worker) catalog() {
	names, pages := w.c.walk(w.t, "/v2/_catalog"+[]string{"", "?n=1", "?n=3"}[w.rng.IntN(3)], "repositories")
	if !pages[len(pages)-1].hasStatus(w.t, 200) {
		return
	}
	for _, repo := range allRepos() {
		if i, ok := slices.BinarySearch(names, repo); ok {
			names = slices.Delete(names, i, i+1)
		} else {
			w.recordEmpty(span(pages), repo)
		}
	}
	if len(names) > 0 {
		w.t.Errorf("unexpected repositories in the catalog: %q", names)
	}
}

// useSession uses a session that all workers share. Other workers may use it at
// the same time.
func (w *worker) useSession() {
	w.mu.Lock()
	n := w.rng.IntN(5)
	var s *session
	if n < len(w.sessions) {
		s = w.sessions[n]
	}
	w.mu.Unlock()
	if s == nil {
		w.openSession()
		return
	}
	k := int(s.guess.Load())
	if w.chance(10) {
		k = w.rng.IntN(4)
	}
	// A chunk is out of order if the session does not have k chunks, or if
	// another worker has the lease, however many chunks it has.
	open := anyState &^ only(sessionEnded)
	outOfOrder := func(a response) {
		a.hasError(w.t, 416, "BLOB_UPLOAD_INVALID")
		before := open &^ only(k)
		if a.request.header == nil { // without an offset, no chunk is out of order
			before = 0
		}
		w.recordState(a, s.key, before)
		w.allowIfLeased(s.key, open)
	}
	ended := func(a response) {
		a.hasError(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
		w.recordState(a, s.key, only(sessionEnded))
		w.removeSession(s)
	}
	rest := request{method: "PUT", body: s.blob.data[s.offset(k):]}
	if rest.body != "" {
		rest.header = chunk(s.offset(k), len(rest.body))
	}
	switch n := w.rng.IntN(20); {
	case n < 10 && k < 3:
		data := s.blob.data[s.offset(k):s.offset(k+1)]
		a := w.do(request{method: "PATCH", url: s.location, header: chunk(s.offset(k), len(data)), body: data})
		switch {
		case !a.hasStatus(w.t, 202, 404, 416):
		case a.status == 202:
			w.recordChange(a, s.key, only(k), k+1)
			if want := fmt.Sprintf("0-%d", s.offset(k+1)-1); a.header.Get("Range") != want {
				w.t.Errorf("%s: Range %s, want %s", s.location, a.header.Get("Range"), want)
			}
			s.guess.Store(int32(k + 1))
		case a.status == 404:
			ended(a)
		default:
			outOfOrder(a)
		}
	case n < 13: // close
		rest.url = closeURL(s.location, s.blob.digest)
		a := w.do(rest)
		switch {
		case !a.hasStatus(w.t, 201, 400, 404, 416):
		case a.status == 201:
			w.recordChange(a, s.key, only(k), sessionEnded)
			w.recordChange(a, key{s.key.repo, aBlob, slices.Index(blobPool, s.blob)}, anyState, 1)
			w.removeSession(s)
		case a.status == 400:
			a.hasError(w.t, 400, "DIGEST_INVALID")
			before := open &^ only(3)
			if rest.header != nil {
				// At the right offset the digest matches; at a wrong one the
				// status is 416.
				before = 0
			}
			w.recordState(a, s.key, before)
		case a.status == 404:
			ended(a)
		default:
			outOfOrder(a)
		}
	case n < 15: // close, with a wrong digest
		rest.url = closeURL(s.location, absentDigest)
		a := w.do(rest)
		switch {
		case !a.hasStatus(w.t, 400, 404, 416):
		case a.status == 400:
			a.hasError(w.t, 400, "DIGEST_INVALID")
			before := only(k)
			if rest.header == nil {
				before = open
			}
			w.recordState(a, s.key, before)
		case a.status == 404:
			ended(a)
		default:
			outOfOrder(a)
		}
	case n < 18: // status
		a := w.do(request{method: "GET", url: s.location})
		if !a.hasStatus(w.t, 204, 404) {
			return
		}
		if a.status == 404 {
			ended(a)
			return
		}
		for has := range 4 {
			if a.header.Get("Range") == fmt.Sprintf("0-%d", max(s.offset(has)-1, 0)) {
				w.recordState(a, s.key, only(has))
				w.allowIfLeased(s.key, open)
				s.guess.Store(int32(has))
				return
			}
		}
		// The size may include a part of a chunk that is arriving.
		w.recordState(a, s.key, 0)
		w.allowIfLeased(s.key, open)
	case n < 19: // use it through another repository
		i := slices.Index(sharedRepos, s.key.repo)
		other := strings.Replace(s.location, "/v2/"+s.key.repo+"/", "/v2/"+sharedRepos[(i+1)%len(sharedRepos)]+"/", 1)
		method := []string{"GET", "PATCH", "DELETE"}[w.rng.IntN(3)]
		w.do(request{method: method, url: other}).hasError(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
	default: // cancel
		a := w.do(request{method: "DELETE", url: s.location})
		if a.hasStatus(w.t, 204, 404) && a.status == 404 {
			ended(a)
			return
		}
		w.recordChange(a, s.key, open, sessionEnded)
		w.removeSession(s)
	}
}

// allowIfLeased adds the given states to the last observation of a session, in case
// another worker had the lease.
func (w *worker) allowIfLeased(k key, before states) {
	observations := w.observations[k]
	observations[len(observations)-1].beforeIfLeased = before
}

func (w *worker) openSession() {
	repo := sharedRepos[w.rng.IntN(len(sharedRepos))]
	s := &session{blob: blobPool[2+w.rng.IntN(3)], location: w.c.startUpload(w.t, repo)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	s.key = key{repo, aSession, w.opened}
	w.known[s.key] = only(0)
	w.sessions = append(w.sessions, s)
}

// removeSession removes a session from those that workers use.
func (w *worker) removeSession(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = slices.DeleteFunc(w.sessions, func(x *session) bool { return x == s })
}

// runPhase runs all workers, and then checks their responses and the content of the
// registry.
func (w *world) runPhase(seed, phase uint64) {
	all := make([]*worker, workers)
	var functions []func()
	for id := range all {
		all[id] = &worker{world: w, id: id, observations: make(map[key][]observation),
			rng:      rand.New(rand.NewPCG(seed, phase*workers+uint64(id))),
			clearing: phase%4 == 3}
		functions = append(functions, func() {
			for range opsPerPhase {
				all[id].runOne()
			}
		})
	}
	sessions := slices.Clone(w.sessions)
	opened := w.opened
	concurrently(functions...)
	for n := opened; n < w.opened; n++ {
		// The workers may have observed them.
		for _, s := range w.sessions {
			if s.key.n == n+1 {
				sessions = append(sessions, s)
			}
		}
	}

	touched := make(map[key]bool)
	for _, repo := range allRepos() {
		for _, k := range keys(repo) {
			touched[k] = true
		}
	}
	for k := range w.known {
		touched[k] = true
	}
	observed := w.observe(sessions)
	for _, k := range slices.SortedFunc(maps.Keys(touched), func(a, b key) int {
		return cmp.Or(cmp.Compare(a.repo, b.repo), cmp.Compare(a.kind, b.kind), cmp.Compare(a.n, b.n))
	}) {
		var observations [workers][]observation
		for id, worker := range all {
			observations[id] = worker.observations[k]
		}
		if k.kind == aSession {
			allowLeases(&observations)
		}
		start, ok := w.known[k]
		if !ok {
			start = only(0)
		}
		end := endStates(start, observations)
		state, ok := observed[k]
		if !ok { // a removed session
			if end == 0 {
				w.reportConflict(k, start, end, -1, observations)
			}
			delete(w.known, k)
			continue
		}
		if end&only(state) == 0 {
			w.reportConflict(k, start, end, state, observations)
		}
		w.known[k] = only(state)
	}
}

// allowLeases adds beforeIfLeased to the observations during which another worker
// may have had the lease.
func allowLeases(observations *[workers][]observation) {
	for w := range observations {
		for i := range observations[w] {
			s := &observations[w][i]
			for v := range observations {
				for _, o := range observations[v] {
					if v != w && (o.method == "PATCH" || o.method == "PUT") && o.from < s.to && s.from < o.to {
						s.before |= s.beforeIfLeased
					}
				}
			}
		}
	}
}

// reportConflict fails the test, with all observations of a key.
func (w *world) reportConflict(k key, start, end states, found int, observations [workers][]observation) {
	var all []observation
	for _, s := range observations {
		all = append(all, s...)
	}
	slices.SortFunc(all, func(a, b observation) int { return cmp.Compare(a.from, b.from) })
	var text strings.Builder
	for _, s := range all {
		fmt.Fprintln(&text, s)
	}
	w.t.Errorf("%v: it started in one of the states %016b; it may end in one of %d states (%016b); it is in state %d (-1: not checked):\n%s",
		k, start, bits.OnesCount16(uint16(end)), end, found, text.String())
}

// observe reads the whole registry, and checks that it is consistent.
func (w *world) observe(sessions []*session) map[key]int {
	t, c := w.t, w.c
	state := make(map[key]int)
	var repos []string
	for _, repo := range allRepos() {
		exists := false
		for i, b := range blobPool {
			a := c.get(t, blobURL(repo, b.digest))
			if a.hasStatus(t, 200, 404) && a.status == 200 {
				if a.body != b.data {
					t.Errorf("%s: not the content that was pushed", a.url)
				}
				state[key{repo, aBlob, i}] = 1
				exists = true
			} else {
				state[key{repo, aBlob, i}] = 0
			}
		}
		for j, m := range manifestPool {
			a := c.get(t, manifestURL(repo, m.digest))
			k := key{repo, aManifest, j}
			state[k] = 0
			if a.hasStatus(t, 200, 404) && a.status == 200 {
				var got int
				if got, state[k] = identify(t, a); got != j {
					t.Errorf("%s: %v", a.url, a.header)
				}
				exists = true
			}
		}
		for _, subject := range subjects {
			listed, _ := c.referrers(t, repo, subject, "")
			for j, m := range manifestPool {
				if m.subject != subject {
					continue
				}
				k := key{repo, aReferrer, j}
				state[k] = 0
				if slices.Contains(listed, j) {
					state[k] = 1
				}
				if state[k] != state[key{repo, aManifest, j}] {
					t.Errorf("%s: manifest %d is in state %d, its entry in the list of referrers in state %d", repo, j, state[key{repo, aManifest, j}], state[k])
				}
			}
		}
		var tags []string
		for n, tag := range tagPool {
			a := c.get(t, manifestURL(repo, tag))
			k := key{repo, aTag, n}
			state[k] = 0
			if a.hasStatus(t, 200, 404) && a.status == 200 {
				j, mediaType := identify(t, a)
				state[k] = 1 + j
				if j >= 0 && mediaType != state[key{repo, aManifest, j}] {
					t.Errorf("%s: its manifest differs from that with its digest", a.url)
				}
				tags = append(tags, tag)
			}
		}
		for _, query := range []string{"", "?n=2"} {
			names, pages := c.walk(t, "/v2/"+repo+"/tags/list"+query, "tags")
			if exists && !slices.Equal(names, tags) {
				t.Errorf("%s: tags %q, the list has %q", repo, tags, names)
			}
			if !exists {
				pages[0].hasError(t, 404, "NAME_UNKNOWN")
			}
		}
		if exists {
			repos = append(repos, repo)
		}
	}
	for _, query := range []string{"", "?n=2"} {
		if names, _ := c.walk(t, "/v2/_catalog"+query, "repositories"); !slices.Equal(names, repos) {
			t.Errorf("repositories %q, the catalog has %q", repos, names)
		}
	}
	for _, s := range sessions {
		a := c.get(t, s.location)
		if !a.hasStatus(t, 204, 404) {
			continue
		}
		state[s.key] = sessionEnded
		if a.status == 404 {
			continue
		}
		delete(state, s.key)
		for has := range 4 {
			if a.header.Get("Range") == fmt.Sprintf("0-%d", max(s.offset(has)-1, 0)) {
				state[s.key] = has
			}
		}
		if _, ok := state[s.key]; !ok {
			t.Errorf("%s: Range %s is not a number of whole chunks", s.location, a.header.Get("Range"))
		}
	}
	return state
}

// TestModel runs workers that send random requests concurrently. After a failure it
// logs the seed, with which the workers send the same requests again, though not
// at the same moments.
func TestModel(t *testing.T) {
	share := *modelTime / time.Duration(3*len(stores))
	eachRegistry(t, func(t *testing.T, c *client) {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		end := time.Now().Add(share)
		var w *world
		phase := 0
		for ; !t.Failed() && (share == 0 && phase*len(stores) < 100 || share > 0 && time.Now().Before(end)); phase++ {
			if phase%phasesPerRegistry == 0 {
				c.reset()
				w = &world{t: t, c: c, known: make(map[key]states)}
			}
			w.runPhase(seed, uint64(phase))
		}
		t.Logf("%d operations of %d workers in %d phases, %d requests in total", phase*opsPerPhase*workers, workers, phase, c.count.Load())
		if t.Failed() {
			t.Logf("to run it again: go test -race ./model -run '^%s$' -seed=%d -model=%v (it failed in phase %d)", t.Name(), seed, *modelTime, phase-1)
		}
	})
}
