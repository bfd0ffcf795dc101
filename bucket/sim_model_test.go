// SPDX-License-Identifier: Apache-2.0

// The model that the responses in a simulation are compared with: Porcupine
// searches for an order of sub-operations that explains them.
//
// Each part of a registry that has a state of its own is a partition: a tag, a
// manifest with the tags that point at it, and a blob of a repository. An event is
// one sub-operation or several in each partition that it touches, all of them
// between its request and its response. If its outcome is unknown, they are
// optional, and may happen until the end.
//
// The state of the model is the set of the states that a partition may be in, so
// that an optional sub-operation needs no search.

package bucket_test

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// modelState is a state of a partition.
type modelState uint8

// flaggedState is a state with flags. A set of them is a sorted string.
type flaggedState uint32

// step is a sub-operation: it returns the state that follows a state, and whether
// it is possible in that state.
type step func(modelState) (modelState, bool)

// subOperation is a step of an event.
type subOperation struct {
	event    *event
	text     string
	step     step
	optional bool
	// A sub-operation with opens sets a flag, in any case, and one with closes
	// requires that flag, and removes it: it comes later.
	opens, closes flaggedState
}

func (s *subOperation) apply(states string) string {
	var next []flaggedState
	for ; states != ""; states = states[4:] {
		state := flaggedState(states[0])<<24 | flaggedState(states[1])<<16 | flaggedState(states[2])<<8 | flaggedState(states[3])
		if state&s.closes != s.closes {
			continue
		}
		flags := state>>8<<8&^s.closes | s.opens
		value := modelState(state)
		if s.optional {
			next = append(next, flags|flaggedState(value))
		}
		if after, ok := s.step(value); ok {
			next = append(next, flags|flaggedState(after))
		}
	}
	slices.Sort(next)
	var all []byte
	for _, state := range slices.Compact(next) {
		all = append(all, byte(state>>24), byte(state>>16), byte(state>>8), byte(state))
	}
	return string(all)
}

// noState is the set of the initial state.
const noState = "\x00\x00\x00\x00"

// partition is a part of a registry whose responses must be linearizable.
type partition struct {
	name  string
	ops   []*subOperation
	flags int // in use
}

// add adds a sub-operation of an event, optional if the event's outcome is unknown.
func (p *partition) add(e *event, text string, s step) {
	p.ops = append(p.ops, &subOperation{event: e, text: text, step: s, optional: e.unknown()})
}

// maybe adds an optional sub-operation.
func (p *partition) maybe(e *event, text string, s step) {
	p.ops = append(p.ops, &subOperation{event: e, text: text, step: s, optional: true})
}

// undo adds an optional sub-operation, and one that undoes it later.
func (p *partition) undo(e *event, text string, s, back step) {
	var flag flaggedState
	if p.flags < 24 {
		flag = 1 << (8 + p.flags)
		p.flags++
	}
	p.ops = append(p.ops,
		&subOperation{event: e, text: text, step: s, optional: true, opens: flag},
		&subOperation{event: e, text: text + ", and back", step: back, optional: e.unknown(), closes: flag})
}

var simModel = porcupine.Model{
	Init: func() any { return noState },
	Step: func(state, input, _ any) (bool, any) {
		next := input.(*subOperation).apply(state.(string))
		return next != "", next
	},
	DescribeOperation: func(input, _ any) string {
		op := input.(*subOperation)
		return fmt.Sprintf("%s %s", op.event.name, op.text)
	},
}

// operations returns the operations for Porcupine. With tight bounds, an effect that
// is unknown can't come after the last call of its request to the bucket. With loose
// ones it can come at any time, for example because another request completes it.
func (p *partition) operations(tight bool) (ops []porcupine.Operation, unknown int) {
	for i, s := range p.ops {
		end := s.event.end
		if s.event.unknown() || s.event.again && s.optional {
			if tight {
				end = s.event.over()
			} else {
				end = infinity
				unknown++
			}
		}
		ops = append(ops, porcupine.Operation{ClientId: i, Input: s, Call: s.event.start, Return: end})
	}
	return ops, unknown
}

// check checks the partition: with tight bounds, which are found quickly, and if
// there is no order then with loose ones.
func (p *partition) check(res *result, limit time.Duration) {
	res.partitions++
	ops, _ := p.operations(true)
	verdict := porcupine.CheckOperationsTimeout(simModel, ops, limit)
	if verdict == porcupine.Ok {
		return
	}
	loose, unknown := p.operations(false)
	if unknown > 0 {
		if verdict = porcupine.CheckOperationsTimeout(simModel, loose, limit); verdict == porcupine.Ok {
			res.loose++
			return
		}
		ops = loose
	}
	if verdict == porcupine.Unknown {
		res.timeouts++
		return
	}
	v := violation{check: "linearizable", text: p.name + ": no order explains the responses\n" + explain(ops, limit)}
	for _, s := range p.ops {
		if len(v.events) == 0 || v.events[len(v.events)-1] != s.event {
			v.events = append(v.events, s.event)
		}
	}
	res.violations = append(res.violations, v)
}

// explain returns the longest order that explains some of the operations.
func explain(ops []porcupine.Operation, limit time.Duration) string {
	_, info := porcupine.CheckOperationsVerbose(simModel, ops, limit)
	var longest []porcupine.Operation
	for _, orders := range info.PartialLinearizationsOperations() {
		for _, o := range orders {
			if len(o) > len(longest) {
				longest = o
			}
		}
	}
	text, state, used := "", noState, make(map[*subOperation]bool)
	for i, o := range longest {
		s := o.Input.(*subOperation)
		used[s] = true
		state = s.apply(state)
		if i >= len(longest)-12 {
			text += fmt.Sprintf("  explained: %-30s %x  %s\n", s.text, state, s.event)
		}
	}
	n := 0
	for _, o := range ops {
		if s := o.Input.(*subOperation); !used[s] && n < 12 {
			n++
			text += fmt.Sprintf("  not explained: %-26s  %s\n", s.text, s.event)
		}
	}
	return text
}
