// SPDX-License-Identifier: Apache-2.0

package tree

import "iter"

// A Set is an immutable ordered set of strings, none of which is empty. Its zero value is
// empty. A set of one string, as most are, allocates nothing.
type Set struct {
	only string        // "" unless it is the only one
	many Map[struct{}] // all, if there are several
}

// Len returns the number of strings.
func (s Set) Len() int {
	if s.only != "" {
		return 1
	}
	return s.many.Len()
}

// With returns a set that also has a string.
func (s Set) With(key string) Set {
	switch {
	case s.Len() == 0 || s.only == key:
		return Set{only: key}
	case s.only != "":
		s.many = s.many.With(s.only, struct{}{})
	}
	return Set{many: s.many.With(key, struct{}{})}
}

// Without returns a set without a string.
func (s Set) Without(key string) Set {
	switch s.only {
	case "":
	case key:
		return Set{}
	default:
		return s
	}
	s.many = s.many.Without(key)
	if s.many.Len() == 1 {
		for only := range s.many.After("") {
			return Set{only: only}
		}
	}
	return s
}

// All iterates over the strings in order.
func (s Set) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		if s.only != "" {
			yield(s.only)
			return
		}
		for key := range s.many.After("") {
			if !yield(key) {
				return
			}
		}
	}
}
