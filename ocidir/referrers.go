// SPDX-License-Identifier: Apache-2.0

// Lists of referrers in a layout: section "Referrers Tag Schema".

package ocidir

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// listTag returns the tag of a subject's list of referrers.
func listTag(subject digest.Digest) string {
	algorithm, encoded := subject.Algorithm().String(), subject.Encoded()
	return algorithm[:min(32, len(algorithm))] + "-" + encoded[:min(64, len(encoded))]
}

var listTagPattern = regexp.MustCompile(`^[a-z0-9]{1,32}-[a-f0-9]{64}$`)

// isListTag reports whether a tag has the form of a list's tag.
func isListTag(tag string) bool { return listTagPattern.MatchString(tag) }

// subjectOfList returns the subject of an entry of the index.json if the entry
// is a list of referrers that another tool wrote, otherwise "". An index is such
// a list if it has entries, is tagged as the list of a subject, and each entry's
// manifest has that subject. An index with a subject of its own is a referrer
// itself.
//
// It adds the manifests that the index names, since the index.json of some tools
// does not.
func (l *layout) subjectOfList(fsys fs.FS, dir string, d ocispec.Descriptor, tag string) (digest.Digest, error) {
	if d.MediaType != ocispec.MediaTypeImageIndex || !isListTag(tag) {
		return "", nil
	}
	data, err := readContent(fsys, dir, d.Digest)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, registry.ErrTooLarge) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	p := registry.ManifestPush{MediaType: d.MediaType, Content: data, Digest: d.Digest, Sparse: true}
	index, err := registry.PushManifest(context.Background(), new(registry.MemStore), "list", p) // for its checks
	if err != nil || index.Subject != "" {
		return "", nil
	}
	var subject digest.Digest
	for _, child := range childManifests(data) {
		if child.Digest.Validate() != nil || !isManifestType(child.MediaType) {
			return "", nil
		}
		if err := l.addManifest(fsys, dir, child, ""); err != nil {
			return "", err
		}
		m, err := l.manifests.GetManifest(context.Background(), l.name, child.Digest)
		if err != nil || m.Subject == "" || listTag(m.Subject) != tag || subject != "" && subject != m.Subject {
			return "", nil
		}
		subject = m.Subject
	}
	return subject, nil
}

// setList replaces a subject's list of referrers; d is empty for none.
func (l *layout) setList(subject digest.Digest, d ocispec.Descriptor) {
	if old := l.lists[subject].Digest; old != "" && old != d.Digest {
		l.removeUse(old, asList)
	}
	if d.Digest == "" {
		delete(l.lists, subject)
		return
	}
	if l.lists == nil {
		l.lists = make(map[digest.Digest]ocispec.Descriptor)
	}
	l.lists[subject] = d
	l.addUse(d.Digest, asList)
}

// listEntry returns the entry of a subject's list in the index.json. It has the
// list's tag, unless a client has pushed something under that name.
func (l *layout) listEntry(subject digest.Digest) ocispec.Descriptor {
	d := annotated(l.lists[subject], annotationList, subject.String())
	if _, err := l.manifests.GetTag(context.Background(), l.name, listTag(subject)); err == nil {
		delete(d.Annotations, ocispec.AnnotationRefName)
	} else if tagOf(d.Annotations[ocispec.AnnotationRefName]) == "" {
		d.Annotations[ocispec.AnnotationRefName] = listTag(subject)
	}
	delete(d.Annotations, annotationBlob)
	if l.content[d.Digest].has(asBlob) {
		d.Annotations[annotationBlob] = "true"
	}
	return d
}

// encodeList returns the list of a subject's referrers, nil if it has none.
func (l *layout) encodeList(subject digest.Digest) ([]byte, error) {
	index := struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Manifests     []json.RawMessage `json:"manifests"`
	}{2, ocispec.MediaTypeImageIndex, nil}
	for r, err := range l.manifests.Referrers(context.Background(), l.name, subject, "") {
		if err != nil {
			return nil, err
		}
		index.Manifests = append(index.Manifests, r.Descriptor)
	}
	if index.Manifests == nil {
		return nil, nil
	}
	return marshal(index)
}

// writeList writes the list of a subject's referrers, for tools that read the
// layout.
func (t *txn) writeList(subject digest.Digest) error {
	old := t.lists[subject].Digest
	data, err := t.encodeList(subject)
	if err != nil {
		return err
	}
	var d ocispec.Descriptor // empty if there are no referrers left
	if data != nil {
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if err := t.writeListFile(d.Digest, data); err != nil {
			return err
		}
	}
	if old != "" && old != d.Digest {
		t.endUse(old, asList)
	}
	t.setList(subject, d)
	t.indexChanged = true
	return nil
}

// writeListFile writes the file of a list, unless it exists.
func (t *txn) writeListFile(d digest.Digest, data []byte) error {
	if t.hasFile(d) {
		if t.isBlob(d) {
			t.addUse(d, asBlob) // it was pushed as one
		}
		return nil
	}
	file, err := t.repo.s.writeTemp(data)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	t.hide(d)
	return t.addFile(d, file)
}
