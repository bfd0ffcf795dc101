// SPDX-License-Identifier: Apache-2.0

// Manifests: a register for each.

package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// manifestHeader is the first line of a manifest's data, before its bytes. Byte
// slices become base64, because JSON strings would change bytes that are not UTF-8.
type manifestHeader struct {
	MediaType    []byte        `json:"mediaType"`
	Subject      digest.Digest `json:"subject,omitempty"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Descriptor   []byte        `json:"descriptor,omitempty"`

	// Incarnation is new in each push that follows a delete. Tags, and the
	// lists of referrers, name it.
	Incarnation string `json:"incarnation"`

	// Leaves is set while a delete is in progress. The manifest still exists.
	Leaves bool `json:"leaves,omitempty"`

	// Sum is the SHA-256 of the manifest's bytes, which its digest need not be:
	// that of a signed Docker schema 1 manifest is of its payload.
	Sum []byte `json:"sum"`
}

// manifest is the value of a manifest's register.
type manifest struct {
	value
	manifestHeader
	digest  digest.Digest
	content []byte
}

// readManifest returns the value of a manifest's register.
func (s *Store) readManifest(ctx context.Context, repo string, d digest.Digest) (manifest, error) {
	v, err := s.read(ctx, manifestKey(repo, d))
	if err != nil {
		return manifest{value: v, digest: d}, s.corrupt(err, repo, d)
	}
	m, err := parseManifest(d, v)
	return m, s.corrupt(err, repo, d)
}

// parseManifest returns the manifest of a register's value.
func parseManifest(d digest.Digest, v value) (manifest, error) {
	m := manifest{value: v, digest: d}
	if !v.exists() {
		return m, nil
	}
	line, content, ok := bytes.Cut(v.data, []byte("\n"))
	if !ok || json.Unmarshal(line, &m.manifestHeader) != nil {
		return m, errMalformed
	}
	m.content = content
	return m, nil
}

// encode is the inverse of parseManifest.
func (m manifest) encode() ([]byte, error) {
	line, err := marshal(m.manifestHeader)
	return append(append(line, '\n'), m.content...), err
}

// unchecked returns the manifest without checking its bytes.
func (m manifest) unchecked() registry.Manifest {
	r := registry.Manifest{MediaType: string(m.MediaType), Digest: m.digest, Content: m.content, Subject: m.Subject}
	if m.Subject != "" {
		r.Referrer = registry.Referrer{Digest: m.digest, ArtifactType: m.ArtifactType, Descriptor: m.Descriptor}
	}
	return r
}

// checked returns the manifest, or an error if its bytes are not those that were
// pushed.
func (m manifest) checked() (registry.Manifest, error) {
	if !m.isIntact() {
		return registry.Manifest{}, fmt.Errorf("%w: manifest %s", errCorrupt, m.digest)
	}
	return m.unchecked(), nil
}

func (m manifest) isIntact() bool {
	sum := sha256.Sum256(m.content)
	return bytes.Equal(sum[:], m.Sum)
}

// GetManifest returns the manifest with the given digest.
func (s *Store) GetManifest(ctx context.Context, repo string, d digest.Digest) (registry.Manifest, error) {
	m, err := s.readManifest(ctx, repo, d)
	if err == nil && !m.exists() {
		err = s.unknownError(ctx, repo, registry.ErrManifestUnknown)
	}
	if err != nil {
		return registry.Manifest{}, err
	}
	return m.checked()
}

// Manifests yields the manifests of a repository after a digest. It reads the
// beginning of each, since the sizes in a list include the headers.
func (s *Store) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	manifests := listDigests(ctx, s, manifestsPrefix(repo), after, func(ctx context.Context, d digest.Digest) (registry.Info, error) {
		m, err := s.statManifest(ctx, repo, d)
		return registry.Info{Digest: d, Size: m.size, Time: m.object.Time}, err
	})
	return orNameUnknown(ctx, s, repo, manifests)
}

// manifestStat is what statManifest reads of a manifest.
type manifestStat struct {
	manifest
	size int64 // of its bytes
}

// statManifest returns the header of a manifest.
// Errors: errNotFound, also if the manifest was deleted.
func (s *Store) statManifest(ctx context.Context, repo string, d digest.Digest) (manifestStat, error) {
	for _, n := range []int64{4 << 10, -1} { // enough for most headers, but not for one with many annotations
		object, o, err := s.getStart(ctx, manifestKey(repo, d), n)
		if err != nil {
			return manifestStat{}, err
		}
		v, err := parseValue(object)
		if err != nil {
			return manifestStat{}, s.corrupt(err, repo, d)
		}
		if !v.exists() {
			return manifestStat{}, errNotFound
		}
		v.object = o
		if m, err := parseManifest(d, v); err == nil {
			return manifestStat{m, int64(len(m.content)) + o.Size - int64(len(object))}, nil
		}
	}
	return manifestStat{}, s.corrupt(errMalformed, repo, d)
}

// DeleteManifest deletes a manifest, and with it the tags that point at it: they
// name its incarnation, which never returns.
//
// A push of a tag writes a hint, then makes sure that the manifest exists and does
// not leave, and then writes the tag, which it has read before all that.
// DeleteManifest says that the manifest leaves, then looks for hints and changes
// their tags, and then deletes the manifest. So either the push sees that the
// manifest leaves, and makes it stay; or DeleteManifest sees the hint, and the push
// can no longer write its tag. No tag ever points at a manifest that was deleted
// before, but for one that moveBack has just written, and looks at again.
func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	ctx = context.WithoutCancel(ctx) // all or nothing
	for attempt := range maxAttempts {
		backOff(attempt)
		m, err := s.readManifest(ctx, repo, d)
		if err != nil && m.object.Version == "" {
			return err
		}
		if err == nil && !m.exists() {
			if err := s.finishDelete(ctx, repo, d); err != nil {
				return err
			}
			return s.unknownError(ctx, repo, registry.ErrManifestUnknown)
		}
		if deleted, err := s.tryDelete(ctx, repo, m); err != nil {
			return err
		} else if !deleted {
			continue // a push has made it stay
		}
		return s.removeTraces(ctx, repo, m)
	}
	return registry.ErrUnavailable
}

// removeTraces removes a manifest that was deleted from lists, and its tags.
func (s *Store) removeTraces(ctx context.Context, repo string, m manifest) error {
	err := atOnce(
		func() error { return s.removeReferrer(ctx, repo, m) },
		func() error {
			return s.eachHint(ctx, repo, m.digest, m.Incarnation, func(h hint) error {
				s.later(func() { s.remove(ctx, h.key(repo, m.digest)) })
				return s.untag(ctx, repo, h.tag, m.digest, h.incarnation)
			})
		},
	)
	if err != nil {
		return err
	}
	return s.removeRepo(ctx, repo)
}

// finishDelete removes from lists what a delete that was interrupted has left there.
func (s *Store) finishDelete(ctx context.Context, repo string, d digest.Digest) error {
	err := s.eachHint(ctx, repo, d, "", func(h hint) error {
		_, _, err := s.readLiveTag(ctx, repo, h.tag) // deletes the tag if the manifest does not exist
		return err
	})
	if err != nil {
		return err
	}
	return s.removeRepo(ctx, repo)
}

// tryDelete deletes m unless a push prevents it.
func (s *Store) tryDelete(ctx context.Context, repo string, m manifest) (deleted bool, err error) {
	key := manifestKey(repo, m.digest)
	leaving := m.value
	if m.exists() && !m.Leaves { // or it can't be read, and goes at once
		m.Leaves = true
		data, err := m.encode()
		if err != nil {
			return false, err
		}
		var ok bool
		if leaving, ok, err = s.replace(ctx, key, m.value, newID(), data); !ok || err != nil {
			return false, err
		}
	}
	err = s.eachHint(ctx, repo, m.digest, m.Incarnation, func(h hint) error {
		return s.fenceTag(ctx, repo, m.digest, h)
	})
	if err != nil {
		return false, err
	}
	_, deleted, err = s.replace(ctx, key, leaving, newID(), nil)
	return deleted, err
}
