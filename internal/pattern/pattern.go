// SPDX-License-Identifier: Apache-2.0

// Package pattern matches the names of repositories.
package pattern

import (
	"path"
	"slices"
	"strings"
)

// Match reports whether a name matches a pattern in the syntax of path.Match: "*"
// matches a component of a name, or a part of one. A final "/**" matches one or more
// components, and "**" alone every name. A malformed pattern matches nothing.
func Match(pattern, name string) bool {
	if pattern == "**" {
		return true
	}
	if parent, ok := strings.CutSuffix(pattern, "/**"); ok {
		components := strings.Count(parent, "/") + 1
		rest := strings.Split(name, "/")
		if len(rest) <= components {
			return false
		}
		pattern, name = parent, strings.Join(rest[:components], "/")
	}
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// MatchAny reports whether a name matches one of the patterns, or there are none.
func MatchAny(patterns []string, name string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return Match(p, name) })
}

// Check returns an error if a pattern is malformed.
func Check(pattern string) error {
	_, err := path.Match(strings.TrimSuffix(pattern, "/**"), "")
	return err
}
