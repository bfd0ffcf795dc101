// SPDX-License-Identifier: Apache-2.0

// Referrers: an object for each, in the list of its subject.

package bucket

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// referrerEntry is an object in a list of referrers.
type referrerEntry struct {
	ArtifactType string `json:"artifactType,omitempty"`
	Descriptor   []byte `json:"descriptor"`
}

func referrerKey(repo string, m registry.Manifest) string {
	return referrersPrefix(repo, m.Subject) + digestPath(m.Digest)
}

// addReferrer adds m to the referrers of its subject, if it has one.
func (s *Store) addReferrer(ctx context.Context, repo string, m registry.Manifest) error {
	if m.Subject == "" {
		return nil
	}
	b, err := marshal(referrerEntry{m.Referrer.ArtifactType, m.Referrer.Descriptor})
	if err != nil {
		return err
	}
	return s.put(ctx, referrerKey(repo, m), b)
}

// removeReferrer removes m, which was deleted, from the referrers of its subject.
// Then it checks whether m was pushed again meanwhile, perhaps with another media
// type: that push may have added m before removeReferrer removed it.
func (s *Store) removeReferrer(ctx context.Context, repo string, m registry.Manifest) error {
	if m.Subject == "" {
		return nil
	}
	if err := s.removeIfExists(ctx, referrerKey(repo, m)); err != nil {
		return err
	}
	again, err := s.readManifest(ctx, repo, m.Digest)
	if err == errNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return s.addReferrer(ctx, repo, again)
}

// Referrers yields the manifests in repo whose subject is the given digest.
func (s *Store) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	prefix := referrersPrefix(repo, subject)
	return listDigests(ctx, s, prefix, after, func(ctx context.Context, d digest.Digest) (registry.Referrer, error) {
		c, err := s.get(ctx, prefix+digestPath(d))
		if err != nil {
			return registry.Referrer{}, err
		}
		var e referrerEntry
		if err := json.Unmarshal(c.data, &e); err != nil {
			return registry.Referrer{}, fmt.Errorf("bucket: malformed referrer: %w", err)
		}
		return registry.Referrer{Digest: d, ArtifactType: e.ArtifactType, Descriptor: e.Descriptor}, nil
	})
}
