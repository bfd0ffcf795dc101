// SPDX-License-Identifier: Apache-2.0

// The rules that say which users may do what.

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/internal/pattern"
)

// rules is the content of a rules file. Without a rule that allows it, nothing is
// allowed.
type rules struct {
	// Groups are the members of groups.
	Groups map[string][]string `yaml:"groups"`
	Rules  []rule              `yaml:"rules"`
}

// rule allows users actions in repositories.
type rule struct {
	// Users are names of users, "@" and the name of a group, "anonymous", or "*" for
	// everyone, with or without a password.
	Users []string `yaml:"users"`
	// Repositories are patterns as in auth.Rule.
	Repositories []string `yaml:"repositories"`
	// Actions are pull, push, create, delete, catalog, or "*" for all.
	Actions []string `yaml:"actions"`
	// ImmutableTags are patterns of path.Match for tags that the rule does not allow
	// to move or delete.
	ImmutableTags []string `yaml:"immutable-tags"`
}

const (
	anonymous = "anonymous" // in a rule, clients without credentials
	everyone  = "*"
)

// actions are the actions that a rule can allow.
var actions = []string{string(auth.Pull), string(auth.Push), string(auth.Create), string(auth.Delete), string(auth.Catalog), "*"}

// readRules reads a rules file.
func readRules(name string) (*rules, error) {
	f := configFile{name: name}
	root, err := f.read()
	if err != nil {
		return nil, err
	}
	if root == nil {
		return nil, fmt.Errorf("%s: it has no rules", name)
	}
	r := new(rules)
	if err := f.decode(root, "", r); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (r *rules) check() error {
	if len(r.Rules) == 0 {
		return errors.New("it has no rules")
	}
	for _, group := range slices.Sorted(maps.Keys(r.Groups)) {
		for _, name := range r.Groups[group] {
			if name == "" {
				return fmt.Errorf("the group %q: it has an empty name of a user", group)
			}
			if err := checkUserName(name); err != nil {
				return fmt.Errorf("the group %q: %w", group, err)
			}
		}
	}
	for i, rule := range r.Rules {
		if err := r.checkRule(rule); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return nil
}

func (r *rules) checkRule(one rule) error {
	if len(one.Users) == 0 || len(one.Actions) == 0 {
		return errors.New("it requires users and actions")
	}
	onlyCatalog := slices.Equal(one.Actions, []string{string(auth.Catalog)})
	for _, user := range one.Users {
		if user == "" {
			return errors.New("it has an empty name of a user: use anonymous")
		}
		if group, ok := strings.CutPrefix(user, "@"); ok && r.Groups[group] == nil {
			return fmt.Errorf("there is no group %q", group)
		}
	}
	for _, action := range one.Actions {
		if !slices.Contains(actions, action) {
			return fmt.Errorf("unknown action %q: use %s", action, strings.Join(actions, ", "))
		}
	}
	switch {
	case len(one.Repositories) == 0 && !onlyCatalog:
		return errors.New(`it requires repositories: "**" is all of them`)
	case len(one.Repositories) > 0 && onlyCatalog:
		return errors.New("repositories has no effect on catalog, which lists all of them")
	case len(one.ImmutableTags) > 0 && !one.has(auth.Push) && !one.has(auth.Delete):
		return errors.New("immutable-tags has no effect without push or delete")
	}
	for _, p := range one.Repositories {
		if err := pattern.Check(p); err != nil {
			return fmt.Errorf("the pattern %q of repositories: %w", p, err)
		}
	}
	for _, p := range one.ImmutableTags {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("the pattern %q of tags: %w", p, err)
		}
	}
	return nil
}

// applies reports whether the rule is for the user, whose certificate may name further
// groups.
func (r *rules) applies(one rule, user string, groups []string) bool {
	return slices.ContainsFunc(one.Users, func(name string) bool {
		group, isGroup := strings.CutPrefix(name, "@")
		switch {
		case name == everyone, user != "" && name == user && !isGroup, user == "" && name == anonymous:
			return true
		}
		return isGroup && user != "" && (slices.Contains(r.Groups[group], user) || slices.Contains(groups, group))
	})
}

// allow is an [auth.Policy]. A request is allowed if one of the rules allows it.
func (r *rules) allow(ctx context.Context, user string, action auth.Action, req registry.Request) error {
	err := error(registry.ErrDenied)
	for _, one := range r.Rules {
		if !r.applies(one, user, groupsOf(ctx)) || action != auth.Catalog && !one.matches(req.Repo) {
			continue
		}
		switch one.decide(action, req) {
		case nil:
			return nil
		case auth.ErrCreateOnly:
			err = auth.ErrCreateOnly
		}
	}
	return err
}

func (one rule) matches(repo string) bool {
	return slices.ContainsFunc(one.Repositories, func(p string) bool { return pattern.Match(p, repo) })
}

// has reports whether the rule names an action. All actions are those in its repositories;
// the catalog has all repositories.
func (one rule) has(action auth.Action) bool {
	all := slices.Contains(one.Actions, "*") && (action != auth.Catalog || slices.Contains(one.Repositories, "**"))
	return all || slices.Contains(one.Actions, string(action))
}

// decide returns nil, auth.ErrCreateOnly or registry.ErrDenied for an action in a
// repository that the rule matches.
func (one rule) decide(action auth.Action, req registry.Request) error {
	switch {
	case action == auth.Delete && one.has(action) && len(one.ImmutableTags) > 0:
		// A delete by digest deletes the manifest's tags, too, and a blob may be one
		// of an image that they lead to.
		if req.Op == registry.OpManifestDelete && (req.Tag == "" || one.isImmutable(req.Tag)) || req.Op == registry.OpBlobDelete {
			return registry.ErrDenied
		}
		return nil
	case action == auth.Push && one.has(action):
		if one.isImmutable(req.Tag) || slices.ContainsFunc(req.Tags, one.isImmutable) {
			return auth.ErrCreateOnly
		}
		return nil
	case one.has(action):
		return nil
	case action == auth.Push && one.has(auth.Create):
		return auth.ErrCreateOnly
	}
	return registry.ErrDenied
}

func (one rule) isImmutable(tag string) bool {
	return tag != "" && slices.ContainsFunc(one.ImmutableTags, func(p string) bool {
		ok, _ := path.Match(p, tag)
		return ok
	})
}
