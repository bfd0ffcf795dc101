// SPDX-License-Identifier: Apache-2.0

// Which repositories there are.

package bucket

import (
	"context"
	"iter"
	"strings"

	"github.com/berth-oci/registry"
)

// Repositories yields the repositories' names after a name.
func (s *Store) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for o, err := range s.list(ctx, namesPrefix, flatten.Replace(plain(after)), firstPage) {
			name := unflatten.Replace(o.name)
			if err == nil && name <= after {
				continue
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}

// unknown returns the error for what a repository lacks: that there is no such
// repository, or otherwise err.
func (s *Store) unknown(ctx context.Context, repo string, err error) error {
	known, failed := s.exists(ctx, nameKey(repo))
	switch {
	case failed != nil:
		return failed
	case !known:
		return registry.ErrNameUnknown
	}
	return err
}

// enter puts a repository in the catalog. It must be called after something
// was put in the repository: see leave.
func (s *Store) enter(ctx context.Context, repo string) error {
	_, err := s.create(ctx, nameKey(repo), nil)
	return err
}

// leave takes a repository off the catalog if nothing is left in it. Who puts
// something there writes content, and then the name; here the name goes, and
// then we look for content. So one of the two sees the other.
func (s *Store) leave(ctx context.Context, repo string) error {
	holds, err := s.holds(ctx, repo)
	if holds || err != nil {
		return err
	}
	if err := s.remove(ctx, nameKey(repo)); err != nil && err != errMissing {
		return err
	}
	if holds, err = s.holds(ctx, repo); holds {
		err = s.enter(ctx, repo)
	}
	return err
}

// holds reports whether there is a blob or a manifest in a repository: their
// keys sort before all others of it.
func (s *Store) holds(ctx context.Context, repo string) (bool, error) {
	for o, err := range s.list(ctx, contentPrefix(repo), "", 1) {
		return strings.HasPrefix(o.name, "blobs/") || strings.HasPrefix(o.name, "manifests/"), err
	}
	return false, nil
}
