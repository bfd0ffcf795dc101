// SPDX-License-Identifier: Apache-2.0

// Reading and writing of index.json.

package ocidir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// layout is the parsed index.json of a repository. It is immutable: a
// transaction makes a new one.
type layout struct {
	name    string
	noLists bool        // lists of referrers are ordinary tags
	info    fs.FileInfo // of the file that it was read from or written to

	// manifests holds the manifests, tags and referrers, without the
	// manifests' content, which is in files.
	manifests *registry.MemStore

	content map[digest.Digest]content            // of files that are more than a blob
	order   []digest.Digest                      // of the manifests in index.json
	lists   map[digest.Digest]ocispec.Descriptor // of referrers, by subject

	// Parts of index.json that another tool wrote: its members, and the
	// entries with more than the store would write. The maps are never
	// changed.
	index   map[string]json.RawMessage
	entries map[entryKey]json.RawMessage
}

// entryKey identifies an entry of an index.json.
type entryKey struct {
	digest digest.Digest
	tag    string
}

// content describes a file in a layout's blobs folder.
type content struct {
	use
	size int64 // of a manifest
}

// use is a set of uses of content. A file that index.json does not name is a
// blob; its use is 0.
type use uint8

const (
	asManifest use = 1 << iota
	asList         // of referrers
	asBlob         // too
)

// has reports whether u and other have a use in common.
func (u use) has(other use) bool { return u&other != 0 }

// Annotations of entries that the store writes.
const (
	// annotationList is the subject of a list of referrers.
	annotationList = "io.github.berth-oci.referrers"
	// annotationTag marks a tag that has the form of a list's tag, but is an
	// ordinary tag.
	annotationTag = "io.github.berth-oci.tag"
	// annotationBlob marks a manifest that was pushed as a blob too.
	annotationBlob = "io.github.berth-oci.blob"
)

// The maximum sizes of files to read, in bytes.
const (
	maxIndex    = 1 << 30
	maxManifest = 64 << 20
)

func emptyLayout(name string) *layout {
	return &layout{name: name, manifests: new(registry.MemStore), content: make(map[digest.Digest]content)}
}

// clone returns a copy that can be changed.
func (l *layout) clone() *layout {
	c := *l
	c.manifests = l.manifests.Clone()
	c.content = maps.Clone(l.content)
	c.order = slices.Clip(l.order)
	c.lists = maps.Clone(l.lists)
	return &c
}

// isBlob reports whether the file with the digest d, if it exists, is a blob.
func (l *layout) isBlob(d digest.Digest) bool {
	c := l.content[d]
	return c.use == 0 || c.has(asBlob)
}

// addUse adds a use to content.
func (l *layout) addUse(d digest.Digest, u use) {
	c := l.content[d]
	c.use |= u
	l.content[d] = c
}

// removeUse removes a use from content.
func (l *layout) removeUse(d digest.Digest, u use) {
	c := l.content[d]
	if c.use &^= u; !c.has(asManifest | asList) { // at most a blob
		delete(l.content, d)
		return
	}
	l.content[d] = c
}

// readLayout reads the index.json in dir.
func readLayout(fsys fs.FS, dir, name string, noLists bool) (*layout, error) {
	f, err := fsys.Open(path.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := emptyLayout(name)
	l.noLists = noLists
	if l.info, err = f.Stat(); err != nil {
		return nil, err
	}
	data, err := readAll(f, maxIndex)
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", path.Join(dir, ocispec.ImageIndexFile), err)
	}
	if err := json.Unmarshal(data, &l.index); err != nil {
		return nil, fmt.Errorf("%s: %w", path.Join(dir, ocispec.ImageIndexFile), err)
	}
	for _, raw := range index.Manifests {
		if err := l.addEntry(fsys, dir, raw); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// addEntry adds an entry of the index.json: a manifest, a tag or a list of
// referrers.
func (l *layout) addEntry(fsys fs.FS, dir string, raw json.RawMessage) error {
	var d ocispec.Descriptor
	if err := json.Unmarshal(raw, &d); err != nil || d.Digest.Validate() != nil {
		return nil // no client can request it
	}
	tag := tagOf(d.Annotations[ocispec.AnnotationRefName])
	subject := digest.Digest(d.Annotations[annotationList])
	if l.noLists {
		subject = ""
	} else if subject == "" && d.Annotations[annotationTag] == "" {
		var err error
		if subject, err = l.subjectOfList(fsys, dir, d, tag); err != nil {
			return err
		}
	}
	switch {
	case subject == "":
		if err := l.addManifest(fsys, dir, d, tag); err != nil {
			return err
		}
		l.keepEntry(d, tag, raw)
	case subject.Validate() != nil:
	case tag == "" && l.lists[subject].Digest != "": // another tool has replaced the store's list, and taken over its tag
	default:
		l.setList(subject, d)
	}
	if d.Annotations[annotationBlob] != "" {
		l.addUse(d.Digest, asBlob)
	}
	return nil
}

// keepEntry keeps an entry that another tool wrote, unless the store would write
// the same.
func (l *layout) keepEntry(d ocispec.Descriptor, tag string, raw json.RawMessage) {
	annotations := tagAnnotations(tag)
	if d.Annotations[annotationBlob] != "" || bytes.Equal(raw, entry(d.MediaType, d.Digest, d.Size, annotations)) {
		return
	}
	if mark := annotations[annotationTag]; mark != "" {
		d = annotated(d, annotationTag, mark)
		raw, _ = marshal(d) // d was parsed from JSON: cannot fail
	}
	if l.entries == nil {
		l.entries = make(map[entryKey]json.RawMessage)
	}
	l.entries[entryKey{d.Digest, tag}] = raw
}

// addManifest adds a manifest and the manifests that it names, and points tag at
// it unless tag is empty. It ignores missing and broken manifests, since other
// tools may have written the layout.
func (l *layout) addManifest(fsys fs.FS, dir string, d ocispec.Descriptor, tag string) error {
	ctx := context.Background()
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	if l.content[d.Digest].has(asManifest) { // with the media type of its first entry
		m, err := l.manifests.GetManifest(ctx, l.name, d.Digest)
		if err != nil {
			return err
		}
		return l.manifests.PutManifest(ctx, l.name, m, tags, nil)
	}
	data, err := readContent(fsys, dir, d.Digest)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, registry.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return err
	}
	p := registry.ManifestPush{MediaType: d.MediaType, Content: data, Digest: d.Digest, Tags: tags, Sparse: true}
	_, err = registry.PushManifest(ctx, withoutContent{l.manifests}, l.name, p)
	if errors.Is(err, registry.ErrManifestInvalid) && d.Digest == d.Digest.Algorithm().FromBytes(data) {
		// Other tools take it for a manifest: serve it as opaque bytes.
		err = l.manifests.PutManifest(ctx, l.name, registry.Manifest{MediaType: d.MediaType, Digest: d.Digest}, tags, nil)
	}
	if errors.Is(err, registry.ErrDigestInvalid) || errors.Is(err, registry.ErrManifestInvalid) {
		return nil
	}
	if err != nil {
		return err
	}
	c := l.content[d.Digest]
	c.use |= asManifest
	c.size = int64(len(data))
	l.content[d.Digest] = c
	l.order = append(l.order, d.Digest)
	for _, child := range childManifests(data) {
		if child.Digest.Validate() == nil && isManifestType(child.MediaType) {
			if err := l.addManifest(fsys, dir, child, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// childManifests returns the entries of an index, or nil for any other document.
func childManifests(data []byte) []ocispec.Descriptor {
	var index struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	json.Unmarshal(data, &index)
	return index.Manifests
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}

// withoutContent is a MemStore that stores manifests without their content.
type withoutContent struct{ *registry.MemStore }

func (s withoutContent) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow registry.AllowFunc) error {
	m.Content = nil
	return s.MemStore.PutManifest(ctx, repo, m, tags, allow)
}

// encode returns the index.json.
func (l *layout) encode() ([]byte, error) {
	ctx := context.Background()
	tags := make(map[digest.Digest][]string)
	for tag, err := range l.manifests.Tags(ctx, l.name, "") {
		if errors.Is(err, registry.ErrNameUnknown) {
			break // the repository has only blobs
		}
		m, err := l.manifests.GetTag(ctx, l.name, tag)
		if err != nil {
			return nil, err
		}
		tags[m.Digest] = append(tags[m.Digest], tag)
	}
	entries := []json.RawMessage{}
	for _, d := range l.order {
		m, err := l.manifests.GetManifest(ctx, l.name, d)
		if err != nil {
			return nil, err
		}
		if tags[d] == nil {
			tags[d] = []string{""}
		}
		for _, tag := range tags[d] {
			annotations := tagAnnotations(tag)
			if l.content[d].has(asBlob) {
				annotations[annotationBlob] = "true"
			} else if raw, ok := l.entries[entryKey{d, tag}]; ok {
				entries = append(entries, raw)
				continue
			}
			entries = append(entries, entry(m.MediaType, d, l.content[d].size, annotations))
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(l.lists)) {
		raw, err := marshal(l.listEntry(subject))
		if err != nil {
			return nil, err
		}
		entries = append(entries, raw)
	}
	index := maps.Clone(l.index)
	if index == nil {
		index = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		}
	}
	raw, err := marshal(entries)
	if err != nil {
		return nil, err
	}
	index["manifests"] = raw
	return marshal(index)
}

// entry returns an entry of an index.json.
func entry(mediaType string, d digest.Digest, size int64, annotations map[string]string) json.RawMessage {
	raw, _ := marshal(ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size, Annotations: annotations}) // strings and a number: cannot fail
	return raw
}

// marshal is json.Marshal without escaping for HTML, which can make annotations
// six times as large.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// tagAnnotations returns the annotations of a manifest's entry with a tag, or
// "" for none.
func tagAnnotations(tag string) map[string]string {
	annotations := make(map[string]string)
	if tag != "" {
		annotations[ocispec.AnnotationRefName] = tag
	}
	if isListTag(tag) {
		annotations[annotationTag] = "true"
	}
	return annotations
}

// annotated returns d with another annotation.
func annotated(d ocispec.Descriptor, key, value string) ocispec.Descriptor {
	if d.Annotations = maps.Clone(d.Annotations); d.Annotations == nil {
		d.Annotations = make(map[string]string)
	}
	d.Annotations[key] = value
	return d
}

// readContent reads a manifest's file.
func readContent(fsys fs.FS, dir string, d digest.Digest) ([]byte, error) {
	f, err := fsys.Open(contentPath(dir, d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, maxManifest)
}

// readAll reads r to its end. Errors: registry.ErrTooLarge.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, registry.ErrTooLarge
	}
	return data, err
}
