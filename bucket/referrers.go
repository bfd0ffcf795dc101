// SPDX-License-Identifier: Apache-2.0

// Referrers: an empty object for each, in the list of its subject.

package bucket

import (
	"context"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// referrerEntry is an entry in the list of a subject: it names an incarnation of a
// manifest. The entry is written before the manifest is, and removed after the
// manifest was deleted, so it is true only if that incarnation exists.
type referrerEntry struct {
	digest      digest.Digest
	incarnation string
}

// parseReferrerEntry is the inverse of referrerKey, without the prefix.
func parseReferrerEntry(name string) (e referrerEntry, ok bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return e, false
	}
	return referrerEntry{parseDigestPath(name[:i]), name[i+1:]}, true
}

// removeReferrer removes m, which was deleted, from the referrers of its subject.
func (s *Store) removeReferrer(ctx context.Context, repo string, m manifest) error {
	if m.Subject == "" {
		return nil
	}
	return s.remove(ctx, referrerKey(repo, m.Subject, m.digest, m.Incarnation))
}

// Referrers yields the manifests in repo whose subject is the given digest. Their
// descriptors come from the subject's packs or, for those that are in none, from the
// manifests.
func (s *Store) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		l := &referrerList{store: s, repo: repo, subject: subject}
		defer l.repack(ctx)
		var batch []referrerEntry
		var last digest.Digest
		pageSize := firstPageSize
		// flush yields the batch, and reports whether to continue.
		flush := func() bool {
			referrers, err := l.read(ctx, batch)
			if err != nil {
				yield(registry.Referrer{}, err)
				return false
			}
			for _, r := range referrers {
				if r.Descriptor == nil || r.Digest == last {
					continue // or it was deleted and pushed again between the reads of two entries
				}
				last = r.Digest
				if !yield(r, nil) {
					return false
				}
			}
			batch, pageSize = batch[:0], nextPageSize
			return true
		}
		for o, err := range s.list(ctx, referrersPrefix(repo, subject), keyPart(digestPath(after)), firstPageSize) {
			if err != nil {
				yield(registry.Referrer{}, err)
				return
			}
			if e, ok := parseReferrerEntry(o.name); ok && e.digest > after {
				batch = append(batch, e)
			}
			if len(batch) == pageSize && !flush() {
				return
			}
		}
		flush()
	}
}
