// SPDX-License-Identifier: Apache-2.0

// Clients that read a blob at once while it is fetched.

package mirrors

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"
)

// crowd are clients that read one blob.
type crowd struct {
	m       *machine
	blob    blob
	clients sync.WaitGroup

	mu       sync.Mutex
	problems []string // that a disturbance of the upstream excuses
	wrong    []string // that nothing excuses
}

// Crowd has clients read a blob that arrives slowly: all of it, ranges, only for a moment.
// Meanwhile the upstream may break its responses and then fail, or the mirror restarts.
func (m *machine) Crowd(t *rapid.T) {
	n := pick(t, "naming", namings[:len(namings)-1]...)
	names := sameContent(n)
	b := pick(t, "blob", blobPool[4:]...)
	o, _ := m.origin(n)
	now := time.Now()
	o.mu.Lock()
	quiet := now.Before(o.quietUntil) || now.Before(m.slow[n.upstream]) || now.Before(o.notFound["/v2/"+n.name+"/blobs/"+string(b.digest)].Add(forgetUnknown))
	o.mu.Unlock()
	if _, err := o.store.StatBlob(ctx, n.name, b.digest); err != nil || quiet || m.hasBlob(n, b.digest) || m.fetchedElsewhere(n, b.digest) {
		t.Skip("the blob is not fetched")
	}
	before := o.state()
	defer o.set(before)
	o.set(faultNamed("slow"))
	counts := m.counts()
	c := &crowd{m: m, blob: b}
	for range rapid.IntRange(1, 5).Draw(t, "clients") {
		kind := pick(t, "client", "all", "all", "HEAD", "near", "far", "end", "leaves")
		delay := pick(t, "delay", 0, 0, 500*time.Millisecond, 3*time.Second)
		name := pick(t, "other naming", names...)
		c.clients.Go(func() { c.read(name, kind, delay) })
	}
	disturbance := pick(t, "disturbance", "none", "none", "cut", "cut twice", "cut, then a fault", "restart")
	time.Sleep(pick(t, "after", time.Second, 1100*time.Millisecond, 5*time.Second))
	restarted := false
	switch disturbance {
	case "cut":
		o.cutAll()
	case "cut twice":
		o.cutAll()
		time.Sleep(2 * time.Second)
		o.cutAll()
	case "cut, then a fault":
		o.set(pick(t, "fault", faults...))
		o.cutAll()
	case "restart":
		m.close()
		m.start(t)
		restarted = true
	}
	excused := restarted || disturbance == "cut, then a fault"
	c.clients.Wait()
	m.settle()
	calls := m.callsSince(counts)
	t.Logf("%s: %s: calls %q, problems %q", b.digest, disturbance, calls, c.problems)
	for _, p := range c.wrong {
		t.Errorf("%s", p)
	}
	if excused {
		m.slow[n.upstream] = time.Now().Add(timeoutPause)
		return
	}
	for _, p := range c.problems {
		t.Errorf("%s", p)
	}
	whole := 0
	for _, call := range calls {
		if strings.HasPrefix(call, http.MethodGet) && strings.HasSuffix(call, string(b.digest)) {
			whole++
		}
	}
	if whole > 1 && disturbance == "none" { // a cut may come before the first byte
		t.Errorf("%d requests for all of the blob: %q", whole, calls)
	}
	if whole > 0 && m.opts.MaxBytes == 0 && !m.hasBlob(n, b.digest) {
		t.Errorf("the blob is not stored, though nothing failed: %q", calls)
	}
}

// sameContent returns the ways of naming the repository that n names, except those that do
// not say which upstream it is from.
func sameContent(n naming) []naming {
	return slices.DeleteFunc(slices.Clone(namings), func(other naming) bool { return other.cache != n.cache || other.byDefault })
}

// state returns the fault.
func (o *origin) state() *fault {
	f, _ := o.current()
	return f
}

// read reads the blob in the way of a kind of client.
func (c *crowd) read(n naming, kind string, delay time.Duration) {
	time.Sleep(delay)
	ctx := context.Background()
	method, header, status, want := http.MethodGet, "", http.StatusOK, c.blob.data
	size := len(c.blob.data)
	ranged := func(first, last int) {
		header, status, want = fmt.Sprintf("Range: bytes=%d-%d", first, last), http.StatusPartialContent, want[first:last+1]
	}
	switch kind {
	case "HEAD":
		method, want = http.MethodHead, ""
	case "near":
		ranged(1000, 100_000)
	case "far":
		ranged(size*3/4, min(size-1, size*3/4+200_000))
	case "end":
		ranged(size-1000, size-1)
	case "leaves":
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 1500*time.Millisecond)
		defer cancel()
	}
	r, err := c.m.try(ctx, method, n.url("blobs/"+string(c.blob.digest)), header, "")
	c.mu.Lock()
	defer c.mu.Unlock()
	note := func(list *[]string, format string, args ...any) {
		*list = append(*list, kind+": "+r.request+": "+fmt.Sprintf(format, args...))
	}
	complete := r.status == status && r.err == nil
	switch {
	case err == errHangs:
		note(&c.wrong, "%v", err)
	case kind == "leaves" && ctx.Err() != nil:
	case err != nil:
		note(&c.problems, "%v", err)
	case complete && len(r.body) == len(want) && kind != "HEAD" && r.body != want && header == "":
		note(&c.wrong, "not the content")
	case !complete || r.body != want:
		note(&c.problems, "%v, %d bytes, %v", r, len(r.body), r.err)
	}
}
