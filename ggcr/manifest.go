// SPDX-License-Identifier: Apache-2.0

// Manifests that go-containerregistry accepts, and Berth by default does not.

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"

	berth "github.com/berth-oci/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of Docker's manifests.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	dockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

func isImage(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == dockerManifest
}

// contentType removes the Content-Type of a manifest from r, which is a copy,
// unless it is a manifest's. Berth rejects a manifest whose mediaType is not its
// Content-Type, but go-containerregistry pushes a manifest with the type that it
// was pulled with, which is text/plain if the server did not set one. Without a
// Content-Type, Berth uses the manifest's mediaType.
func (e *exchange) contentType(r *http.Request) {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return
	}
	mediaType, _, err := mime.ParseMediaType(types[0])
	if err != nil || isIndex(mediaType) || isImage(mediaType) || mediaType == dockerSchema1 || mediaType == dockerSigned {
		return
	}
	e.mediaType = mediaType
	r.Header = r.Header.Clone()
	r.Header.Del("Content-Type")
}

// PutManifest stores a manifest, whose blobs may be missing. It rejects an index
// that is pushed before its manifests.
func (s *store) PutManifest(ctx context.Context, repo string, m berth.Manifest, tags []string, allow berth.AllowFunc) error {
	e := exchangeOf(ctx)
	if e.mediaType != "" {
		m.MediaType = e.mediaType
	}
	if isIndex(m.MediaType) {
		if err := s.checkChildren(ctx, repo, m.Content); err != nil {
			return err
		}
	}
	if m.Subject == "" {
		setSubject(&m)
	}
	err := s.Store.PutManifest(ctx, repo, m, tags, allow)
	if err == nil {
		e.subject = m.Subject
	}
	return err
}

// checkChildren returns an error unless repo has the manifests that an index
// refers to.
func (s *store) checkChildren(ctx context.Context, repo string, content []byte) error {
	var index ocispec.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return berth.ErrManifestInvalid
	}
	for _, child := range index.Manifests {
		if !isIndex(child.MediaType) && !isImage(child.MediaType) {
			continue
		}
		switch _, err := s.GetManifest(ctx, repo, child.Digest); {
		case errors.Is(err, berth.ErrManifestUnknown) || errors.Is(err, berth.ErrNameUnknown):
			return fmt.Errorf("%w: %s, which the index names", berth.ErrManifestUnknown, child.Digest)
		case err != nil:
			return err
		}
	}
	return nil
}

// setSubject sets the subject, if any, of a manifest whose type Berth does not
// parse: go-containerregistry lists manifests of any type as referrers.
func setSubject(m *berth.Manifest) {
	var doc struct {
		Subject      *ocispec.Descriptor
		ArtifactType string
		Config       ocispec.Descriptor
		Annotations  map[string]string
	}
	if json.Unmarshal(m.Content, &doc) != nil || doc.Subject == nil || doc.Subject.Digest.Validate() != nil {
		return
	}
	if doc.ArtifactType == "" {
		doc.ArtifactType = doc.Config.MediaType
	}
	descriptor, err := json.Marshal(ocispec.Descriptor{
		MediaType:    m.MediaType,
		Digest:       m.Digest,
		Size:         int64(len(m.Content)),
		ArtifactType: doc.ArtifactType,
		Annotations:  doc.Annotations,
	})
	if err != nil {
		return // cannot happen: the values come from JSON
	}
	m.Subject = doc.Subject.Digest
	m.Referrer = berth.Referrer{Digest: m.Digest, ArtifactType: doc.ArtifactType, Descriptor: descriptor}
}

// Referrers fails with ErrNameUnknown if a repository has no manifest.
func (s *store) Referrers(ctx context.Context, repo string, subject, after digest.Digest) iter.Seq2[berth.Referrer, error] {
	return func(yield func(berth.Referrer, error) bool) {
		for _, err := range s.Tags(ctx, repo, "") {
			if err != nil {
				yield(berth.Referrer{}, err)
				return
			}
			break // the repository exists
		}
		s.Store.Referrers(ctx, repo, subject, after)(yield)
	}
}
