// SPDX-License-Identifier: Apache-2.0

// Manifests: an object for each.

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// manifestHeader is the first line of a manifest's object. Byte slices become
// base64, because JSON strings would change bytes that are not UTF-8.
type manifestHeader struct {
	MediaType    []byte        `json:"mediaType"`
	Subject      digest.Digest `json:"subject,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Descriptor   []byte        `json:"descriptor,omitempty"`
}

// readManifest returns a manifest.
// Errors: errNotFound.
func (s *Store) readManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	c, err := s.get(ctx, manifestKey(repo, d))
	if err != nil {
		return registry.Manifest{}, err
	}
	return parseManifest(d, c.data)
}

// parseManifest parses a manifest's object.
func parseManifest(d digest.Digest, object []byte) (registry.Manifest, error) {
	line, content, ok := bytes.Cut(object, []byte("\n"))
	if !ok {
		return registry.Manifest{}, errNoHeader
	}
	var h manifestHeader
	if err := json.Unmarshal(line, &h); err != nil {
		return registry.Manifest{}, fmt.Errorf("bucket: malformed manifest: %w", err)
	}
	m := registry.Manifest{MediaType: string(h.MediaType), Digest: d, Content: content, Subject: h.Subject}
	if h.Subject != "" {
		m.Referrer = registry.Referrer{Digest: d, ArtifactType: h.ArtifactType, Descriptor: h.Descriptor}
	}
	return m, nil
}

var errNoHeader = errors.New("bucket: malformed manifest: it has no header")

// GetManifest returns the manifest with the given digest.
func (s *Store) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	m, err := s.readManifest(ctx, repo, d)
	if err == errNotFound {
		err = s.unknownError(ctx, repo, registry.ErrManifestUnknown)
	}
	return m, err
}

// Manifests yields the manifests of a repository after a digest. It reads the
// beginning of each, since the sizes in a list include the headers.
func (s *Store) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	manifests := listDigests(ctx, s, manifestsPrefix(repo), after, func(ctx context.Context, d digest.Digest) (registry.Info, error) {
		return s.statManifest(ctx, repo, d)
	})
	return orNameUnknown(ctx, s, repo, manifests)
}

// statManifest returns the size and time of a manifest.
// Errors: errNotFound.
func (s *Store) statManifest(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	const enough = 4 << 10 // for most headers
	c, err := s.getStart(ctx, manifestKey(repo, d), enough)
	if err != nil {
		return registry.Info{}, err
	}
	end := bytes.IndexByte(c.data, '\n')
	if end < 0 { // a referrer with many annotations
		if c, err = s.get(ctx, manifestKey(repo, d)); err != nil {
			return registry.Info{}, err
		}
		if end = bytes.IndexByte(c.data, '\n'); end < 0 {
			return registry.Info{}, errNoHeader
		}
	}
	return registry.Info{Digest: d, Size: c.size - int64(end+1), Time: c.time}, nil
}

// PutManifest stores m and points tags at it. If allow rejects a tag that another
// process has moved meanwhile, m stays in the repository, without tags: another
// client may have pushed it too, and may know of its success.
func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	moves := make([]move, len(tags))
	for i, name := range tags {
		moves[i].name = name
		if allow == nil {
			continue
		}
		if err := s.checkAllowed(ctx, repo, &moves[i], allow); err != nil {
			return err
		}
	}
	ctx = context.WithoutCancel(ctx) // all or nothing
	for attempt := range maxAttempts {
		if err := s.putContent(ctx, repo, m, tags); err != nil {
			if attempt > 0 && errors.Is(err, registry.ErrManifestInvalid) {
				return s.withdraw(ctx, repo, m, moves)
			}
			return err
		}
		for i := range moves {
			if err := s.moveTag(ctx, repo, &moves[i], m.Digest, allow); err != nil {
				if allow == nil {
					return err // a failure of the bucket, not a rejection
				}
				return errors.Join(err, s.moveBack(ctx, repo, moves[:i]))
			}
		}
		if len(tags) == 0 && m.Subject == "" {
			return nil
		}
		// DeleteManifest deletes the manifest, and then the objects that point
		// at it. We have written the objects that point at it, and now check
		// that it still exists. If not, we start again, and write tags that
		// DeleteManifest has not seen.
		current, err := s.readManifest(ctx, repo, m.Digest)
		if err == nil && m.CheckSame(current) != nil {
			return s.withdraw(ctx, repo, m, moves)
		}
		if err != errNotFound {
			return err
		}
	}
	return registry.ErrUnavailable
}

// withdraw removes the objects that point at a manifest that was deleted after we
// had pushed it, and then pushed with another media type. They would give the other
// manifest our tags. Our push has succeeded, before that delete.
func (s *Store) withdraw(ctx context.Context, repo string, m registry.Manifest, moves []move) error {
	for _, move := range moves {
		current, err := s.readTag(ctx, repo, move.name)
		if err != nil {
			return err
		}
		if current.id != move.id {
			continue // another writer has moved it since
		}
		if _, err := s.swap(ctx, tagsPrefix(repo)+move.name, nil, current.version); err != nil {
			return err
		}
	}
	return s.removeReferrer(ctx, repo, m)
}

// putContent writes everything that belongs to a manifest, except for its tags.
// The hints that tags may point at it are written before the tags, so that
// DeleteManifest finds each tag.
func (s *Store) putContent(ctx context.Context, repo string, m registry.Manifest, tags []string) error {
	if err := s.putObject(ctx, repo, m); err != nil {
		return err
	}
	if err := s.addReferrer(ctx, repo, m); err != nil {
		return err
	}
	for _, name := range tags {
		if err := s.put(ctx, hintsPrefix(repo, m.Digest)+name, nil); err != nil {
			return err
		}
	}
	return s.addRepo(ctx, repo)
}

// putObject writes a manifest's object. If it exists, putObject rewrites it, which
// renews its time. The write is conditional on the version that was read, because
// the manifest may have been deleted meanwhile, and pushed again with another media
// type.
// Errors: ErrManifestInvalid if the repository has the manifest with another media
// type or other content.
func (s *Store) putObject(ctx context.Context, repo string, m registry.Manifest) error {
	h := manifestHeader{MediaType: []byte(m.MediaType), Subject: m.Subject}
	if m.Subject != "" {
		h.ArtifactType, h.Descriptor = m.Referrer.ArtifactType, m.Referrer.Descriptor
	}
	line, err := marshal(h)
	if err != nil {
		return err
	}
	key, object := manifestKey(repo, m.Digest), append(append(line, '\n'), m.Content...)
	changed := false // since we have read it
	for attempt := range maxAttempts {
		backOff(attempt)
		created, err := s.create(ctx, key, object)
		if created || err != nil {
			return err
		}
		c, err := s.get(ctx, key)
		if err == errNotFound {
			continue
		}
		if err != nil {
			return err
		}
		old, err := parseManifest(m.Digest, c.data)
		if err == nil {
			err = m.CheckSame(old)
		}
		if err != nil || changed { // another push has rewritten it just now
			return err
		}
		rewritten, err := s.swap(ctx, key, object, c.version)
		if rewritten || err != nil {
			return err
		}
		changed = true // rewritten or deleted
	}
	return registry.ErrUnavailable
}

// DeleteManifest deletes a manifest, and then all objects that point at it: see
// PutManifest.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	m, err := s.GetManifest(ctx, repo, d)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if err := s.remove(ctx, manifestKey(repo, d)); err != nil {
		if err == errNotFound {
			return registry.ErrManifestUnknown // another caller was faster
		}
		return err
	}
	if err := s.removeReferrer(ctx, repo, m); err != nil {
		return err
	}
	for o, err := range s.list(ctx, hintsPrefix(repo, d), "", firstPageSize) {
		if err != nil {
			return err
		}
		if err := s.untag(ctx, repo, o.name, d); err != nil {
			return err
		}
		// A push in progress may have written the hint and not yet the tag, so
		// only old hints are deleted.
		if time.Since(o.time) > s.minGrace {
			s.tryRemove(ctx, hintsPrefix(repo, d)+o.name)
		}
	}
	return s.removeRepo(ctx, repo)
}

// untag deletes a tag if it points at a manifest that does not exist. The tag is
// read before untag looks for the manifest: a tag that was written after the
// manifest was pushed again has another version.
func (s *Store) untag(ctx context.Context, repo, name string, d digest.Digest) error {
	for attempt := range maxAttempts {
		backOff(attempt)
		t, err := s.readTag(ctx, repo, name)
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
