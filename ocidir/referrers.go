// SPDX-License-Identifier: Apache-2.0

// Lists of referrers in a layout: section "Referrers Tag Schema".

package ocidir

import (
	"context"
	"encoding/json"
	"errors"
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
func (l *layout) subjectOfList(src folder, e indexEntry) (digest.Digest, error) {
	if e.MediaType != ocispec.MediaTypeImageIndex || !isListTag(e.tag) {
		return "", nil
	}
	data, err := src.content(e.Digest)
	if isMissing(err) || errors.Is(err, registry.ErrTooLarge) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	p := registry.ManifestPush{MediaType: e.MediaType, Content: data, Digest: e.Digest, Sparse: true}
	index, err := registry.PushManifest(context.Background(), new(registry.MemStore), "list", p) // for its checks
	if err != nil || index.Subject != "" {
		return "", nil
	}
	var subject digest.Digest
	for _, child := range childManifests(data) {
		if child.Digest.Validate() != nil || !isManifestType(child.MediaType) {
			return "", nil
		}
		if _, err := l.addManifest(src, child, "", true); err != nil {
			return "", err
		}
		m, err := l.manifests.GetManifest(context.Background(), l.name, child.Digest)
		if err != nil || m.Subject == "" || listTag(m.Subject) != e.tag || subject != "" && subject != m.Subject {
			return "", nil
		}
		subject = m.Subject
	}
	return subject, nil
}

// hasList reports whether the layout has a list for a subject.
func (l *layout) hasList(subject digest.Digest) bool {
	_, ok := l.lists.Get(string(subject))
	return ok
}

// setList replaces a subject's list of referrers; d is empty for none.
func (l *layout) setList(subject digest.Digest, d ocispec.Descriptor) {
	if old, ok := l.lists.Get(string(subject)); ok && old.Digest != d.Digest {
		l.removeUse(old.Digest, asList)
	}
	if d.Digest == "" {
		l.lists = l.lists.Without(string(subject))
		return
	}
	l.lists = l.lists.With(string(subject), d)
	l.addUse(d.Digest, asList)
}

// listEntry returns the entry of a subject's list in the index.json. It has the
// list's tag, unless a client has pushed something under that name.
func (l *layout) listEntry(subject digest.Digest) ocispec.Descriptor {
	list, _ := l.lists.Get(string(subject))
	d := annotated(list, annotationList, subject.String())
	if _, err := l.manifests.GetTag(context.Background(), l.name, listTag(subject)); err == nil {
		delete(d.Annotations, ocispec.AnnotationRefName)
	} else if tagOf(d.Annotations[ocispec.AnnotationRefName]) == "" {
		d.Annotations[ocispec.AnnotationRefName] = listTag(subject)
	}
	delete(d.Annotations, annotationBlob)
	if l.uses(d.Digest).has(asBlob) {
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

// updateLists updates the lists that are out of date, for tools that read the
// layout. It returns records of the lists whose files will be written or removed.
func (l *layout) updateLists(hasFile func(digest.Digest) bool) (changed []record, err error) {
	for key := range l.stale.After("") {
		l.stale = l.stale.Without(key)
		if l.noLists {
			continue // clients write them
		}
		old, _ := l.lists.Get(key)
		data, err := l.encodeList(digest.Digest(key))
		if err != nil {
			return nil, err
		}
		var d ocispec.Descriptor // empty if there are no referrers left
		if data != nil {
			d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
			isFile := hasFile(d.Digest)
			wasBlob := isFile && l.uses(d.Digest) == 0 && l.isBlob(d.Digest)
			l.addUse(d.Digest, asList)
			if wasBlob {
				l.addUse(d.Digest, asBlob)
			}
			if !isFile {
				changed = append(changed, record{Op: opList, Digest: d.Digest})
			}
			l.pending = l.pending.With(string(d.Digest), pendingContent{data: data})
		}
		l.setList(digest.Digest(key), d)
		if old.Digest != "" && l.uses(old.Digest) == 0 {
			changed = append(changed, record{Op: opList, Digest: old.Digest})
		}
	}
	return changed, nil
}
