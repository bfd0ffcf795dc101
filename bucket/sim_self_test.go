// SPDX-License-Identifier: Apache-2.0

// Tests of the model, of the double, and of the simulation's determinism.

package bucket_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// TestSimulationIsDeterministic runs seeds twice. The stores' UUIDs differ, so a
// store may still behave differently if it depends on their order.
func TestSimulationIsDeterministic(t *testing.T) {
	for seed := uint64(1); seed <= uint64(max(1, 8/simShare)); seed++ {
		first := simulate(t, planFor(seed, toyTarget("")), toyTarget("")).describe()
		again := simulate(t, planFor(seed, toyTarget("")), toyTarget("")).describe()
		if first == again {
			continue
		}
		a, b := strings.Split(first, "\n"), strings.Split(again, "\n")
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				t.Errorf("seed %d, line %d:\n%s\n%s", seed, i, a[i], b[i])
				break
			}
		}
	}
}

// wrote returns an event from one tick to another.
func wrote(kind string, from, to int64, status int) *event {
	return &event{kind: kind, repo: "a", tags: []string{"t0"}, start: from, end: to, status: status, found: -1, callers: []*caller{{}}}
}

func pushed(from, to int64, m, status int, cond condition, match int, tags ...string) *event {
	e := wrote(opPush, from, to, status)
	e.manifest, e.cond, e.match, e.tags, e.byDigest = m, cond, match, tags, len(tags) != 1
	return e
}

func gotTag(from, to int64, m int) *event {
	e := wrote(opGetTag, from, to, 200)
	if e.found = m; m < 0 {
		e.status = 404
	}
	return e
}

func manifestEvent(kind string, from, to int64, m, status int) *event {
	e := wrote(kind, from, to, status)
	e.manifest, e.tags = m, nil
	return e
}

func blobEvent(kind string, from, to int64, status int) *event {
	e := wrote(kind, from, to, status)
	e.tags = nil
	return e
}

func listed(from, to int64, names ...string) *event {
	e := wrote(opTags, from, to, 200)
	e.names, e.tags = names, nil
	return e
}

// TestModel checks histories by hand.
func TestModel(t *testing.T) {
	done := func(e *event) *event { // an unknown event that is over at its end
		e.callers[0].handled = e.end
		return e
	}
	for _, test := range []struct {
		name    string
		history []*event
		rules   rules
		want    bool
	}{
		{"read after write", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), gotTag(3, 4, 0)}, rules{}, true},
		{"stale read", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), pushed(3, 4, 1, 201, "", 0, "t0"), gotTag(5, 6, 0)}, relaxed, false},
		{"read during a write", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), pushed(3, 6, 1, 201, "", 0, "t0"), gotTag(4, 5, 0)}, rules{}, true},
		{"new, then old", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), pushed(3, 9, 1, 201, "", 0, "t0"), gotTag(4, 5, 1), gotTag(6, 7, 0)}, relaxed, false},
		{"lost write", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), gotTag(3, 4, -1)}, relaxed, false},
		{"lost update", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), pushed(3, 6, 1, 201, ifMatch, 0, "t0"), pushed(4, 7, 2, 201, ifMatch, 0, "t0")}, relaxed, false},
		{"two creators", []*event{pushed(1, 4, 0, 201, ifAbsent, 0, "t0"), pushed(2, 5, 1, 201, ifAbsent, 0, "t0")}, relaxed, false},
		{"wrongly rejected", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), pushed(3, 4, 1, 412, ifMatch, 0, "t0")}, relaxed, false},
		{"unknown, effective", []*event{done(pushed(1, 2, 0, 0, "", 0, "t0")), gotTag(3, 4, 0)}, rules{}, true},
		{"unknown, without effect", []*event{done(pushed(1, 2, 0, 0, "", 0, "t0")), gotTag(3, 4, -1)}, rules{}, true},
		{"unknown, late", []*event{pushed(1, 2, 0, 0, "", 0, "t0"), gotTag(3, 4, -1), gotTag(5, 6, 0)}, relaxed, true},
		{"unknown, twice", []*event{pushed(1, 2, 0, 0, "", 0, "t0"), gotTag(3, 4, 0), pushed(5, 6, 1, 201, "", 0, "t0"), gotTag(7, 8, 1), gotTag(9, 10, 0)}, relaxed, false},
		{"resurrected tag", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), manifestEvent(opDeleteManifest, 3, 4, 0, 202), gotTag(5, 6, -1), pushed(7, 8, 0, 201, "", 0), gotTag(9, 10, 0)}, relaxed, false},
		{"tag outlives its manifest", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), manifestEvent(opDeleteManifest, 3, 4, 0, 202), gotTag(5, 6, 0)}, relaxed, false},
		{"tag of a manifest that is absent", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), gotTag(3, 4, 0), manifestEvent(opGetManifest, 5, 6, 0, 404)}, relaxed, false},
		{"manifest before its tag", []*event{pushed(1, 9, 0, 201, "", 0, "t0"), manifestEvent(opGetManifest, 2, 3, 0, 200), gotTag(4, 5, -1)}, relaxed, true},
		{"manifest before its tag, in one step", []*event{pushed(1, 9, 0, 201, "", 0, "t0"), manifestEvent(opGetManifest, 2, 3, 0, 200), gotTag(4, 5, -1)}, rules{}, false},
		{"tag before its manifest", []*event{pushed(1, 9, 0, 201, "", 0, "t0"), gotTag(2, 3, 0), manifestEvent(opGetManifest, 4, 5, 0, 404)}, relaxed, false},
		{"(a)", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 4, 0, 412, ifAbsent, 0, "t0"), manifestEvent(opGetManifest, 5, 6, 0, 200)}, relaxed, true},
		{"without (a)", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 4, 0, 412, ifAbsent, 0, "t0"), manifestEvent(opGetManifest, 5, 6, 0, 200)}, rules{steps: true}, false},
		{"(b)", []*event{pushed(1, 9, 0, 201, "", 0), manifestEvent(opGetManifest, 2, 3, 0, 200), manifestEvent(opDeleteManifest, 4, 5, 0, 202), manifestEvent(opGetManifest, 10, 11, 0, 200)}, relaxed, true},
		{"without (b)", []*event{pushed(1, 9, 0, 201, "", 0), manifestEvent(opGetManifest, 2, 3, 0, 200), manifestEvent(opDeleteManifest, 4, 5, 0, 202), manifestEvent(opGetManifest, 10, 11, 0, 200)}, rules{steps: true}, false},
		{"(b) only if they overlap", []*event{pushed(1, 2, 0, 201, "", 0), manifestEvent(opDeleteManifest, 4, 5, 0, 202), manifestEvent(opGetManifest, 10, 11, 0, 200)}, relaxed, false},
		{"(c)", []*event{pushed(1, 9, 0, 412, ifAbsent, 0, "t0", "t1"), gotTag(2, 3, 0), gotTag(4, 5, -1)}, relaxed, true},
		{"(c) must end", []*event{pushed(1, 9, 0, 412, ifAbsent, 0, "t0", "t1"), gotTag(10, 11, 0)}, relaxed, false},
		{"(c) survives a delete of the pushed manifest", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 9, 0, 412, ifMatch, 1, "t0", "t1"), gotTag(4, 5, 0), manifestEvent(opDeleteManifest, 6, 7, 0, 202), gotTag(10, 11, 1)}, relaxed, true},
		{"(c) lost with the pushed manifest", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 9, 0, 412, ifMatch, 1, "t0", "t1"), gotTag(4, 5, 0), manifestEvent(opDeleteManifest, 6, 7, 0, 202), gotTag(10, 11, -1)}, relaxed, false},
		{"(c) ends with a delete of the manifest before", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 9, 0, 412, ifMatch, 1, "t0", "t1"), gotTag(4, 5, 0), manifestEvent(opDeleteManifest, 6, 7, 1, 202), gotTag(10, 11, -1)}, relaxed, true},
		{"(c) revives the manifest before", []*event{pushed(1, 2, 1, 201, "", 0, "t0"), pushed(3, 9, 0, 412, ifMatch, 1, "t0", "t1"), gotTag(4, 5, 0), manifestEvent(opDeleteManifest, 6, 7, 1, 202), gotTag(10, 11, 1)}, relaxed, false},
		{"without (c)", []*event{pushed(1, 9, 0, 412, ifAbsent, 0, "t0", "t1"), gotTag(2, 3, 0), gotTag(4, 5, -1)}, rules{steps: true}, false},
		{"blob", []*event{blobEvent(opPushBlob, 1, 2, 201), blobEvent(opGetBlob, 3, 4, 200), blobEvent(opDeleteBlob, 5, 6, 202), blobEvent(opGetBlob, 7, 8, 404)}, rules{}, true},
		{"blob deleted twice", []*event{blobEvent(opPushBlob, 1, 2, 201), blobEvent(opDeleteBlob, 3, 5, 202), blobEvent(opDeleteBlob, 4, 6, 202)}, relaxed, false},
		{"resurrected blob", []*event{blobEvent(opPushBlob, 1, 2, 201), blobEvent(opDeleteBlob, 3, 4, 202), blobEvent(opGetBlob, 5, 6, 200)}, relaxed, false},
		{"list", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), listed(3, 4, "t0")}, rules{}, true},
		{"list without a tag", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), listed(3, 4)}, relaxed, false},
		{"list with a tag that never was", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), listed(3, 4, "t0", "t1")}, relaxed, false},
		{"list during a push", []*event{pushed(1, 9, 0, 201, "", 0, "t0"), listed(3, 4)}, rules{}, true},
		{"list after a delete", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), wrote(opDeleteTag, 3, 4, 202), listed(5, 6, "t0")}, relaxed, false},
		{"(d)", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), manifestEvent(opDeleteManifest, 3, 4, 0, 0), gotTag(5, 6, -1), listed(7, 8, "t0")}, relaxed, true},
		{"without (d)", []*event{pushed(1, 2, 0, 201, "", 0, "t0"), manifestEvent(opDeleteManifest, 3, 4, 0, 0), gotTag(5, 6, -1), listed(7, 8, "t0")}, rules{}, false},
	} {
		res := &result{history: test.history}
		for _, p := range partitionsOf(test.history, test.rules) {
			p.check(res, porcupineLimit)
		}
		checkLists(res, test.rules)
		if got := len(res.violations) == 0; got != test.want {
			t.Errorf("%s: legal: %v, want %v; %v", test.name, got, test.want, res.violations)
		}
	}
}

func TestDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plan := newPlan(1, 1, 1)
		clear(plan.weather.rates)
		n := &network{weather: plan.weather, bucket: newDouble()}
		h := n.newHandle("r")
		ctx := t.Context()
		a, err := h.Put(ctx, "k/a", []byte("1"), objects.Condition{Absent: true})
		qt.Assert(t, qt.IsNil(err))
		_, err = h.Put(ctx, "k/a", []byte("2"), objects.Condition{Absent: true})
		qt.Assert(t, qt.Equals(err, objects.ErrCondition))
		_, err = h.Put(ctx, "k/b", []byte("2"), objects.Condition{Version: a})
		qt.Assert(t, qt.Equals(err, objects.ErrCondition))
		b, err := h.Put(ctx, "k/a", []byte("2"), objects.Condition{Version: a})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Not(qt.Equals(a, b)))
		again, err := h.Put(ctx, "k/a", []byte("1"), objects.Condition{Version: b})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(again, a)) // as an ETag

		w := h.NewWriter(ctx, "k/c")
		_, err = io.WriteString(w, "large")
		qt.Assert(t, qt.IsNil(err))
		_, err = h.Stat(ctx, "k/c")
		qt.Assert(t, qt.Equals(err, objects.ErrNotExist))
		qt.Assert(t, qt.IsNil(w.Close()))
		qt.Assert(t, qt.IsNil(h.Copy(ctx, "k/d", "k/c", 5)))
		r, err := h.Get(ctx, "k/d", 1, 3)
		qt.Assert(t, qt.IsNil(err))
		data, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(data), "arg"))
		_, err = h.Get(ctx, "k/d", 5, -1)
		qt.Assert(t, qt.IsNotNil(err))

		page, next, err := h.List(ctx, objects.ListQuery{Prefix: "k/", After: "k/a"}, 1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(page[0].Key, "k/c"))
		page, next, err = h.List(ctx, objects.ListQuery{Prefix: "k/", Token: next}, 1)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(page[0].Key, "k/d"))
		qt.Assert(t, qt.Equals(next, ""))

		qt.Assert(t, qt.Equals(h.Delete(ctx, "k/a", b), objects.ErrCondition))
		qt.Assert(t, qt.IsNil(h.Delete(ctx, "k/a", a)))
		qt.Assert(t, qt.IsNil(h.Delete(ctx, "k/a", "")))

		_, err = io.WriteString(h.NewWriter(ctx, "k/e"), "never closed")
		qt.Assert(t, qt.IsNil(err))
		aborted, err := h.AbortWriters(ctx, "k/", time.Now().Add(time.Hour))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(aborted, 1))

		close(h.crashed)
		_, err = h.Stat(ctx, "k/c")
		qt.Assert(t, qt.IsTrue(errors.Is(err, errCrashed)))
		n.late.Wait()
	})
}
