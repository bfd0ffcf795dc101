// SPDX-License-Identifier: Apache-2.0

// The images in an archive that is an OCI image layout, and their names.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Annotations of the entries in an index.json, beside org.opencontainers.image.ref.name.
const (
	annotationImageName  = "io.containerd.image.name"
	annotationRepository = "io.github.berth-oci.repository" // the repository, of berth save
	annotationList       = "io.github.berth-oci.referrers"  // a list of referrers that package ocidir wrote
	annotationTag        = "io.github.berth-oci.tag"        // a tag of the form of such a list's, of package ocidir
)

// image is a manifest in an archive that has a name, or that needs one.
type image struct {
	ref     // without a digest; repo or tag may be ""
	root    reference
	subject digest.Digest // "" for none
}

// imageName parses the name of an image in an archive, such as alpine:3.20 or
// docker.io/library/alpine:3.20. A host is not part of a repository's name.
func imageName(name string) (ref, error) {
	short := name
	if host, rest, ok := strings.Cut(name, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		if short = rest; host == "docker.io" || host == "index.docker.io" {
			short = strings.TrimPrefix(rest, "library/")
		}
	}
	r, err := parseRef(short)
	if err == nil && r.tag == "" {
		r.tag = "latest"
	}
	if err != nil || r.digest != "" {
		return ref{}, fmt.Errorf("its image %q has a name that a registry can't have: use --as REPO:TAG", clean(name))
	}
	return r, nil
}

// layoutEntry is an entry of an index.json.
type layoutEntry struct {
	reference
	Annotations map[string]string
}

// name returns the name of an entry: its repository and its tag, either of which may
// be "".
func (e layoutEntry) name() (ref, error) {
	tag := e.Annotations[ocispec.AnnotationRefName]
	full := e.Annotations[annotationImageName]
	repo := e.Annotations[annotationRepository]
	switch {
	case repo != "":
		if !validRepo(repo) || tag != "" && !validTag(tag) {
			return ref{}, fmt.Errorf("its image %q has a name that a registry can't have", clean(repo+":"+tag))
		}
		return ref{repo: repo, tag: tag}, nil
	case full != "":
		return imageName(full)
	case strings.ContainsAny(tag, ":/"):
		return imageName(tag)
	case tag != "" && !validTag(tag):
		return ref{}, fmt.Errorf("its image has the tag %q, which a registry can't have: use --as REPO:TAG", clean(tag))
	}
	return ref{tag: tag}, nil
}

// readLayout returns the images in the index.json of an archive. The names are ignored
// if rename is set.
func (a *archive) readLayout(ctx context.Context, rename bool) ([]image, error) {
	data, err := a.readIndex(ocispec.ImageIndexFile)
	if err != nil {
		return nil, err
	}
	var index struct{ Manifests []layoutEntry }
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	files := &archiveSource{archive: a}
	var images []image
	for _, e := range index.Manifests {
		if err := e.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%s: digest %q: %w", ocispec.ImageIndexFile, clean(e.Digest.String()), err)
		}
		if list, ok := files.referrersList(ctx, e); ok {
			images = append(images, list...)
			continue
		}
		m, err := files.manifest(ctx, e.MediaType, e.Digest)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", e.Digest, err)
		}
		i := image{root: reference{MediaType: m.MediaType, Digest: e.Digest}, subject: subjectOf(m)}
		if i.ref, err = e.name(); err != nil && !rename {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// subjectOf returns the digest of a manifest's subject, or "".
func subjectOf(m registry.Manifest) digest.Digest {
	parsed, err := registry.ParseManifest(m.MediaType, m.Content)
	if err != nil {
		return ""
	}
	return parsed.Subject
}

// referrersList returns the entries of a list under the referrers tag schema (section
// "Referrers Tag Schema"), which have no names, and reports whether e is such a list.
// A registry makes the list itself.
func (s *archiveSource) referrersList(ctx context.Context, e layoutEntry) (list []image, ok bool) {
	tag := e.Annotations[ocispec.AnnotationRefName]
	made := e.Annotations[annotationList] != ""
	if e.Annotations[annotationTag] != "" || !made && !strings.HasPrefix(tag, "sha256-") && !strings.HasPrefix(tag, "sha512-") {
		return nil, false
	}
	m, err := s.manifest(ctx, e.MediaType, e.Digest)
	if err != nil || m.MediaType != ocispec.MediaTypeImageIndex {
		return nil, false
	}
	var doc document
	json.Unmarshal(m.Content, &doc)
	for _, entry := range doc.Manifests {
		m, err := s.manifest(ctx, entry.MediaType, entry.Digest)
		if err == nil {
			subject := subjectOf(m)
			if subject != "" && (made || referrersTag(subject) == tag) {
				list = append(list, image{root: reference{MediaType: m.MediaType, Digest: entry.Digest}, subject: subject})
				continue
			}
		}
		if !made {
			return nil, false
		}
	}
	return list, made || len(list) > 0
}

// referrersTag returns the tag of a subject's list of referrers.
func referrersTag(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// archiveSource is a contentSource that reads an archive.
type archiveSource struct {
	*archive
	made      map[digest.Digest]registry.Manifest // of images in Docker's format
	files     map[digest.Digest]string            // the files of their blobs
	referring map[digest.Digest][]reference       // the referrers of each subject
}

// blobFile returns the file of a blob.
func (s *archiveSource) blobFile(d digest.Digest) string {
	if name, ok := s.files[d]; ok {
		return name
	}
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

func (s *archiveSource) manifest(ctx context.Context, mediaType string, d digest.Digest) (registry.Manifest, error) {
	if err := ctx.Err(); err != nil {
		return registry.Manifest{}, err
	}
	if m, ok := s.made[d]; ok {
		return m, nil
	}
	if err := d.Validate(); err != nil {
		return registry.Manifest{}, fmt.Errorf("digest %q: %w", clean(d.String()), err)
	}
	content, err := s.read(s.blobFile(d), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return registry.Manifest{}, fmt.Errorf("%w: the archive does not contain it", registry.ErrManifestUnknown)
	}
	if err != nil {
		return registry.Manifest{}, err
	}
	m := registry.Manifest{MediaType: mediaType, Content: content}
	if mediaType == "" {
		var doc document
		json.Unmarshal(content, &doc)
		m.MediaType = doc.MediaType
	}
	m.Digest, err = digestOf(m, d)
	return m, err
}

func (s *archiveSource) referrers(_ context.Context, d digest.Digest) ([]reference, error) {
	return s.referring[d], nil
}
