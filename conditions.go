// SPDX-License-Identifier: Apache-2.0

// Conditional requests: RFC 9110 section 13. The entity tag of content is its
// digest in quotes, a strong one.

package registry

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// conditions are the If-Match and If-None-Match of a request.
type conditions struct {
	match, none *entityTags // nil without the header
}

// entityTags is "*" or a list of entity tags.
type entityTags struct {
	any  bool
	tags []entityTag
}

type entityTag struct {
	weak  bool
	value string
}

// parseConditions returns the conditions of r, nil if it has none.
func parseConditions(r *http.Request) (*conditions, error) {
	match, none := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	if match == nil && none == nil {
		return nil, nil
	}
	var c conditions
	var ok1, ok2 bool
	c.match, ok1 = parseEntityTags(match)
	c.none, ok2 = parseEntityTags(none)
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: malformed or overlong If-Match or If-None-Match", ErrUnsupported)
	}
	return &c, nil
}

// maxEntityTags is the maximum number of entity tags in a condition, which is
// evaluated for each tag of a push.
const maxEntityTags = 100

// parseEntityTags parses the values of a header as of RFC 9110 section 8.8.3: a
// list separated by commas, which may also stand inside a tag's quotes. It
// returns nil for no values.
func parseEntityTags(values []string) (*entityTags, bool) {
	if values == nil {
		return nil, true
	}
	list := new(entityTags)
	s := strings.Join(values, ",")
	if strings.Trim(s, " \t") == "*" { // alone, never in a list
		list.any = true
		return list, true
	}
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return list, true
		}
		opaque, weak := strings.CutPrefix(s, "W/")
		quoted, ok := strings.CutPrefix(opaque, `"`)
		value, rest, closed := strings.Cut(quoted, `"`)
		if !ok || !closed || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, false
		}
		if len(list.tags) == maxEntityTags {
			return nil, false
		}
		list.tags = append(list.tags, entityTag{weak, value})
		if s = strings.TrimLeft(rest, " \t"); s != "" && s[0] != ',' {
			return nil, false
		}
	}
}

// matches reports whether If-Match, if any, holds for content with the digest
// current, "" for no content. It compares strongly: a weak tag matches nothing
// (section 13.1.1).
func (c *conditions) matches(current digest.Digest) bool {
	return c.match == nil || current != "" && (c.match.any || slices.Contains(c.match.tags, entityTag{false, string(current)}))
}

// noneMatch reports whether If-None-Match, if any, holds. It compares weakly
// (section 13.1.2).
func (c *conditions) noneMatch(current digest.Digest) bool {
	return c.none == nil || current == "" || !c.none.any && !slices.ContainsFunc(c.none.tags, func(t entityTag) bool { return t.value == string(current) })
}

// check returns an error if the conditions forbid a request to change the
// content with the digest current.
func (c *conditions) check(current digest.Digest) error {
	if c.matches(current) && c.noneMatch(current) {
		return nil
	}
	return errPrecondition
}
