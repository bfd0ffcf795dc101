// SPDX-License-Identifier: Apache-2.0

// Package quota limits what repositories of a registry may hold, and tells what they
// do.
//
//	store, err := quota.New(ctx, inner,
//		quota.Limit{Bytes: 100 << 30},
//		quota.Limit{Repositories: []string{"team/*"}, Each: true, Bytes: 5 << 30, Manifests: 1000},
//	)
//
// A blob counts once in each repository that has it, a manifest likewise. A push that
// would exceed a limit is rejected with 403 DENIED, and a message with the numbers:
// before its bytes come, if it announces their number or no byte is left, and otherwise
// when they exceed the limit. Uploads in progress count while a request writes to them,
// and their whole size once more before they become blobs. So no limit is ever
// exceeded.
//
// The counts are of one process: it counts the content when it starts, and then what
// it changes itself. If others change the same bucket, call [Store.Recount] now and
// then.
package quota

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/pattern"
)

// Limit limits some repositories.
type Limit struct {
	// Repositories are patterns for the names of repositories in the syntax of
	// path.Match: "*" matches a component of a name, or a part of one. A final
	// "/**" matches one or more components, and "**" alone every repository. The
	// limit applies to repositories that match one of them; to all without any.
	Repositories []string

	// Each applies the limit to each of the repositories, instead of to all of
	// them together.
	Each bool

	// Bytes is the maximum number of bytes in blobs and manifests, and Manifests
	// the maximum number of manifests; 0 means unlimited.
	Bytes, Manifests int64
}

// Check returns an error if the limit can't work.
func (l Limit) Check() error {
	if l.Bytes < 0 || l.Manifests < 0 {
		return errors.New("a negative number")
	}
	if l.Bytes == 0 && l.Manifests == 0 {
		return errors.New("it limits neither bytes nor manifests")
	}
	for _, p := range l.Repositories {
		if err := pattern.Check(p); err != nil {
			return fmt.Errorf("the pattern %q: %w", p, err)
		}
	}
	return nil
}

func (l Limit) matches(repo string) bool { return pattern.MatchAny(l.Repositories, repo) }

// Usage is what a repository, or several, have.
type Usage struct {
	Blobs     int64
	Manifests int64
	Bytes     int64 // in blobs and manifests
}

func (u Usage) plus(other Usage) Usage {
	return Usage{u.Blobs + other.Blobs, u.Manifests + other.Manifests, u.Bytes + other.Bytes}
}

func (u Usage) minus(other Usage) Usage {
	return Usage{u.Blobs - other.Blobs, u.Manifests - other.Manifests, u.Bytes - other.Bytes}
}

// Store is a registry.Store that counts and limits the content of another one.
type Store struct {
	registry.Store
	locks stripes

	mu       sync.Mutex // guards the fields below
	limits   []Limit
	repos    map[string]Usage
	reserved map[string]int64 // bytes of requests in progress, by repository
	totals   []Usage          // of the repositories that each limit matches
	pending  []int64          // bytes reserved there
	total    Usage
}

// New returns a store that counts the content of s, which must not be changed in other
// ways, and that enforces limits. It lists all content of s, whose requests take part
// in ctx.
//
// Errors: those of s, and of invalid limits.
func New(ctx context.Context, s registry.Store, limits ...Limit) (*Store, error) {
	q := &Store{Store: s, reserved: make(map[string]int64)}
	if err := q.SetLimits(limits...); err != nil {
		return nil, err
	}
	return q, q.Recount(ctx)
}

// SetLimits replaces the limits. What exceeds a new limit stays. Errors: those of
// invalid limits, which change nothing.
func (s *Store) SetLimits(limits ...Limit) error {
	for i, l := range limits {
		if err := l.Check(); err != nil {
			return fmt.Errorf("quota: limit %d: %w", i, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits, s.totals, s.pending = slices.Clone(limits), make([]Usage, len(limits)), make([]int64, len(limits))
	for i, l := range s.limits {
		for repo, u := range s.repos {
			if l.matches(repo) {
				s.totals[i] = s.totals[i].plus(u)
			}
		}
		for repo, n := range s.reserved {
			if l.matches(repo) {
				s.pending[i] += n
			}
		}
	}
	return nil
}

// Unwrap returns the store whose content is counted.
func (s *Store) Unwrap() registry.Store { return s.Store }

// Recount counts all content again. What is changed meanwhile may be counted wrongly
// until the next Recount.
func (s *Store) Recount(ctx context.Context) error {
	repos := make(map[string]Usage)
	for repo, err := range s.Store.Repositories(ctx, "") {
		if err != nil {
			return err
		}
		u, err := s.measure(ctx, repo)
		if err != nil && !errors.Is(err, registry.ErrNameUnknown) { // deleted meanwhile
			return err
		}
		repos[repo] = u
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos, s.total, s.totals = make(map[string]Usage), Usage{}, make([]Usage, len(s.limits))
	for repo, u := range repos {
		s.change(repo, u)
	}
	return nil
}

func (s *Store) measure(ctx context.Context, repo string) (u Usage, err error) {
	for info, err := range s.Store.Blobs(ctx, repo, "") {
		if err != nil {
			return u, err
		}
		u = u.plus(Usage{Blobs: 1, Bytes: info.Size})
	}
	for info, err := range s.Store.Manifests(ctx, repo, "") {
		if err != nil {
			return u, err
		}
		u = u.plus(Usage{Manifests: 1, Bytes: info.Size})
	}
	return u, nil
}

// change adds to the usage of a repository. It must be called with mu held.
func (s *Store) change(repo string, more Usage) {
	u := s.repos[repo].plus(more)
	if u == (Usage{}) {
		delete(s.repos, repo)
	} else {
		s.repos[repo] = u
	}
	s.total = s.total.plus(more)
	for i, l := range s.limits {
		if l.matches(repo) {
			s.totals[i] = s.totals[i].plus(more)
		}
	}
}

// Usage returns what a repository has.
func (s *Store) Usage(repo string) Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[repo]
}

// Total returns what all repositories have together: blobs in several of them count in
// each.
func (s *Store) Total() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// All yields what each repository has, by name.
func (s *Store) All() iter.Seq2[string, Usage] {
	return func(yield func(string, Usage) bool) {
		s.mu.Lock()
		repos := maps.Clone(s.repos)
		s.mu.Unlock()
		for _, repo := range slices.Sorted(maps.Keys(repos)) {
			if !yield(repo, repos[repo]) {
				return
			}
		}
	}
}

// allow returns an error if a repository may not have more. It must be called with mu
// held.
func (s *Store) allow(repo string, more Usage) error {
	for i, l := range s.limits {
		if !l.matches(repo) {
			continue
		}
		u, pending, which := s.totals[i], s.pending[i], "all repositories together"
		if len(l.Repositories) > 0 {
			which = "repositories " + strings.Join(l.Repositories, ", ")
		}
		if l.Each {
			u, pending, which = s.repos[repo], s.reserved[repo], "repository "+repo
		}
		if l.Bytes > 0 && more.Bytes > 0 && u.Bytes+pending+more.Bytes > l.Bytes {
			return fmt.Errorf("%w: quota exceeded: %s may have %d bytes, with this push there would be %d", registry.ErrDenied, which, l.Bytes, u.Bytes+pending+more.Bytes)
		}
		if l.Manifests > 0 && more.Manifests > 0 && u.Manifests+more.Manifests > l.Manifests {
			return fmt.Errorf("%w: quota exceeded: %s may have %d manifests, with this push there would be %d", registry.ErrDenied, which, l.Manifests, u.Manifests+more.Manifests)
		}
	}
	return nil
}

// add counts content that is about to be stored, unless that would exceed a limit. The
// caller may have reserved bytes for it, which it gives up.
func (s *Store) add(repo string, more Usage, reserved int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserveMore(repo, -reserved)
	if err := s.allow(repo, more); err != nil {
		s.reserveMore(repo, reserved)
		return err
	}
	s.change(repo, more)
	return nil
}

// remove stops counting content.
func (s *Store) remove(repo string, less Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change(repo, Usage{}.minus(less))
}

// reserve reserves bytes for a request in progress, unless that would exceed a limit;
// a negative number releases them.
func (s *Store) reserve(repo string, bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.allow(repo, Usage{Bytes: bytes}); err != nil {
		return err
	}
	s.reserveMore(repo, bytes)
	return nil
}

// reserveMore must be called with mu held.
func (s *Store) reserveMore(repo string, bytes int64) {
	if bytes == 0 {
		return
	}
	if s.reserved[repo] += bytes; s.reserved[repo] == 0 {
		delete(s.reserved, repo)
	}
	for i, l := range s.limits {
		if l.matches(repo) {
			s.pending[i] += bytes
		}
	}
}
