// SPDX-License-Identifier: Apache-2.0

// The history of a simulation: the requests of clients, and the responses.

package bucket_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// simStart is when each bubble of testing/synctest starts.
var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// event is a request, or an upload with several requests.
type event struct {
	name    string // of the operation and the request
	kind    string
	replica string

	repo     string
	from     string // of a mount
	tags     []string
	byDigest bool
	manifest int
	blob     int
	cond     condition
	match    int
	n        int // of a list; 0: without
	last     string

	start, end int64 // ticks
	from0, to  time.Time
	callers    []*caller

	status int      // 0: unknown
	again  bool     // of an upload: an earlier attempt has an unknown outcome
	found  int      // the manifest in the response, -1 for none
	names  []string // in a list
	more   bool     // the list goes on
	final  bool     // it is part of the final check
}

const infinity = int64(1) << 60

// unknown reports whether a change may or may not have taken effect.
func (e *event) unknown() bool {
	return e.status == 0 || e.status == http.StatusServiceUnavailable || e.status == http.StatusTooManyRequests
}

// over returns the tick after which the event has no effect. If it is unknown, that
// is when its handler has returned and all its calls to the bucket have taken effect.
func (e *event) over() int64 {
	if !e.unknown() && !e.again {
		return e.end
	}
	end := e.end
	for _, c := range e.callers {
		tick, ok := c.over()
		if !ok {
			return infinity
		}
		end = max(end, tick)
	}
	return end
}

func (e *event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%d,%d] %s-%s %s %s: %s %s", e.start, e.end, since(e.from0), since(e.to), e.name, e.replica, e.kind, e.repo)
	switch e.kind {
	case opPush, opGetManifest, opHeadManifest, opDeleteManifest, opReferrers:
		fmt.Fprintf(&b, " m%d", e.manifest)
	case opPushBlob, opUpload, opMount, opGetBlob, opHeadBlob, opDeleteBlob:
		fmt.Fprintf(&b, " b%d", e.blob)
	}
	if len(e.tags) > 0 {
		fmt.Fprintf(&b, " tags=%s", strings.Join(e.tags, ","))
	}
	switch e.cond {
	case ifAbsent:
		b.WriteString(" if absent")
	case ifMatch:
		fmt.Fprintf(&b, " if m%d", e.match)
	}
	if e.unknown() {
		fmt.Fprintf(&b, ": unknown (%d)", e.status)
	} else {
		fmt.Fprintf(&b, ": %d", e.status)
	}
	if e.found >= 0 {
		fmt.Fprintf(&b, " m%d", e.found)
	}
	if e.names != nil {
		fmt.Fprintf(&b, " %v (after %q, more: %v)", e.names, e.last, e.more)
	}
	return b.String()
}

// since prints a time of a bubble.
func since(t time.Time) string { return t.Sub(simStart).Truncate(time.Microsecond).String() }

// violation is a broken promise. The check identifies the kind, for shrinking.
type violation struct {
	check  string
	text   string
	events []*event // that contradict each other, if known
}

// result is a run: its history, and the promises that are broken.
type result struct {
	plan       *simPlan
	history    []*event
	violations []violation
	timeouts   int // of Porcupine
	loose      int // partitions that were legal only with the loose bounds of unknown effects
	partitions int
	calls      int64 // ticks
	took       time.Duration
}

// describe prints the history with the faults, in the order of time. It leaves out
// the final check, but for events that contradict others.
func (r *result) describe() string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	hidden := 0
	for _, e := range r.history {
		if e.final && !slices.ContainsFunc(r.violations, func(v violation) bool { return slices.Contains(v.events, e) }) {
			hidden++
			continue
		}
		lines = append(lines, line{e.from0, e.String()})
	}
	for _, l := range r.plan.weather.log {
		lines = append(lines, line{l.at, fmt.Sprintf("    %s fault: %s", since(l.at), l.text)})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text + "\n")
	}
	fmt.Fprintf(&b, "and %d requests after the end\n", hidden)
	return b.String()
}
