// SPDX-License-Identifier: Apache-2.0

// Shrinking a run that has broken a promise: fewer operations, fewer faults.

package bucket_test

import (
	"slices"
	"testing"
	"time"
)

// shrinkLimit is how long shrinking may take.
const shrinkLimit = time.Minute

// reduction is a part of a plan that is left out.
type reduction struct {
	classes []faultClass
	ops     [][2]int // client and number
	faults  []string
}

func (r reduction) plan(seed uint64, target simTarget) *simPlan {
	p := planFor(seed, target)
	for _, class := range r.classes {
		delete(p.weather.rates, class)
		p.events = slices.DeleteFunc(p.events, func(e simEvent) bool { return e.class == class })
	}
	for _, op := range r.ops {
		p.dropped[op] = true
	}
	for _, name := range r.faults {
		p.weather.off[name] = true
	}
	return p
}

// shrinker looks for a smaller plan that breaks the same promise.
type shrinker struct {
	t        *testing.T
	target   simTarget
	check    string
	best     *result
	now      reduction
	deadline time.Time
	runs     int
}

// shrink returns the smallest failing run that it finds in time.
func shrink(t *testing.T, res *result, target simTarget) *result {
	s := &shrinker{t: t, target: target, check: res.violations[0].check, best: res, deadline: time.Now().Add(shrinkLimit)}
	for _, class := range allFaults {
		if _, ok := s.best.plan.weather.rates[class]; ok {
			next := s.now
			next.classes = append(slices.Clip(next.classes), class)
			s.try(next)
		}
	}
	for {
		before := s.size()
		s.dropOps()
		s.dropFaults()
		if s.size() == before || time.Now().After(s.deadline) {
			t.Logf("seed %d: shrunk in %d runs to %d operations and %d faults", res.plan.seed, s.runs, len(s.ops()), len(s.best.plan.weather.log))
			return s.best
		}
	}
}

func (s *shrinker) size() int { return len(s.ops()) + len(s.best.plan.weather.log) }

// try runs a reduced plan, and keeps it if it breaks the same promise.
func (s *shrinker) try(next reduction) bool {
	if time.Now().After(s.deadline) {
		return false
	}
	s.runs++
	res := simulate(s.t, next.plan(s.best.plan.seed, s.target), s.target)
	if !slices.ContainsFunc(res.violations, func(v violation) bool { return v.check == s.check }) {
		return false
	}
	slices.SortStableFunc(res.violations, func(a, b violation) int {
		switch {
		case a.check == b.check:
			return 0
		case a.check == s.check:
			return -1
		case b.check == s.check:
			return 1
		}
		return 0
	})
	s.best, s.now = res, next
	return true
}

// ops returns the operations that are left.
func (s *shrinker) ops() (left [][2]int) {
	for c, ops := range s.best.plan.ops {
		for i := range ops {
			if op := [2]int{c, i}; !s.best.plan.dropped[op] {
				left = append(left, op)
			}
		}
	}
	return left
}

// dropOps drops operations, first those of entire clients.
func (s *shrinker) dropOps() {
	without := func(ops [][2]int) reduction {
		next := s.now
		next.ops = append(slices.Clip(next.ops), ops...)
		return next
	}
	for c := range s.best.plan.ops {
		mine := slices.DeleteFunc(s.ops(), func(op [2]int) bool { return op[0] != c })
		if len(mine) > 0 {
			s.try(without(mine))
		}
	}
	for size := len(s.ops()) / 2; size > 0; size /= 2 {
		for i := 0; i < len(s.ops()); {
			left := s.ops()
			if !s.try(without(left[i:min(i+size, len(left))])) {
				i += size
			}
			if time.Now().After(s.deadline) {
				return
			}
		}
	}
}

// dropFaults drops single faults.
func (s *shrinker) dropFaults() {
	for size := len(s.best.plan.weather.log); size > 0; size /= 2 {
		for i := 0; i < len(s.best.plan.weather.log); {
			log := s.best.plan.weather.log
			next := s.now
			next.faults = slices.Clip(next.faults)
			for _, l := range log[i:min(i+size, len(log))] {
				next.faults = append(next.faults, l.name)
			}
			if !s.try(next) {
				i += size
			}
			if time.Now().After(s.deadline) {
				return
			}
		}
	}
}
