// SPDX-License-Identifier: Apache-2.0

// The partitions of a history: which sub-operations an event has.

package bucket_test

import (
	"fmt"
	"math"
	"slices"
)

// The states of a tag, and of a tag in the partition of a manifest.
const (
	tagNone  = modelState(0)
	tagFirst = modelState(1)  // + the index of the manifest that it points at
	tagTemp  = modelState(20) // + tagTemps × the index of a temporary move + these:

	untagged  = modelState(1) // the manifest of the push was deleted
	forgotten = modelState(2) // the one before was deleted
	tagTemps  = modelState(4)
)

// temporary is a move that is undone soon: a push of several tags, rejected because
// of another tag. See rules.moment.
type temporary struct{ before, manifest modelState }

// temporaries are those of a tag.
type temporaries []temporary

// of returns the temporary move of a state that is at least tagTemp.
func (t temporaries) of(s modelState) temporary { return t[(s-tagTemp)/tagTemps] }

// value returns what the tag points at in a state.
func (t temporaries) value(s modelState) modelState {
	switch {
	case s < tagTemp:
		return s
	case s&untagged != 0:
		return tagNone
	}
	return t.of(s).manifest
}

// without returns the state after a manifest was deleted.
func (t temporaries) without(s, manifest modelState) modelState {
	switch {
	case s == manifest:
		return tagNone
	case s < tagTemp:
		return s
	}
	temp := t.of(s)
	if temp.manifest == manifest {
		s |= untagged
	}
	if temp.before == manifest {
		s |= forgotten
	}
	return s
}

// back returns the state after the temporary move to a state is undone. Nobody else's
// move is undone: those leave the temporary state.
func (t temporaries) back(s, to modelState) modelState {
	switch {
	case s&^(untagged|forgotten) != to:
		return s
	case s&forgotten != 0:
		return tagNone
	}
	return t.of(s).before
}

// partitionsOf returns the partitions of a history.
func partitionsOf(history []*event, r rules) (all []*partition) {
	for _, repo := range simRepos {
		for _, tag := range simTags {
			all = append(all, tagPartition(history, r, repo, tag))
		}
		for m := range simManifests {
			all = append(all, manifestPartition(history, r, repo, m))
		}
		for b := range simBlobs {
			all = append(all, blobPartition(history, repo, b))
		}
	}
	return slices.DeleteFunc(all, func(p *partition) bool { return len(p.ops) == 0 })
}

// requireState is the step of a response that tells the state.
func requireState(want modelState) step {
	return func(s modelState) (modelState, bool) { return s, s == want }
}

// moves returns the condition of an event that moves or deletes a tag, as a function
// of what the tag points at.
func (e *event) moves(value modelState) bool {
	switch e.cond {
	case ifAbsent:
		return value == tagNone
	case ifMatch:
		return value == tagFirst+modelState(e.match)
	}
	return true
}

// several reports whether a push is of several tags with a condition.
func (e *event) several() bool { return e.kind == opPush && len(e.tags) > 1 && e.cond != "" }

// tagPartition is the register of a tag.
func tagPartition(history []*event, r rules, repo, tag string) *partition {
	p := &partition{name: fmt.Sprintf("tag %s of %s", tag, repo)}
	var temps temporaries
	value := func(s modelState) modelState { return temps.value(s) }
	for _, e := range history {
		if e.repo != repo {
			continue
		}
		here := slices.Contains(e.tags, tag)
		m := tagFirst + modelState(e.manifest)
		move := func(s modelState) (modelState, bool) { return m, e.moves(value(s)) }
		switch {
		case e.kind == opPush && here && (e.status == 201 || e.unknown()):
			if r.moment && e.several() && e.unknown() {
				p.addTemporary(e, &temps, m)
			}
			p.add(e, fmt.Sprintf("tag m%d", e.manifest), move)
		case e.kind == opPush && here && e.status == 412 && !e.several():
			p.add(e, "rejected", func(s modelState) (modelState, bool) { return s, !e.moves(value(s)) })
		case e.kind == opPush && here && e.status == 412 && r.moment && e.mayHaveWritten():
			p.addTemporary(e, &temps, m)
		case e.kind == opDeleteTag && here && (e.status == 202 || e.unknown()):
			p.add(e, "untag", func(s modelState) (modelState, bool) {
				return tagNone, value(s) != tagNone && e.moves(value(s))
			})
		case e.kind == opDeleteTag && here && e.status == 412:
			p.add(e, "rejected", func(s modelState) (modelState, bool) {
				return s, value(s) != tagNone && !e.moves(value(s))
			})
		case e.kind == opDeleteManifest && (e.status == 202 || e.unknown()):
			p.add(e, fmt.Sprintf("delete m%d", e.manifest), func(s modelState) (modelState, bool) {
				return temps.without(s, m), true
			})
		case (e.kind == opGetTag || e.kind == opHeadTag) && here && e.status == 200:
			found := tagFirst + modelState(e.found)
			p.add(e, fmt.Sprintf("is m%d", e.found), func(s modelState) (modelState, bool) { return s, value(s) == found })
		case (e.kind == opGetTag || e.kind == opHeadTag || e.kind == opDeleteTag) && here && e.status == 404:
			p.add(e, "is absent", func(s modelState) (modelState, bool) { return s, value(s) == tagNone })
		}
	}
	return p
}

// addTemporary adds exception (c): a tag moves, and back.
func (p *partition) addTemporary(e *event, temps *temporaries, m modelState) {
	before := tagNone
	if e.cond == ifMatch {
		before = tagFirst + modelState(e.match)
	}
	if len(*temps) == (math.MaxUint8-int(tagTemp))/int(tagTemps) {
		panic("simulation: too many temporary moves for a modelState")
	}
	to := tagTemp + tagTemps*modelState(len(*temps))
	*temps = append(*temps, temporary{before, m})
	move := func(s modelState) (modelState, bool) { return to, temps.value(s) == before }
	back := func(s modelState) (modelState, bool) { return temps.back(s, to), true }
	p.undo(e, "moves for a moment", move, back)
}

// The state of a manifest is a bit for its presence, and two bits for each tag: 1 if
// it points at the manifest, 2 and 3 during a temporary move, to the manifest and
// away from it.
const present = modelState(1)

func tagBits(s modelState, tag int) modelState { return s >> (1 + 2*tag) & 3 }
func withTag(s modelState, tag int, b modelState) modelState {
	return s&^(3<<(1+2*tag)) | b<<(1+2*tag)
}

// pointsHere reports whether a tag points at the manifest.
func pointsHere(s modelState, tag int) bool { b := tagBits(s, tag); return b == 1 || b == 2 }

// manifestPartition is a manifest with the tags that point at it.
func manifestPartition(history []*event, r rules, repo string, m int) *partition {
	p := &partition{name: fmt.Sprintf("manifest m%d of %s", m, repo)}
	for _, e := range history {
		if e.repo != repo {
			continue
		}
		mine := e.manifest == m
		switch e.kind {
		case opPush:
			p.addPush(history, r, e, m)
		case opDeleteManifest:
			switch {
			case !mine:
			case e.status == 202 || e.unknown():
				p.add(e, "delete", func(s modelState) (modelState, bool) { return 0, s&present != 0 })
			case e.status == 404:
				p.add(e, "is absent", requireState(0))
			}
		case opGetManifest, opHeadManifest:
			switch {
			case mine && e.status == 200:
				p.add(e, "is present", func(s modelState) (modelState, bool) { return s, s&present != 0 })
			case mine && e.status == 404:
				p.add(e, "is absent", requireState(0))
			}
		case opGetTag, opHeadTag:
			t, here := slices.Index(simTags, e.tags[0]), e.found == m
			if e.status == 200 || e.status == 404 {
				p.add(e, fmt.Sprint(e.tags[0], " points here: ", here), func(s modelState) (modelState, bool) { return s, pointsHere(s, t) == here })
			}
		case opDeleteTag:
			t, match := slices.Index(simTags, e.tags[0]), e.match == m
			switch {
			case e.status == 202 || e.unknown():
				p.add(e, "untag "+e.tags[0], func(s modelState) (modelState, bool) {
					return withTag(s, t, 0), e.cond == "" || pointsHere(s, t) == match
				})
			case e.status == 404 || e.status == 412 && match:
				p.add(e, e.tags[0]+" points elsewhere", func(s modelState) (modelState, bool) { return s, !pointsHere(s, t) })
			}
		}
	}
	return p
}

// addPush adds the sub-operations of a push, of this manifest or another.
func (p *partition) addPush(history []*event, r rules, e *event, m int) {
	mine, accepted := e.manifest == m, e.status == 201 || e.unknown()
	put := func(s modelState) (modelState, bool) { return s | present, true }
	// allowed reports whether the tag may move, as far as is known here.
	allowed := func(s modelState, tag int) bool {
		switch {
		case e.cond == ifAbsent:
			return !pointsHere(s, tag)
		case e.cond == ifMatch:
			return pointsHere(s, tag) == (e.match == m)
		}
		return true
	}
	moved := func(s modelState, tag int) modelState {
		if mine {
			return withTag(s, tag, 1)
		}
		return withTag(s, tag, 0)
	}
	switch {
	case accepted && !r.steps:
		p.add(e, "push", func(s modelState) (modelState, bool) {
			for _, tag := range e.tags {
				t := slices.Index(simTags, tag)
				if !allowed(s, t) {
					return s, false
				}
				s = moved(s, t)
			}
			if mine {
				s |= present
			}
			return s, true
		})
	case accepted:
		if mine {
			p.add(e, "put", put)
			p.putAgain(history, e, r, put)
		}
		for _, tag := range e.tags {
			t := slices.Index(simTags, tag)
			if r.moment && e.several() && e.unknown() {
				p.addMoment(e, r, m, t, allowed)
			}
			p.add(e, "move "+tag, func(s modelState) (modelState, bool) {
				return moved(s, t), allowed(s, t) && (!mine || s&present != 0)
			})
		}
	case e.status == 412 && len(e.tags) == 1:
		t := slices.Index(simTags, e.tags[0])
		if e.cond == ifMatch && e.match == m {
			p.add(e, "rejected", func(s modelState) (modelState, bool) { return s, !pointsHere(s, t) })
		}
	case e.status == 412 && r.moment && e.mayHaveWritten():
		for _, tag := range e.tags {
			p.addMoment(e, r, m, slices.Index(simTags, tag), allowed)
		}
	}
	if e.status == 412 && mine && r.leavesManifest && len(e.tags) > 0 {
		p.maybe(e, "leaves the manifest", put)
		p.putAgain(history, e, r, put)
	}
	if len(e.tags) == 0 && mine && e.cond != "" && !e.unknown() {
		// The condition of a push by digest is checked before it, and applies to
		// the manifest.
		holds := e.status == 201
		p.add(e, fmt.Sprint("condition holds: ", holds), func(s modelState) (modelState, bool) {
			here := s&present != 0
			if e.cond == ifAbsent {
				return s, holds == !here
			}
			return s, holds == (here && e.match == m)
		})
	}
}

// addMoment adds exception (c) for a tag of a push. A second temporary move at the
// same time is not told from the first.
func (p *partition) addMoment(e *event, r rules, m, tag int, allowed func(modelState, int) bool) {
	to := modelState(0)
	switch {
	case e.manifest == m:
		to = 2
	case e.cond == ifMatch && e.match == m:
		to = 3
	default:
		return
	}
	back := modelState(0)
	if e.cond == ifMatch && e.match == m {
		back = 1
	}
	if to == 2 && back == 1 {
		return // from the manifest to itself
	}
	p.undo(e, "moves for a moment", func(s modelState) (modelState, bool) {
		return withTag(s, tag, to), allowed(s, tag) && (to == 3 || s&present != 0)
	}, func(s modelState) (modelState, bool) {
		if tagBits(s, tag) == to {
			return withTag(s, tag, back), back == 0 || s&present != 0
		}
		return s, true
	})
}

// putAgain adds exception (b): a push may put its manifest again after each delete that
// overlaps it.
func (p *partition) putAgain(history []*event, push *event, r rules, put func(modelState) (modelState, bool)) {
	if !r.secondPut {
		return
	}
	for _, e := range history {
		if e.kind == opDeleteManifest && e.repo == push.repo && e.manifest == push.manifest && e.status != 404 &&
			(push.unknown() || e.start < push.end) && (e.unknown() || e.end > push.start) {
			p.maybe(push, "put again", put)
		}
	}
}

// blobPartition is the register of a blob in a repository: 0 or present.
func blobPartition(history []*event, repo string, b int) *partition {
	p := &partition{name: fmt.Sprintf("blob b%d of %s", b, repo)}
	isPresent, isAbsent := requireState(present), requireState(0)
	put := func(modelState) (modelState, bool) { return present, true }
	for _, e := range history {
		if e.blob != b {
			continue
		}
		switch e.kind {
		case opPushBlob, opUpload, opMount:
			switch {
			case e.kind == opMount && e.from == repo && e.repo != repo:
				if e.status == 201 {
					p.add(e, "is mounted", isPresent)
				} else if e.status == 202 {
					p.add(e, "can't be mounted", isAbsent)
				}
			case e.repo != repo:
			case e.status == 201:
				p.add(e, "put", put)
			case e.unknown() || e.again:
				p.maybe(e, "put", put)
			}
		case opDeleteBlob:
			switch {
			case e.repo != repo:
			case e.status == 202 || e.unknown():
				p.add(e, "delete", func(s modelState) (modelState, bool) { return 0, s == present })
			case e.status == 404:
				p.add(e, "is absent", isAbsent)
			}
		case opGetBlob, opHeadBlob:
			switch {
			case e.repo != repo:
			case e.status == 200:
				p.add(e, "is present", isPresent)
			case e.status == 404:
				p.add(e, "is absent", isAbsent)
			}
		}
	}
	return p
}
