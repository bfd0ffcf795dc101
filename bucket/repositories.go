// SPDX-License-Identifier: Apache-2.0

// The catalog of repositories.

package bucket

import (
	"context"
	"iter"
	"strings"

	"github.com/berth-oci/registry"
)

// Repositories yields the names of the repositories after a name.
func (s *Store) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for o, err := range s.list(ctx, namesPrefix, flattenName.Replace(keyPart(after)), firstPageSize) {
			name := unflattenName.Replace(o.name)
			if err == nil && name <= after {
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
	exists, err := s.exists(ctx, nameKey(repo))
	if err == nil && !exists {
		err = registry.ErrNameUnknown
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

// addRepo adds a repository to the catalog. It must be called after content was
// added to the repository: see removeRepo.
func (s *Store) addRepo(ctx context.Context, repo string) error {
	_, err := s.create(ctx, nameKey(repo), nil)
	return err
}

// removeRepo removes a repository from the catalog unless it has content. A push
// writes content and then the name; removeRepo deletes the name and then looks
// for content. So at least one of the two sees the other.
func (s *Store) removeRepo(ctx context.Context, repo string) error {
	hasContent, err := s.hasContent(ctx, repo)
	if hasContent || err != nil {
		return err
	}
	if err := s.removeIfExists(ctx, nameKey(repo)); err != nil {
		return err
	}
	if hasContent, err = s.hasContent(ctx, repo); hasContent {
		err = s.addRepo(ctx, repo)
	}
	return err
}

// hasContent reports whether a repository has a blob or a manifest, whose keys
// sort before all others of the repository.
func (s *Store) hasContent(ctx context.Context, repo string) (bool, error) {
	for o, err := range s.list(ctx, contentPrefix(repo), "", 1) {
		return strings.HasPrefix(o.name, "blobs/") || strings.HasPrefix(o.name, "manifests/"), err
	}
	return false, nil
}
