// SPDX-License-Identifier: Apache-2.0

// What the model allows as responses to reads.

package mirrors

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/mirror"
)

const (
	forgetUnknown = 3 * time.Second // when the mirror forgets that there is no such content
	timeoutPause  = 5 * time.Second // how long an upstream is left in peace after a timeout
	maxCalls      = 8               // for one thing: twice a GET, and three rests
)

var ctx = context.Background()

// classOf returns the class of a call for content that the upstream has, or not, and the
// number of requests that there may be.
func (m *machine) classOf(n naming, a access, path string, exists bool) (class, int) {
	o, _ := m.origin(n)
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if path != "" && now.Before(m.unknown[o.name+"/v2/"+n.name+path]) {
		return missing, 0
	}
	c, calls := o.fault.class(a), maxCalls
	switch {
	case now.Before(o.quietUntil):
		c, calls = limited, 0
	case !exists && (o.fault.body || o.fault.storage): // the bodies of errors do not matter
		c = served
	case o.fault.token != 0 && o.auth != "Bearer", o.fault.storage && len(o.cdn) == 0:
		c = served
	}
	if now.Before(m.slow[n.upstream]) {
		c |= timedOut
	}
	if at, ok := o.notFound["/v2/"+n.name+path]; ok && now.Before(at.Add(forgetUnknown)) {
		c |= missing
	}
	if o.fault.name == "none" {
		calls = min(calls, 1)
	}
	return c, calls
}

// noteTime notes that the upstream may not have responded in time.
func (m *machine) noteTime(n naming, r response) {
	o, _ := m.origin(n)
	if f, _ := o.current(); f.slow && len(r.calls) > 0 {
		m.slow[n.upstream] = time.Now().Add(timeoutPause)
	}
}

// noteUnknown notes that the mirror remembers for a moment that the upstream does not have
// something: if it has said that, or if it denies access under a name that need not be its.
func (m *machine) noteUnknown(n naming, a access, path string, exists bool, r response) {
	o, _ := m.origin(n)
	path = "/v2/" + n.name + path
	f, _ := o.current()
	o.mu.Lock()
	defer o.mu.Unlock()
	mayDeny := f.class(a)&denied != 0 || f.expired // for the second time, if there are several fetches
	if n.byDefault && mayDeny && (r.status == http.StatusNotFound || r.warned()) {
		o.notFound[path] = time.Now()
	}
	c := f.class(a)
	isUnknown := c == missing || c == denied && n.byDefault && !f.storage || f.name == "none" && !exists
	called := slices.Contains(r.calls, "GET "+path) || a.kind == "blobs" && slices.Contains(r.calls, "HEAD "+path)
	if isUnknown && called && r.status == http.StatusNotFound {
		m.unknown[o.name+path] = r.from.Add(forgetUnknown)
	}
}

// failure returns the response to a request for content that is not stored, after a call
// of a class.
func failure(c class, n naming, head bool) string {
	if n.byDefault && (head || c == denied) {
		return "404" // the name need not be the upstream's
	}
	switch c {
	case missing:
		return "404"
	case denied:
		return "403"
	case limited:
		return "429"
	case timedOut:
		return "504"
	}
	return "502"
}

// isHidden reports whether a failure of a class hides what is stored.
func isHidden(c class, up mirror.Upstream) bool {
	return c == denied && up.Private || c == missing && !up.KeepDeleted
}

// expectTag returns the responses to a request for a tag, and the number of calls.
func (m *machine) expectTag(n naming, tag string, head bool) (allowed []string, calls int) {
	if d, ok := m.pushed[n.local].tags[tag]; ok {
		return []string{"200 " + string(d)}, 0
	}
	o, up := m.origin(n)
	path := "/manifests/" + tag
	var current, stored digest.Digest
	if got, err := o.store.GetTag(ctx, n.name, tag); err == nil {
		current = got.Digest
	}
	if got, err := m.store.GetTag(ctx, n.cache, tag); err == nil {
		stored = got.Digest
	}
	if end := m.fresh[n.cache+":"+tag]; stored != "" && time.Now().Before(end.to) {
		allowed = append(allowed, "200 "+string(stored))
		if time.Now().Before(end.from) {
			return allowed, 0
		}
	}
	if stored == "" && !m.mayFetch(n) {
		return []string{"404"}, 0
	}
	fail := func(c class) {
		switch {
		case stored != "" && !isHidden(c, up):
			allowed = append(allowed, "stale "+string(stored))
		default:
			allowed = append(allowed, failure(c, n, head))
		}
	}
	get := func(a access, path string) {
		c, more := m.classOf(n, a, path, current != "")
		calls += more
		for _, one := range classes {
			switch {
			case c&one == 0:
			case one == served && current == "":
				fail(missing)
			case one == served:
				allowed = append(allowed, "200 "+string(current))
			default:
				fail(one)
			}
		}
	}
	if stored == "" {
		get(access{kind: "manifests"}, path)
		return allowed, calls
	}
	c, max := m.classOf(n, access{kind: "manifests", head: true}, "", current != "")
	calls = max
	for _, one := range classes {
		switch _, err := m.store.GetManifest(ctx, n.cache, current); {
		case c&one == 0:
		case one != served:
			fail(one)
		case current == "":
			fail(missing)
		case !o.noHeadDigest && err == nil:
			allowed = append(allowed, "200 "+string(current))
		default:
			get(access{kind: "manifests"}, "") // the upstream has just said that it has the tag
		}
	}
	return allowed, calls
}

// noteTag notes what a response for a tag says.
func (m *machine) noteTag(t failer, n naming, tag string, r response) {
	m.noteTime(n, r)
	o, up := m.origin(n)
	_, err := o.store.GetTag(ctx, n.name, tag)
	m.noteUnknown(n, access{kind: "manifests"}, "/manifests/"+tag, err == nil, r)
	m.noteFetched(n, r)
	if _, err := m.store.GetTag(ctx, n.cache, tag); err == nil && r.status != http.StatusOK {
		t.Fatalf("%s: the tag is still stored after %v", r.request, r)
	}
	if _, ok := m.pushed[n.local].tags[tag]; ok || r.status != http.StatusOK || r.warned() || len(r.calls) == 0 {
		return
	}
	if up.TTL > 0 {
		m.fresh[n.cache+":"+tag] = span{r.from.Add(up.TTL), time.Now().Add(up.TTL)}
	}
	if got, err := m.store.GetTag(ctx, n.cache, tag); err != nil || string(got.Digest) != r.header.Get("Docker-Content-Digest") {
		t.Fatalf("%s: the store has %v %v after %v", r.request, got.Digest, err, r)
	}
}

// failer is a test.
type failer interface{ Fatalf(string, ...any) }

// noteFetched notes that a manifest has been fetched.
func (m *machine) noteFetched(n naming, r response) {
	for _, call := range r.calls {
		if r.status == http.StatusOK && !r.warned() && strings.HasPrefix(call, "GET /v2/"+n.name+"/manifests/") {
			m.fetched[n.cache] = true
		}
	}
}

// expectManifest is expectTag for a digest.
func (m *machine) expectManifest(n naming, d digest.Digest, head bool) (allowed []string, calls int) {
	for _, repo := range []string{n.local, n.cache} {
		if _, err := m.store.GetManifest(ctx, repo, d); err == nil {
			return []string{"200 " + string(d)}, 0
		}
	}
	if !m.mayFetch(n) {
		return []string{"404"}, 0
	}
	o, _ := m.origin(n)
	_, err := o.store.GetManifest(ctx, n.name, d)
	c, calls := m.classOf(n, access{kind: "manifests", digest: true}, "/manifests/"+string(d), err == nil)
	for _, one := range classes {
		switch {
		case c&one == 0:
		case one == served && err == nil:
			allowed = append(allowed, "200 "+string(d))
		case one == served:
			allowed = append(allowed, failure(missing, n, head))
		default:
			allowed = append(allowed, failure(one, n, head))
		}
	}
	return allowed, calls
}

// hasBlob reports whether the mirror has a blob.
func (m *machine) hasBlob(n naming, d digest.Digest) bool {
	for _, repo := range []string{n.local, n.cache} {
		if _, err := m.store.StatBlob(ctx, repo, d); err == nil {
			return true
		}
	}
	return false
}

// mayFetch reports whether the mirror fetches manifests and lists under a name: under one
// that need not be the upstream's, only if it has fetched a manifest or nobody has pushed one.
func (m *machine) mayFetch(n naming) bool {
	return m.mayFetchBlob(n) || len(m.pushed[n.local].manifests) == 0
}

// mayFetchBlob reports whether the mirror fetches blobs under a name: under one that need
// not be the upstream's, only if it has fetched a manifest.
func (m *machine) mayFetchBlob(n naming) bool {
	if !n.byDefault || m.fetched[n.cache] {
		return true
	}
	for _, err := range m.store.Manifests(ctx, n.cache, "") {
		return err == nil
	}
	return false
}

// fetchedElsewhere reports whether a blob has been fetched for a repository that another one
// may have it from.
func (m *machine) fetchedElsewhere(n naming, d digest.Digest) bool {
	for _, other := range namings {
		if _, up := m.origin(other); up.Private && other.upstream != n.upstream {
			continue
		}
		if _, err := m.store.StatBlob(ctx, other.cache, d); err == nil {
			return true
		}
	}
	return false
}

// expectBlob returns the responses to a request for a blob, and the number of calls.
func (m *machine) expectBlob(n naming, b blob, head bool) (allowed []string, calls int) {
	if m.hasBlob(n, b.digest) {
		return []string{"200 " + string(b.digest)}, 0
	}
	if !m.mayFetchBlob(n) {
		return []string{"404"}, 0
	}
	o, _ := m.origin(n)
	_, err := o.store.StatBlob(ctx, n.name, b.digest)
	stored := m.fetchedElsewhere(n, b.digest)
	a := access{kind: "blobs", head: head || stored, stored: stored, size: len(b.data)}
	c, calls := m.classOf(n, a, "/blobs/"+string(b.digest), err == nil)
	f, _ := o.current()
	for _, one := range classes {
		switch {
		case c&one == 0:
		case one == served && err == nil:
			allowed = append(allowed, "200 "+string(b.digest))
		case one == served:
			allowed = append(allowed, failure(missing, n, head))
		default:
			allowed = append(allowed, failure(one, n, head))
			if f.body && !a.head && len(b.data) > heldBack {
				allowed = append(allowed, "broken off")
			}
		}
	}
	return allowed, calls
}

// noteBlob notes what a response for a blob says.
func (m *machine) noteBlob(n naming, b blob, r response) {
	m.noteTime(n, r)
	o, _ := m.origin(n)
	_, err := o.store.StatBlob(ctx, n.name, b.digest)
	m.noteUnknown(n, access{kind: "blobs", size: len(b.data)}, "/blobs/"+string(b.digest), err == nil, r)
}

// expectList returns the responses to a request for a list, and the number of calls. The
// upstream has current; known reports whether a repository with pushed or fetched elements
// exists here. The upstream may say that it has no list, which is an empty one if empty is
// set.
func (m *machine) expectList(n naming, kind string, current []string, exists bool, pushed, fetched []string, known, empty bool) (allowed []string, calls int) {
	stored := slices.Concat(pushed, fetched)
	if !m.mayFetch(n) {
		return []string{listed("200", stored)}, 0
	}
	_, up := m.origin(n)
	old, ok := m.lists[n.cache+" "+kind]
	if ok && time.Now().Before(old.until.to) {
		allowed = append(allowed, listed("200", old.items, stored))
		if time.Now().Before(old.until.from) {
			return allowed, 0
		}
	}
	c, calls := m.classOf(n, access{kind: "lists"}, "", exists)
	for _, one := range classes {
		if c&one == 0 {
			continue
		}
		if one == served && !exists {
			one = missing
		}
		switch {
		case one == missing && empty:
			allowed = append(allowed, listed("200", stored))
		case one == served:
			allowed = append(allowed, listed("200", current, stored))
		case ok && !isHidden(one, up):
			allowed = append(allowed, listed("stale", old.items, stored))
		case one == missing && known:
			allowed = append(allowed, listed("200", stored))
		case one != missing && isHidden(one, up) && len(pushed) > 0:
			allowed = append(allowed, listed("stale", pushed))
		case one == missing || isHidden(one, up) || len(stored) == 0:
			allowed = append(allowed, failure(one, n, false))
		default:
			allowed = append(allowed, listed("stale", stored))
		}
	}
	return allowed, 2 * calls
}

// noteList notes what a response with a list says.
func (m *machine) noteList(n naming, kind string, current []string, exists, empty bool, r response) {
	m.noteTime(n, r)
	o, up := m.origin(n)
	c, _ := m.classOf(n, access{kind: "lists"}, "", exists)
	if r.status != http.StatusOK || r.warned() || len(r.calls) == 0 {
		return
	}
	if f, _ := o.current(); f.class(access{kind: "lists"}) == missing || !exists {
		if !empty {
			return
		}
		current = nil
	} else if c&served == 0 {
		return
	}
	m.lists[n.cache+" "+kind] = list{current, span{r.from.Add(up.TTL), time.Now().Add(up.TTL)}}
}

// listed returns a list that merges others.
func listed(status string, lists ...[]string) string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return fmt.Sprintf("%s [%s]", status, strings.Join(slices.Compact(all), " "))
}
