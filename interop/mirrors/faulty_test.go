// SPDX-License-Identifier: Apache-2.0

// Actions that come upon a fault at once, so that histories need not wait for chance.

package mirrors

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// Cold pulls an image, or reads a range, that is not stored, while the upstream fails.
func (m *machine) Cold(t *rapid.T) {
	n := pick(t, "naming", namings...)
	for _, b := range blobPool {
		m.store.DeleteBlob(ctx, n.cache, b.digest)
	}
	o, _ := m.origin(n)
	before := o.state()
	defer o.set(before)
	f := pick(t, "fault", faults...)
	t.Logf("%s: the fault %q for a moment", o.name, f.name)
	o.set(f)
	switch pick(t, "what", "range", "blob", "tag") {
	case "range":
		m.readRange(t, n, blobPool[len(blobPool)-1])
	case "blob":
		m.getBlob(t, n, pick(t, "blob", blobPool...), pickMethod(t))
	case "tag":
		for _, img := range images {
			m.store.DeleteManifest(ctx, n.cache, img.digest)
		}
		m.getTag(t, n, pick(t, "tag", tagPool...), pickMethod(t))
	}
}

// Stale asks for a tag, or for a list, whose time is over, while the upstream fails.
func (m *machine) Stale(t *rapid.T) {
	n, tag := pick(t, "naming", namings...), pick(t, "tag", tagPool...)
	what := pick(t, "what", "tag", "tag", "tags", "referrers")
	read := func() {
		switch what {
		case "tag":
			m.getTag(t, n, tag, pickMethod(t))
		case "tags":
			m.getTags(t, n)
		case "referrers":
			m.getReferrers(t, n)
		}
	}
	read()
	time.Sleep(2 * time.Minute)
	o, _ := m.origin(n)
	if rapid.Bool().Draw(t, "moves") {
		pushUpstream(o.store, "library/app", rapid.IntRange(0, len(images)-1).Draw(t, "image"), tag)
		o.listReferrers("library/app")
	}
	before := o.state()
	defer o.set(before)
	f := pick(t, "fault", faults...)
	t.Logf("%s: the fault %q for a moment", o.name, f.name)
	o.set(f)
	read()
	read() // which a 429 has an effect on
}

// Herd has clients ask for a tag at the same time: they share the calls.
func (m *machine) Herd(t *rapid.T) {
	n, tag := pick(t, "naming", namings[:len(namings)-1]...), pick(t, "tag", tagPool...)
	o, _ := m.origin(n)
	before := o.state()
	defer o.set(before)
	o.set(faultNamed("late"))
	allowed, calls := m.expectTag(n, tag, false)
	counts, now := m.counts(), time.Now()
	var wg sync.WaitGroup
	responses := make([]response, 8)
	errs := make([]error, len(responses))
	for i := range responses {
		wg.Go(func() {
			responses[i], errs[i] = m.try(context.Background(), http.MethodGet, n.url("manifests/"+tag), "", "")
		})
	}
	wg.Wait()
	synctest.Wait()
	all := m.callsSince(counts)
	t.Logf("%d clients of %s: %v, calls %q", len(responses), tag, responses[0], all)
	for i, r := range responses {
		if errs[i] != nil {
			t.Fatalf("%s: %v", r.request, errs[i])
		}
		m.checkResponse(t, r)
		if r.String() != responses[0].String() || !slices.Contains(allowed, r.String()) {
			t.Fatalf("%s: %v, and another %v, want %q", r.request, r, responses[0], allowed)
		}
	}
	heads := 0
	for _, call := range all {
		if strings.HasPrefix(call, http.MethodHead) {
			heads++
		}
	}
	if heads > 1 || len(all)-heads > 1 || len(all) > calls {
		t.Fatalf("the calls %q of %d clients", all, len(responses))
	}
	r := responses[0]
	r.from, r.calls = now, all
	m.noteTag(t, n, tag, r)
}
