// SPDX-License-Identifier: Apache-2.0

// The catalog of repositories.

package bucket

import (
	"context"
	"iter"
	"strings"
	"sync"

	"github.com/berth-oci/registry"
)

// Repositories yields the names of the repositories after a name.
func (s *Store) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for o, err := range s.list(ctx, namesPrefix, flattenName.Replace(keyPart(after)), firstPageSize) {
			name := unflattenName.Replace(o.name)
			if err == nil && (name <= after || isDeletedSize(o.size)) {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// checkRepo returns ErrNameUnknown if a repository does not exist.
func (s *Store) checkRepo(ctx context.Context, repo string) error {
	o, err := s.stat(ctx, nameKey(repo))
	if err == errNotFound || err == nil && isDeletedSize(o.Size) {
		return registry.ErrNameUnknown
	}
	return err
}

// unknownError returns the error for content that a repository lacks:
// ErrNameUnknown if the repository does not exist, and otherwise contentErr.
func (s *Store) unknownError(ctx context.Context, repo string, contentErr error) error {
	if err := s.checkRepo(ctx, repo); err != nil {
		return err
	}
	return contentErr
}

// orNameUnknown yields seq or, if it is empty because the repository does not
// exist, ErrNameUnknown. Only an empty list costs a call to find out.
func orNameUnknown[T any](ctx context.Context, s *Store, repo string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		empty := true
		for v, err := range seq {
			if !yield(v, err) || err != nil {
				return
			}
			empty = false
		}
		if !empty {
			return
		}
		if err := s.checkRepo(ctx, repo); err != nil {
			var zero T
			yield(zero, err)
		}
	}
}

// The values of a name's register. A name that leaves the catalog is still in it,
// unless a push brings it back or removeRepo goes on.
const (
	nameStays  = "stays"
	nameLeaves = "leaves"
)

// addRepo adds a repository to the catalog, unless it was there a moment ago. A push
// calls it before it writes content, and confirmRepo afterwards.
func (s *Store) addRepo(ctx context.Context, repo string) error {
	if s.names.contains(repo) {
		return nil
	}
	var v value
	for attempt := range maxAttempts {
		backOff(attempt)
		if string(v.data) == nameStays {
			break
		}
		now, ok, err := s.replace(ctx, nameKey(repo), v, newID(), []byte(nameStays))
		if err != nil {
			return err
		}
		if ok {
			break
		}
		v = now
	}
	s.names.add(repo)
	return nil // confirmRepo tries again
}

// confirmRepo makes sure that a repository is in the catalog. It must be called after
// content was added to the repository, and before that is acknowledged.
//
// A push writes content and then looks at the name; removeRepo says that the name
// leaves, and then looks for content. So at least one of the two sees the other: the
// push makes the name stay, or removeRepo leaves it there. If the name was removed
// nevertheless, the content may be gone too, and then nobody else would remove it.
func (s *Store) confirmRepo(ctx context.Context, repo string) error {
	for attempt := range maxAttempts {
		backOff(attempt)
		v, err := s.read(ctx, nameKey(repo))
		if err != nil && err != errMalformed {
			return err
		}
		if string(v.data) == nameStays {
			if attempt == 0 {
				return nil
			}
			return s.removeRepo(ctx, repo)
		}
		if _, _, err := s.replace(ctx, nameKey(repo), v, newID(), []byte(nameStays)); err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// removeRepo removes a repository from the catalog unless it has content: see
// addRepo.
func (s *Store) removeRepo(ctx context.Context, repo string) error {
	for attempt := range maxAttempts {
		backOff(attempt)
		if hasContent, err := s.hasContent(ctx, repo); hasContent || err != nil {
			return err
		}
		v, err := s.read(ctx, nameKey(repo))
		if err != errMalformed && (err != nil || !v.exists()) {
			return err
		}
		ok := true
		if string(v.data) != nameLeaves {
			v, ok, err = s.replace(ctx, nameKey(repo), v, newID(), []byte(nameLeaves))
		}
		if err != nil {
			return err
		}
		if !ok {
			continue // a push, whose content may be gone already
		}
		if hasContent, err := s.hasContent(ctx, repo); hasContent || err != nil {
			return err
		}
		if _, ok, err = s.replace(ctx, nameKey(repo), v, newID(), nil); ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// hasContent reports whether a repository has a blob or a manifest, whose keys
// sort before all others of the repository.
func (s *Store) hasContent(ctx context.Context, repo string) (bool, error) {
	for o, err := range s.list(ctx, contentPrefix(repo), "", 8) {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(o.name, "blobs/") && !strings.HasPrefix(o.name, "manifests/") {
			break
		}
		if !isDeletedSize(o.size) {
			return true, nil
		}
	}
	return false, nil
}

// maxNames bounds the memory of a nameSet.
const maxNames = 10_000

// nameSet is a set of repositories that existed a moment ago: a guess, which saves
// a call if it is right and costs one if it is not.
type nameSet struct {
	mu    sync.Mutex
	names map[string]bool
}

func (n *nameSet) contains(repo string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.names[repo]
}

func (n *nameSet) add(repo string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names == nil || len(n.names) >= maxNames {
		n.names = make(map[string]bool)
	}
	n.names[repo] = true
}
