// SPDX-License-Identifier: Apache-2.0

// A model check with concurrency: several workers make random requests, and
// what they were answered, taken together, must be what a registry could have
// answered that does one thing after the other.
//
// The state of a registry is that of many keys: a blob in a repository, a tag,
// a session. Each answer tells of some keys that they were in a state, or went
// to one, at some moment between the request and the answer. For each key, the
// check looks for an order of all that was told of it; the states that such
// orders end with are those that it may be found in when all is quiet.

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
	// Operations of each worker between two checks.
	perPhase = 50
	// Phases until a new registry: what is abandoned shall not pile up.
	perRegistry = 50
)

// key is one thing with a state.
type key struct {
	repo string
	kind string
	n    int
}

// The kinds of keys, with their states; 0 is what is in a new registry.
const (
	aBlob     = "blob"     // 0: absent, 1: present
	aManifest = "manifest" // 0: absent, 1 and 2: present, with its first or second media type
	aReferrer = "referrer" // 0: not in its subject's list, 1: in it
	aTag      = "tag"      // 0: absent, 1+j: points at manifest j
	aSession  = "session"  // 0 to 3: how many of its three chunks it has, 4: gone
)

const sessionGone = 4

// states is a set of states of a key, a bit for each.
type states uint16

const anyState states = 1<<16 - 1

func only(s int) states { return 1 << s }

// step is what an answer tells of a key: that it was in one of when, and that,
// if it was in one of change, it went to then.
type step struct {
	when, change states
	then         int
	// instead is for when if another worker may have had the session leased.
	instead states

	from, to int64 // the clock
	by       int   // the worker
	method   string
	url      string
	status   int
}

func (s step) String() string {
	return fmt.Sprintf("  [%d,%d] worker %d: %s %s: %d (when %04x, change %04x to %d)", s.from, s.to, s.by, s.method, s.url, s.status, s.when, s.change, s.then)
}

func (s step) apply(before states) states {
	before &= s.when
	after := before &^ s.change
	if before&s.change != 0 {
		after |= only(s.then)
	}
	return after
}

// possible returns the states that a key may be in after all steps, of which
// each worker made its own in their order. It is 0 if no order of them, with
// none before what had been answered when it was asked for, explains the
// answers.
func possible(start states, steps [workers][]step) states {
	type cut [workers]int // how many steps of each worker are done
	total := 0
	for w := range steps {
		total += len(steps[w])
	}
	level := map[cut]states{{}: start}
	for range total {
		following := make(map[cut]states)
		for c, s := range level {
			for w := range steps {
				if c[w] == len(steps[w]) {
					continue
				}
				o := steps[w][c[w]]
				first := true
				for v := range steps {
					if v != w && c[v] < len(steps[v]) && steps[v][c[v]].to < o.from {
						first = false
					}
				}
				if !first {
					continue
				}
				if after := o.apply(s); after != 0 {
					n := c
					n[w]++
					following[n] |= after
				}
			}
		}
		level = following
	}
	var end states
	for _, s := range level {
		end |= s
	}
	return end
}

// session is an upload that several workers use.
type session struct {
	key      key
	location string
	blob     blob
	guess    atomic.Int32 // how many chunks it may have
}

// bound is how many bytes the first k chunks have.
func (s *session) bound(k int) int { return len(s.blob.data) * k / 3 }

// world is a registry, and what is known of it when all is quiet.
type world struct {
	t     *testing.T
	c     *client
	known map[key]states

	mu       sync.Mutex // guards what follows, while workers run
	sessions []*session
	opened   int
}

// shared are the repositories that all workers use; each has one more of its
// own, of which it knows everything.
var shared = []string{"a", "a/b", "c"}

func own(worker int) string { return fmt.Sprintf("own/%d", worker) }

func allRepos() []string {
	repos := slices.Clone(shared)
	for w := range workers {
		repos = append(repos, own(w))
	}
	slices.Sort(repos)
	return repos
}

// keys are all keys of a repository but its sessions.
func keys(repo string) (all []key) {
	for i := range theBlobs {
		all = append(all, key{repo, aBlob, i})
	}
	for j, m := range theManifests {
		all = append(all, key{repo, aManifest, j})
		if m.subject != "" {
			all = append(all, key{repo, aReferrer, j})
		}
	}
	for k := range theTags {
		all = append(all, key{repo, aTag, k})
	}
	return all
}

// worker makes requests, one after the other.
type worker struct {
	*world
	id    int
	rng   *rand.Rand
	steps map[key][]step

	clearing bool // deletes prevail
}

// note notes what an answer tells of a key.
func (w *worker) note(a answer, k key, when, change states, then int) {
	w.steps[k] = append(w.steps[k], step{when: when, change: change, then: then, instead: when,
		from: a.from, to: a.to, by: w.id, method: a.method, url: a.url, status: a.status})
}

func (w *worker) was(a answer, k key, when states) { w.note(a, k, when, 0, 0) }

// went notes that a key was in one of when, and is then.
func (w *worker) went(a answer, k key, when states, then int) { w.note(a, k, when, anyState, then) }

// empty notes that a repository did not exist: it had nothing.
func (w *worker) empty(a answer, repo string) {
	for _, k := range keys(repo) {
		w.was(a, k, only(0))
	}
}

// missing notes that something was not there, and checks how that was told.
func (w *worker) missing(a answer, k key, code string) {
	switch {
	case a.method == "HEAD":
		w.was(a, k, only(0))
	case slices.Equal(a.codes, []string{"NAME_UNKNOWN"}):
		w.empty(a, k.repo)
	case a.failed(w.t, 404, code):
		w.was(a, k, only(0))
	}
}

func (w *worker) repo() string {
	if w.rng.IntN(4) == 0 {
		return own(w.id)
	}
	return shared[w.rng.IntN(len(shared))]
}

func (w *worker) chance(percent int) bool { return w.rng.IntN(100) < percent }

// operations are what workers do, each as often as its weight says.
var operations = []struct {
	weight int
	run    func(*worker)
	// clears: in some phases there is more of it, until nothing is left.
	clears bool
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

func (w *worker) step() {
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

// do is client.do, with bodies that sometimes take their time.
func (w *worker) do(c call) answer {
	c.drips = w.chance(20)
	return w.c.do(w.t, c)
}

func (w *worker) pushBlob() {
	repo := w.repo()
	i := w.rng.IntN(len(theBlobs))
	b := theBlobs[i]
	post := "/v2/" + repo + "/blobs/uploads/"
	var a answer
	switch w.rng.IntN(6) {
	case 0, 1: // a single POST
		a = w.do(call{method: "POST", url: post + "?digest=" + b.digest, body: b.data})
	case 2: // POST and PUT
		location := w.c.start(w.t, repo)
		a = w.do(call{method: "PUT", url: closeURL(location, b.digest), body: b.data})
	case 3: // POST, PATCHes and PUT
		location := w.c.start(w.t, repo)
		at := 0
		for at < len(b.data) && w.chance(80) {
			n := 1 + w.rng.IntN(len(b.data)-at)
			c := call{method: "PATCH", url: location, body: b.data[at : at+n]}
			if w.chance(50) {
				c.header = chunk(at, n)
			}
			at += n
			p := w.do(c)
			if want := fmt.Sprintf("0-%d", at-1); p.is(w.t, 202) && p.header.Get("Range") != want {
				w.t.Errorf("%s: Range %s, want %s", location, p.header.Get("Range"), want)
			}
		}
		a = w.do(call{method: "PUT", url: closeURL(location, b.digest), body: b.data[at:]})
	case 4: // a digest that is not that of the bytes
		data := b.data + "x"
		if w.chance(50) {
			w.do(call{method: "POST", url: post + "?digest=" + b.digest, body: data}).failed(w.t, 400, "DIGEST_INVALID")
			return
		}
		location := w.c.start(w.t, repo)
		w.do(call{method: "PUT", url: closeURL(location, b.digest), body: data}).failed(w.t, 400, "DIGEST_INVALID")
		w.do(call{method: "DELETE", url: location}).is(w.t, 204)
		return
	case 5: // abandoned, mostly by saying so
		location := w.c.start(w.t, repo)
		w.do(call{method: "PATCH", url: location, body: b.data}).is(w.t, 202)
		if w.chance(90) {
			w.do(call{method: "DELETE", url: location}).is(w.t, 204)
			w.do(call{method: "PUT", url: closeURL(location, b.digest)}).failed(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
		}
		return
	}
	if a.is(w.t, 201) {
		w.went(a, key{repo, aBlob, i}, anyState, 1)
		if a.header.Get("Location") != blobURL(repo, b.digest) || a.header.Get("Docker-Content-Digest") != b.digest {
			w.t.Errorf("%s: %v", a.url, a.header)
		}
	}
}

func (w *worker) mount() {
	i := w.rng.IntN(len(theBlobs))
	b := theBlobs[i]
	from, to := w.repo(), w.repo()
	url := "/v2/" + to + "/blobs/uploads/?mount=" + b.digest
	named := w.chance(70)
	if named {
		url += "&from=" + from
	}
	a := w.do(call{method: "POST", url: url})
	if !a.is(w.t, 201, 202) {
		return
	}
	if named {
		// Noted first, for from may be to.
		w.was(a, key{from, aBlob, i}, only(202-a.status))
	}
	if a.status == 201 {
		w.went(a, key{to, aBlob, i}, anyState, 1)
		return
	}
	w.do(call{method: "DELETE", url: a.header.Get("Location")}).is(w.t, 204)
}

func (w *worker) deleteBlob() {
	k := key{w.repo(), aBlob, w.rng.IntN(len(theBlobs))}
	a := w.do(call{method: "DELETE", url: blobURL(k.repo, theBlobs[k.n].digest)})
	if a.is(w.t, 202, 404) && a.status == 404 {
		w.missing(a, k, "BLOB_UNKNOWN")
		return
	}
	w.went(a, k, only(1), 0)
}

func (w *worker) getBlob() {
	k := key{w.repo(), aBlob, w.rng.IntN(len(theBlobs))}
	b := theBlobs[k.n]
	c := call{method: "GET", url: blobURL(k.repo, b.digest)}
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
	if a.is(w.t, status, 404) && a.status == 404 {
		w.missing(a, k, "BLOB_UNKNOWN")
		return
	}
	w.was(a, k, only(1))
	switch status {
	case 416:
		a.failed(w.t, 416, "SIZE_INVALID")
	case 200, 206:
		if a.body != want || a.header.Get("Content-Length") != strconv.Itoa(length) || a.header.Get("Docker-Content-Digest") != b.digest {
			w.t.Errorf("%s %s %v: %v and %d bytes, not what was pushed", c.method, c.url, c.header, a.header, len(a.body))
		}
	}
}

func (w *worker) putManifest() {
	repo := w.repo()
	j := w.rng.IntN(len(theManifests))
	m := theManifests[j]
	mediaType := w.rng.IntN(len(m.mediaTypes))
	c := call{method: "PUT", url: manifestURL(repo, m.digest), body: m.content, header: map[string]string{"Content-Type": m.mediaTypes[mediaType]}}
	var tagged []int
	condition := anyState // on the tag
	switch n := w.rng.IntN(10); {
	case n == 0: // a digest that it does not have
		c.url = manifestURL(repo, theManifests[(j+1)%len(theManifests)].digest)
		if theManifests[(j+1)%len(theManifests)].content == m.content {
			return
		}
		w.do(c).failed(w.t, 400, "DIGEST_INVALID")
		return
	case n <= 2: // by digest alone
	case n <= 4: // with two tags, which may be the same
		tagged = []int{w.rng.IntN(len(theTags)), w.rng.IntN(len(theTags))}
		c.url += "?tag=" + theTags[tagged[0]] + "&tag=" + theTags[tagged[1]]
	default:
		tagged = []int{w.rng.IntN(len(theTags))}
		if m.byTag() {
			c.url = manifestURL(repo, theTags[tagged[0]])
		} else {
			c.url += "?tag=" + theTags[tagged[0]]
		}
		switch other := w.rng.IntN(len(theManifests)); w.rng.IntN(6) {
		case 0:
			c.header["If-None-Match"] = "*"
			condition = only(0)
		case 1:
			c.header["If-Match"] = "*"
			condition = anyState &^ only(0)
		case 2, 3:
			c.header["If-Match"] = `"` + theManifests[other].digest + `"`
			condition = only(1 + other)
		}
	}
	a := w.do(c)
	statuses := []int{201, 404}
	if condition != anyState {
		statuses = append(statuses, 412)
	}
	if len(m.blobs)+len(m.children) == 0 {
		statuses = slices.DeleteFunc(statuses, func(s int) bool { return s == 404 })
	}
	if !a.is(w.t, statuses...) {
		return
	}
	// The errors name what was missing; the rest was there.
	named := 0
	needs := func(k key, d string, present states) {
		if a.status == 404 && strings.Contains(a.body, d) {
			named++
			w.was(a, k, only(0))
			return
		}
		w.was(a, k, present)
	}
	for _, i := range m.blobs {
		needs(key{repo, aBlob, i}, theBlobs[i].digest, only(1))
	}
	for _, child := range m.children {
		needs(key{repo, aManifest, child}, theManifests[child].digest, anyState&^only(0))
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
		a.failed(w.t, 412, "DENIED")
		w.was(a, key{repo, aTag, tagged[0]}, anyState&^condition)
	case 201:
		if a.header.Get("Docker-Content-Digest") != m.digest || a.header.Get("Location") != manifestURL(repo, m.digest) || a.header.Get("OCI-Subject") != m.subject {
			w.t.Errorf("%s: %v", c.url, a.header)
		}
		// What is under a digest stays as it is, its type too.
		w.note(a, key{repo, aManifest, j}, anyState, only(0), 1+mediaType)
		if m.subject != "" {
			w.went(a, key{repo, aReferrer, j}, anyState, 1)
		}
		for _, k := range tagged {
			w.went(a, key{repo, aTag, k}, condition, 1+j)
		}
	}
}

func (w *worker) deleteManifest() {
	k := key{w.repo(), aManifest, w.rng.IntN(len(theManifests))}
	m := theManifests[k.n]
	a := w.do(call{method: "DELETE", url: manifestURL(k.repo, m.digest)})
	if !a.is(w.t, 202, 404) {
		return
	}
	if a.status == 404 {
		w.missing(a, k, "MANIFEST_UNKNOWN")
		return
	}
	w.went(a, k, anyState&^only(0), 0)
	if m.subject != "" {
		w.went(a, key{k.repo, aReferrer, k.n}, anyState, 0)
	}
	for n := range theTags {
		w.note(a, key{k.repo, aTag, n}, anyState, only(1+k.n), 0)
	}
}

func (w *worker) deleteTag() {
	k := key{w.repo(), aTag, w.rng.IntN(len(theTags))}
	c := call{method: "DELETE", url: manifestURL(k.repo, theTags[k.n])}
	condition := anyState &^ only(0)
	if w.chance(30) {
		j := w.rng.IntN(len(theManifests))
		c.header = map[string]string{"If-Match": `"` + theManifests[j].digest + `"`}
		condition = only(1 + j)
	}
	a := w.do(c)
	switch {
	case a.status == 412 && c.header != nil:
		a.failed(w.t, 412, "DENIED")
		w.was(a, k, anyState&^only(0)&^condition)
	case !a.is(w.t, 202, 404):
	case a.status == 404:
		w.missing(a, k, "MANIFEST_UNKNOWN")
	default:
		w.went(a, k, condition, 0)
	}
}

// found checks a manifest that was answered, and returns which it is, and the
// state of its key.
func found(t reporter, a answer) (j, state int) {
	t.Helper()
	d := a.header.Get("Docker-Content-Digest")
	j = indexOf(d)
	if j < 0 {
		t.Errorf("%s: %v: no manifest of ours", a.url, a.header)
		return -1, 0
	}
	m := theManifests[j]
	state = 1 + slices.Index(m.mediaTypes, a.header.Get("Content-Type"))
	if state == 0 || a.header.Get("Content-Length") != strconv.Itoa(len(m.content)) || a.method == "GET" && a.body != m.content {
		t.Errorf("%s %s: %v %q: not what was pushed", a.method, a.url, a.header, a.body)
		return -1, 0
	}
	return j, state
}

func (w *worker) getManifest() {
	c := call{method: "GET"}
	if w.chance(30) {
		c.method = "HEAD"
	}
	if w.chance(40) {
		k := key{w.repo(), aManifest, w.rng.IntN(len(theManifests))}
		c.url = manifestURL(k.repo, theManifests[k.n].digest)
		a := w.do(c)
		if a.is(w.t, 200, 404) && a.status == 404 {
			w.missing(a, k, "MANIFEST_UNKNOWN")
		} else if j, state := found(w.t, a); j == k.n {
			w.was(a, k, only(state))
		} else {
			w.t.Errorf("%s: answered with %v", c.url, a.header)
		}
		return
	}
	k := key{w.repo(), aTag, w.rng.IntN(len(theTags))}
	c.url = manifestURL(k.repo, theTags[k.n])
	a := w.do(c)
	if a.is(w.t, 200, 404) && a.status == 404 {
		w.missing(a, k, "MANIFEST_UNKNOWN")
	} else if j, state := found(w.t, a); j >= 0 {
		w.was(a, k, only(1+j))
		w.was(a, key{k.repo, aManifest, j}, only(state))
	}
}

// span is an answer for all pages of a list: what it tells was so between the
// first request and the last answer.
func span(pages []answer) answer {
	a := pages[0]
	a.to = pages[len(pages)-1].to
	return a
}

func (w *worker) listTags() {
	repo := w.repo()
	names, pages := w.c.walk(w.t, "/v2/"+repo+"/tags/list"+[]string{"", "?n=1", "?n=2", "?n=3"}[w.rng.IntN(4)], "tags")
	last := pages[len(pages)-1]
	if last.status != 200 {
		if !last.failed(w.t, 404, "NAME_UNKNOWN") {
			return
		}
		w.empty(last, repo)
	}
	for k, name := range theTags {
		if slices.Contains(names, name) {
			w.was(span(pages), key{repo, aTag, k}, anyState&^only(0))
		} else {
			w.was(span(pages), key{repo, aTag, k}, only(0))
		}
	}
	for _, name := range names {
		if !slices.Contains(theTags, name) {
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
	for j, m := range theManifests {
		if m.subject == subject {
			state := 0
			if slices.Contains(listed, j) {
				state = 1
			}
			w.was(span(pages), key{repo, aReferrer, j}, only(state))
		}
	}
}

func (w *worker) catalog() {
	names, pages := w.c.walk(w.t, "/v2/_catalog"+[]string{"", "?n=1", "?n=3"}[w.rng.IntN(3)], "repositories")
	if !pages[len(pages)-1].is(w.t, 200) {
		return
	}
	for _, repo := range allRepos() {
		if i, ok := slices.BinarySearch(names, repo); ok {
			names = slices.Delete(names, i, i+1)
		} else {
			w.empty(span(pages), repo)
		}
	}
	if len(names) > 0 {
		w.t.Errorf("the catalog has %q", names)
	}
}

// useSession has a session that all workers use. What the others do to it
// meanwhile, they do not tell.
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
	// notGone but where it has k chunks; a session that another has is refused
	// in the same way, however many it has.
	notGone := anyState &^ only(sessionGone)
	outOfOrder := func(a answer) {
		a.failed(w.t, 416, "BLOB_UPLOAD_INVALID")
		when := notGone &^ only(k)
		if a.call.header == nil { // it did not say where its bytes belong
			when = 0
		}
		w.was(a, s.key, when)
		w.orWhileLeased(s.key, notGone)
	}
	gone := func(a answer) {
		a.failed(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
		w.was(a, s.key, only(sessionGone))
		w.drop(s)
	}
	rest := call{method: "PUT", body: s.blob.data[s.bound(k):]}
	if rest.body != "" {
		rest.header = chunk(s.bound(k), len(rest.body))
	}
	switch n := w.rng.IntN(20); {
	case n < 10 && k < 3:
		data := s.blob.data[s.bound(k):s.bound(k+1)]
		a := w.do(call{method: "PATCH", url: s.location, header: chunk(s.bound(k), len(data)), body: data})
		switch {
		case !a.is(w.t, 202, 404, 416):
		case a.status == 202:
			w.went(a, s.key, only(k), k+1)
			if want := fmt.Sprintf("0-%d", s.bound(k+1)-1); a.header.Get("Range") != want {
				w.t.Errorf("%s: Range %s, want %s", s.location, a.header.Get("Range"), want)
			}
			s.guess.Store(int32(k + 1))
		case a.status == 404:
			gone(a)
		default:
			outOfOrder(a)
		}
	case n < 13: // close
		rest.url = closeURL(s.location, s.blob.digest)
		a := w.do(rest)
		switch {
		case !a.is(w.t, 201, 400, 404, 416):
		case a.status == 201:
			w.went(a, s.key, only(k), sessionGone)
			w.went(a, key{s.key.repo, aBlob, slices.Index(theBlobs, s.blob)}, anyState, 1)
			w.drop(s)
		case a.status == 400:
			a.failed(w.t, 400, "DIGEST_INVALID")
			when := notGone &^ only(3)
			if rest.header != nil {
				when = 0 // it said what belongs there
			}
			w.was(a, s.key, when)
		case a.status == 404:
			gone(a)
		default:
			outOfOrder(a)
		}
	case n < 15: // close, as what it is not
		rest.url = closeURL(s.location, nowhere)
		a := w.do(rest)
		switch {
		case !a.is(w.t, 400, 404, 416):
		case a.status == 400:
			a.failed(w.t, 400, "DIGEST_INVALID")
			when := only(k)
			if rest.header == nil {
				when = notGone
			}
			w.was(a, s.key, when)
		case a.status == 404:
			gone(a)
		default:
			outOfOrder(a)
		}
	case n < 18: // status
		a := w.do(call{method: "GET", url: s.location})
		if !a.is(w.t, 204, 404) {
			return
		}
		if a.status == 404 {
			gone(a)
			return
		}
		for has := range 4 {
			if a.header.Get("Range") == fmt.Sprintf("0-%d", max(s.bound(has)-1, 0)) {
				w.was(a, s.key, only(has))
				w.orWhileLeased(s.key, notGone)
				s.guess.Store(int32(has))
				return
			}
		}
		// Of a chunk that is just coming in, a part may be told already.
		w.was(a, s.key, 0)
		w.orWhileLeased(s.key, notGone)
	case n < 19: // a session is of one repository
		i := slices.Index(shared, s.key.repo)
		other := strings.Replace(s.location, "/v2/"+s.key.repo+"/", "/v2/"+shared[(i+1)%len(shared)]+"/", 1)
		method := []string{"GET", "PATCH", "DELETE"}[w.rng.IntN(3)]
		w.do(call{method: method, url: other}).failed(w.t, 404, "BLOB_UPLOAD_UNKNOWN")
	default: // cancel
		a := w.do(call{method: "DELETE", url: s.location})
		if a.is(w.t, 204, 404) && a.status == 404 {
			gone(a)
			return
		}
		w.went(a, s.key, notGone, sessionGone)
		w.drop(s)
	}
}

// orWhileLeased lets the last step of a key be so, too, if another worker had
// it leased.
func (w *worker) orWhileLeased(k key, when states) {
	steps := w.steps[k]
	steps[len(steps)-1].instead = when
}

func (w *worker) openSession() {
	repo := shared[w.rng.IntN(len(shared))]
	s := &session{blob: theBlobs[2+w.rng.IntN(3)], location: w.c.start(w.t, repo)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened++
	s.key = key{repo, aSession, w.opened}
	w.known[s.key] = only(0)
	w.sessions = append(w.sessions, s)
}

// drop takes a session out of those that are used.
func (w *worker) drop(s *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = slices.DeleteFunc(w.sessions, func(x *session) bool { return x == s })
}

// phase has all workers at work, and then checks what they were told, and what
// is there.
func (w *world) phase(seed, phase uint64) {
	all := make([]*worker, workers)
	var functions []func()
	for id := range all {
		all[id] = &worker{world: w, id: id, steps: make(map[key][]step),
			rng:      rand.New(rand.NewPCG(seed, phase*workers+uint64(id))),
			clearing: phase%4 == 3}
		functions = append(functions, func() {
			for range perPhase {
				all[id].step()
			}
		})
	}
	sessions := slices.Clone(w.sessions)
	opened := w.opened
	together(functions...)
	for n := opened; n < w.opened; n++ {
		// Whatever became of them, they are among what was told.
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
		var steps [workers][]step
		for id, worker := range all {
			steps[id] = worker.steps[k]
		}
		if k.kind == aSession {
			loosen(&steps)
		}
		start, ok := w.known[k]
		if !ok {
			start = only(0)
		}
		end := possible(start, steps)
		state, ok := observed[k]
		if !ok { // a session that nobody has any more
			if end == 0 {
				w.explain(k, start, end, -1, steps)
			}
			delete(w.known, k)
			continue
		}
		if end&only(state) == 0 {
			w.explain(k, start, end, state, steps)
		}
		w.known[k] = only(state)
	}
}

// loosen applies instead where another worker may have had the lease.
func loosen(steps *[workers][]step) {
	for w := range steps {
		for i := range steps[w] {
			s := &steps[w][i]
			for v := range steps {
				for _, o := range steps[v] {
					if v != w && (o.method == "PATCH" || o.method == "PUT") && o.from < s.to && s.from < o.to {
						s.when |= s.instead
					}
				}
			}
		}
	}
}

func (w *world) explain(k key, start, end states, found int, steps [workers][]step) {
	var all []step
	for _, s := range steps {
		all = append(all, s...)
	}
	slices.SortFunc(all, func(a, b step) int { return cmp.Compare(a.from, b.from) })
	var text strings.Builder
	for _, s := range all {
		fmt.Fprintln(&text, s)
	}
	w.t.Errorf("%v: it was in one of the states %016b; then any of %d states is possible (%016b); found in %d (-1: not looked at):\n%s",
		k, start, bits.OnesCount16(uint16(end)), end, found, text.String())
}

// observe reads the whole registry, which must be consistent in itself.
func (w *world) observe(sessions []*session) map[key]int {
	t, c := w.t, w.c
	state := make(map[key]int)
	var repos []string
	for _, repo := range allRepos() {
		exists := false
		for i, b := range theBlobs {
			a := c.get(t, blobURL(repo, b.digest))
			if a.is(t, 200, 404) && a.status == 200 {
				if a.body != b.data {
					t.Errorf("%s: not the content that was pushed", a.url)
				}
				state[key{repo, aBlob, i}] = 1
				exists = true
			} else {
				state[key{repo, aBlob, i}] = 0
			}
		}
		for j, m := range theManifests {
			a := c.get(t, manifestURL(repo, m.digest))
			k := key{repo, aManifest, j}
			state[k] = 0
			if a.is(t, 200, 404) && a.status == 200 {
				var got int
				if got, state[k] = found(t, a); got != j {
					t.Errorf("%s: %v", a.url, a.header)
				}
				exists = true
			}
		}
		for _, subject := range subjects {
			listed, _ := c.referrers(t, repo, subject, "")
			for j, m := range theManifests {
				if m.subject != subject {
					continue
				}
				k := key{repo, aReferrer, j}
				state[k] = 0
				if slices.Contains(listed, j) {
					state[k] = 1
				}
				if state[k] != state[key{repo, aManifest, j}] {
					t.Errorf("%s: manifest %d is %d, and in its subject's referrers %d", repo, j, state[key{repo, aManifest, j}], state[k])
				}
			}
		}
		var tags []string
		for n, tag := range theTags {
			a := c.get(t, manifestURL(repo, tag))
			k := key{repo, aTag, n}
			state[k] = 0
			if a.is(t, 200, 404) && a.status == 200 {
				j, mediaType := found(t, a)
				state[k] = 1 + j
				if j >= 0 && mediaType != state[key{repo, aManifest, j}] {
					t.Errorf("%s: its manifest is not that under its digest", a.url)
				}
				tags = append(tags, tag)
			}
		}
		for _, query := range []string{"", "?n=2"} {
			names, pages := c.walk(t, "/v2/"+repo+"/tags/list"+query, "tags")
			if exists && !slices.Equal(names, tags) {
				t.Errorf("%s: tags %q, listed are %q", repo, tags, names)
			}
			if !exists {
				pages[0].failed(t, 404, "NAME_UNKNOWN")
			}
		}
		if exists {
			repos = append(repos, repo)
		}
	}
	for _, query := range []string{"", "?n=2"} {
		if names, _ := c.walk(t, "/v2/_catalog"+query, "repositories"); !slices.Equal(names, repos) {
			t.Errorf("repositories %q, listed are %q", repos, names)
		}
	}
	for _, s := range sessions {
		a := c.get(t, s.location)
		if !a.is(t, 204, 404) {
			continue
		}
		state[s.key] = sessionGone
		if a.status == 404 {
			continue
		}
		delete(state, s.key)
		for has := range 4 {
			if a.header.Get("Range") == fmt.Sprintf("0-%d", max(s.bound(has)-1, 0)) {
				state[s.key] = has
			}
		}
		if _, ok := state[s.key]; !ok {
			t.Errorf("%s: Range %s is of no whole chunks", s.location, a.header.Get("Range"))
		}
	}
	return state
}

// TestModel has workers make random requests at once. A failure tells its
// seed; the workers then make the same requests, though not at the same
// moments.
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
			if phase%perRegistry == 0 {
				c.renew()
				w = &world{t: t, c: c, known: make(map[key]states)}
			}
			w.phase(seed, uint64(phase))
		}
		t.Logf("%d operations of %d workers in %d phases, %d requests in all", phase*perPhase*workers, workers, phase, c.count.Load())
		if t.Failed() {
			t.Logf("to run it again: go test -race ./model -run '^%s$' -seed=%d -model=%v (it failed in phase %d)", t.Name(), seed, *modelTime, phase-1)
		}
	})
}
