// SPDX-License-Identifier: Apache-2.0

// Manifests and referrers.

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// head is the first line of a manifest's object. Its bytes are in base64, since
// JSON would change what is no UTF-8.
type head struct {
	MediaType    []byte        `json:"mediaType"`
	Subject      digest.Digest `json:"subject,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Descriptor   []byte        `json:"descriptor,omitempty"`
}

// entry is an object in a list of referrers.
type entry struct {
	ArtifactType string `json:"artifactType,omitempty"`
	Descriptor   []byte `json:"descriptor"`
}

// manifest returns a manifest.
// Errors: errMissing.
func (s *Store) manifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	b, _, err := s.get(ctx, manifestKey(repo, d))
	if err != nil {
		return registry.Manifest{}, err
	}
	line, content, ok := bytes.Cut(b, []byte("\n"))
	var h head
	if err := json.Unmarshal(line, &h); err != nil || !ok {
		return registry.Manifest{}, fmt.Errorf("bucket: malformed manifest: %w", err)
	}
	m := registry.Manifest{MediaType: string(h.MediaType), Digest: d, Content: content, Subject: h.Subject}
	if h.Subject != "" {
		m.Referrer = registry.Referrer{Digest: d, ArtifactType: h.ArtifactType, Descriptor: h.Descriptor}
	}
	return m, nil
}

// GetManifest returns the manifest with the given digest.
func (s *Store) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	m, err := s.manifest(ctx, repo, d)
	if err == errMissing {
		err = s.unknown(ctx, repo, registry.ErrManifestUnknown)
	}
	return m, err
}

// PutManifest stores m and points tags at it. Where allow refuses a tag that
// another moved meanwhile, m stays in the repository, without tags: someone
// else may have pushed it too, and been told that it is there.
func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow func(tag string, current digest.Digest) error) error {
	moves := make([]move, len(tags))
	for i, name := range tags {
		moves[i].name = name
		if allow == nil {
			continue
		}
		if err := s.ask(ctx, repo, &moves[i], allow); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // all or nothing
	for range attempts {
		if err := s.putContent(ctx, repo, m, tags); err != nil {
			return err
		}
		for i := range moves {
			if err := s.moveTag(ctx, repo, &moves[i], m.Digest, allow); err != nil {
				if allow == nil {
					return err // the bucket's failure: nothing is refused
				}
				return errors.Join(err, s.moveBack(ctx, repo, moves[:i]))
			}
		}
		if len(tags) == 0 && m.Subject == "" {
			return nil
		}
		// DeleteManifest deletes the manifest, and then what points at it. We
		// have written what points at it, and now look whether it is there: if
		// not, we begin again, with tags that it has not seen.
		if ok, err := s.exists(ctx, manifestKey(repo, m.Digest)); ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// putContent writes all of a manifest but its tags. What is there already stays
// as it is. Where a tag may point at it is told before it does, so that
// DeleteManifest finds the tag.
func (s *Store) putContent(ctx context.Context, repo string, m registry.Manifest, tags []string) error {
	h := head{MediaType: []byte(m.MediaType), Subject: m.Subject}
	if m.Subject != "" {
		h.ArtifactType, h.Descriptor = m.Referrer.ArtifactType, m.Referrer.Descriptor
	}
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	content := append(append(line, '\n'), m.Content...)
	if _, err := s.create(ctx, manifestKey(repo, m.Digest), content); err != nil {
		return err
	}
	if err := s.refer(ctx, repo, m); err != nil {
		return err
	}
	for _, name := range tags {
		if err := s.put(ctx, hintsPrefix(repo, m.Digest)+name, nil); err != nil {
			return err
		}
	}
	return s.enter(ctx, repo)
}

func referrerKey(repo string, m registry.Manifest) string {
	return referrersPrefix(repo, m.Subject) + digestPath(m.Digest)
}

// refer lists m as a referrer of its subject.
func (s *Store) refer(ctx context.Context, repo string, m registry.Manifest) error {
	if m.Subject == "" {
		return nil
	}
	b, err := json.Marshal(entry{m.Referrer.ArtifactType, m.Referrer.Descriptor})
	if err != nil {
		return err
	}
	return s.put(ctx, referrerKey(repo, m), b)
}

// unrefer takes m, which was deleted, off its subject's referrers. It looks
// whether it was pushed again meanwhile, by someone who had listed it before
// that.
func (s *Store) unrefer(ctx context.Context, repo string, m registry.Manifest) error {
	if m.Subject == "" {
		return nil
	}
	if err := s.remove(ctx, referrerKey(repo, m)); err != nil && err != errMissing {
		return err
	}
	again, err := s.exists(ctx, manifestKey(repo, m.Digest))
	if again && err == nil {
		err = s.refer(ctx, repo, m)
	}
	return err
}

// DeleteManifest deletes a manifest, and then all that points at it: see
// PutManifest.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	m, err := s.GetManifest(ctx, repo, d)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.remove(ctx, manifestKey(repo, d)); err != nil {
		if err == errMissing {
			return registry.ErrManifestUnknown // another was faster
		}
		return err
	}
	if err := s.unrefer(ctx, repo, m); err != nil {
		return err
	}
	for o, err := range s.list(ctx, hintsPrefix(repo, d), "", firstPage) {
		if err != nil {
			return err
		}
		if err := s.untag(ctx, repo, o.name, d); err != nil {
			return err
		}
		// One who pushes just now may have written the hint and not yet the
		// tag, so only what is old is deleted.
		if time.Since(o.time) > s.least {
			s.discard(ctx, hintsPrefix(repo, d)+o.name)
		}
	}
	return s.leave(ctx, repo)
}

// untag deletes a tag if it points at a manifest that is not there. It is read
// before the manifest is looked for: one that was written for a manifest that
// was pushed again has another version.
func (s *Store) untag(ctx context.Context, repo, name string, d digest.Digest) error {
	for attempt := range attempts {
		backOff(attempt)
		t, err := s.tag(ctx, repo, name)
		if err != nil || t.digest != d {
			return err
		}
		if again, err := s.exists(ctx, manifestKey(repo, d)); again || err != nil {
			return err
		}
		ok, err := s.swap(ctx, tagsPrefix(repo)+name, nil, t.version)
		if ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// together is how many referrers are read at once: a list has their keys only.
const together = 16

// Referrers yields the manifests in repo whose subject is the given digest.
func (s *Store) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[registry.Referrer, error] {
	return func(yield func(registry.Referrer, error) bool) {
		prefix := referrersPrefix(repo, subject)
		var digests []digest.Digest
		// flush yields what was gathered, and reports whether to go on.
		flush := func() bool {
			for i, r := range s.entries(ctx, prefix, digests) {
				switch {
				case r.err == errMissing: // deleted since
				case r.err != nil:
					yield(registry.Referrer{}, r.err)
					return false
				case !yield(registry.Referrer{Digest: digests[i], ArtifactType: r.ArtifactType, Descriptor: r.Descriptor}, nil):
					return false
				}
			}
			digests = digests[:0]
			return true
		}
		for o, err := range s.list(ctx, prefix, plain(digestPath(after)), firstPage) {
			if err != nil {
				yield(registry.Referrer{}, err)
				return
			}
			if d := parseDigestPath(o.name); d > after {
				digests = append(digests, d)
			}
			if len(digests) == together && !flush() {
				return
			}
		}
		flush()
	}
}

type entryOrError struct {
	entry
	err error
}

// entries reads entries of a list of referrers, all at once.
func (s *Store) entries(ctx context.Context, prefix string, digests []digest.Digest) []entryOrError {
	all := make([]entryOrError, len(digests))
	var wg sync.WaitGroup
	for i, d := range digests {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b, _, err := s.get(ctx, prefix+digestPath(d))
			if err == nil {
				err = json.Unmarshal(b, &all[i].entry)
			}
			all[i].err = err
		}()
	}
	wg.Wait()
	return all
}
