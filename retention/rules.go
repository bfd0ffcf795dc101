// SPDX-License-Identifier: Apache-2.0

// Rules, which say what to keep.

package retention

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/pattern"
)

// Rule says which tags or manifests of some repositories to keep. For each of them,
// the first rule that matches decides alone: either it keeps it, or it is deleted. A
// tag that no rule matches is kept; a manifest that no rule matches is garbage unless
// a tag leads to it.
type Rule struct {
	// Name is the rule's name in decisions.
	Name string

	// Repositories are patterns for the names of repositories in the syntax of
	// path.Match: "*" matches a component of a name, or a part of one. A final
	// "/**" matches one or more components, and "**" alone every repository. The
	// rule applies to repositories that match one of them; to all without any.
	Repositories []string

	// Tags are patterns for tags in the syntax of path.Match. The rule applies to
	// tags that match one of them. Without any, it applies to all tags, unless
	// Untagged or Dangling is set.
	Tags []string

	// Untagged makes the rule apply to manifests that no tag leads to, instead of
	// tags.
	Untagged bool

	// Dangling makes the rule apply to manifests that no tag leads to and whose
	// subject does not exist, instead of tags.
	Dangling bool

	// Keep says which of those are kept.
	Keep Keep
}

// Keep is the condition of a rule: content is kept if one of its fields says so. The
// zero value keeps nothing.
type Keep struct {
	// All keeps everything.
	All bool

	// Newest keeps the newest tags of the repository that the rule applies to, or
	// manifests: this many. A tag is as old as the latest push, or other use, of
	// its manifest: see [registry.Collector].
	Newest int

	// Within keeps what was pushed, or otherwise used, within this time.
	Within time.Duration

	// PulledWithin keeps what was pulled within this time, as far as Options.Pulled
	// tells.
	PulledWithin time.Duration
}

// Check returns an error if the rule can't work.
func (r Rule) Check() error {
	if r.Dangling && r.Untagged || len(r.Tags) > 0 && (r.Dangling || r.Untagged) {
		return errors.New("the fields Tags, Untagged and Dangling exclude each other")
	}
	if r.Keep.Newest < 0 || r.Keep.Within < 0 || r.Keep.PulledWithin < 0 {
		return errors.New("a negative number")
	}
	for _, p := range r.Repositories {
		if err := pattern.Check(p); err != nil {
			return fmt.Errorf("the pattern %q of a repository: %w", p, err)
		}
	}
	for _, p := range r.Tags {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("the pattern %q of a tag: %w", p, err)
		}
	}
	return nil
}

func (r Rule) isForTags() bool { return !r.Untagged && !r.Dangling }

func (r Rule) matchesRepo(name string) bool { return pattern.MatchAny(r.Repositories, name) }

func (r Rule) matchesTag(tag string) bool {
	return len(r.Tags) == 0 || slices.ContainsFunc(r.Tags, func(p string) bool {
		ok, err := path.Match(p, tag)
		return ok && err == nil
	})
}

// thing is a tag or a manifest that rules decide on.
type thing struct {
	tag      string // "" for a manifest
	digest   digest.Digest
	time     time.Time
	dangling bool

	rule *Rule // that decides, nil if none matches
	keep bool
}

// matches reports whether the rule, which matches the repository, applies to t.
func (r Rule) matches(t *thing) bool {
	switch {
	case t.tag != "":
		return r.isForTags() && r.matchesTag(t.tag)
	case r.Dangling:
		return t.dangling
	}
	return r.Untagged
}

// decide applies rules to the tags, or the manifests, of a repository. It sets rule,
// and keep if a rule was found.
func decide(rules []*Rule, things []*thing, now time.Time, pulled func(digest.Digest) time.Time) {
	byRule := make(map[*Rule][]*thing)
	for _, t := range things {
		i := slices.IndexFunc(rules, func(r *Rule) bool { return r.matches(t) })
		if i < 0 {
			continue
		}
		t.rule = rules[i]
		byRule[t.rule] = append(byRule[t.rule], t)
	}
	for rule, matched := range byRule {
		slices.SortFunc(matched, func(a, b *thing) int { // the newest first
			return cmp.Or(b.time.Compare(a.time), cmp.Compare(b.tag, a.tag), cmp.Compare(b.digest, a.digest))
		})
		k := rule.Keep
		for i, t := range matched {
			t.keep = k.All || i < k.Newest ||
				k.Within > 0 && now.Sub(t.time) <= k.Within ||
				k.PulledWithin > 0 && pulled != nil && now.Sub(pulled(t.digest)) <= k.PulledWithin
		}
	}
}
