// SPDX-License-Identifier: Apache-2.0

// What an index.json says: read, and written.

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

// layout is a repository's index.json. It is never changed: a change makes a
// new one.
type layout struct {
	name string
	info fs.FileInfo // of the file that it was read from, or written to

	// manifests has the manifests, their tags and referrers, without the
	// manifests' content, which is in files.
	manifests *registry.MemStore

	content map[digest.Digest]content            // that is not simply a blob
	order   []digest.Digest                      // of the manifests in the file
	lists   map[digest.Digest]ocispec.Descriptor // of referrers, that we wrote, by subject

	// Of the file that others wrote: its members, and its entries that have
	// more than we would write. The maps are never changed.
	index   map[string]json.RawMessage
	entries map[entryKey]json.RawMessage
}

// entryKey tells the entries of an index.json apart.
type entryKey struct {
	digest digest.Digest
	tag    string
}

// content is what a file in a layout's blobs folder is there for.
type content struct {
	use
	size int64 // of a manifest
}

// use tells manifests from blobs. What has no use in the index is a blob.
type use uint8

const (
	asManifest use = 1 << iota
	asList         // of referrers, written by us
	asBlob         // too
)

// These annotations are in entries that we write.
const (
	// annotationList has the subject of a list of referrers.
	annotationList = "io.github.berth-oci.referrers"
	// annotationBlob is there where a manifest was also pushed as a blob.
	annotationBlob = "io.github.berth-oci.blob"
)

// maxIndex bounds what is read of files, in bytes.
const (
	maxIndex    = 1 << 30
	maxManifest = 64 << 20
)

func emptyLayout(name string) *layout {
	return &layout{name: name, manifests: new(registry.MemStore), content: make(map[digest.Digest]content)}
}

// clone returns a copy to be changed.
func (l *layout) clone() *layout {
	c := *l
	c.manifests = l.manifests.Clone()
	c.content = maps.Clone(l.content)
	c.order = slices.Clip(l.order)
	c.lists = maps.Clone(l.lists)
	return &c
}

func (u use) is(other use) bool { return u&other != 0 }

// isBlob reports whether a file of that name is a blob.
func (l *layout) isBlob(d digest.Digest) bool {
	c := l.content[d]
	return c.use == 0 || c.is(asBlob)
}

// readLayout reads the index.json in dir.
func readLayout(fsys fs.FS, dir, name string) (*layout, error) {
	f, err := fsys.Open(path.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := emptyLayout(name)
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
		var d ocispec.Descriptor
		if err := json.Unmarshal(raw, &d); err != nil || d.Digest.Validate() != nil {
			continue // nothing that could be asked for
		}
		if subject := digest.Digest(d.Annotations[annotationList]); subject != "" {
			if subject.Validate() == nil {
				l.setList(subject, d)
			}
			if d.Annotations[annotationBlob] != "" {
				l.take(d.Digest, asBlob)
			}
			continue
		}
		if err := l.add(fsys, dir, d, d.Annotations[ocispec.AnnotationRefName]); err != nil {
			return nil, err
		}
		if d.Annotations[annotationBlob] != "" {
			l.take(d.Digest, asBlob)
		}
		if d.Annotations[annotationBlob] == "" && !bytes.Equal(raw, entry(d.MediaType, d.Digest, d.Size, d.Annotations)) {
			if l.entries == nil {
				l.entries = make(map[entryKey]json.RawMessage)
			}
			l.entries[entryKey{d.Digest, tagOf(d.Annotations[ocispec.AnnotationRefName])}] = raw
		}
	}
	return l, nil
}

// add adds a manifest that the layout names, with those that it names itself.
// What is missing or broken is left out: others may have put the layout there.
func (l *layout) add(fsys fs.FS, dir string, d ocispec.Descriptor, ref string) error {
	var tags []string
	if tag := tagOf(ref); tag != "" {
		tags = []string{tag}
	}
	if l.content[d.Digest].is(asManifest) {
		return l.manifests.PutManifest(context.Background(), l.name, registry.Manifest{Digest: d.Digest}, tags, nil)
	}
	data, err := readContent(fsys, dir, d.Digest)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, registry.ErrTooLarge) {
		return nil
	}
	if err != nil {
		return err
	}
	p := registry.ManifestPush{MediaType: d.MediaType, Content: data, Digest: d.Digest, Tags: tags, Sparse: true}
	_, err = registry.PushManifest(context.Background(), withoutContent{l.manifests}, l.name, p)
	if errors.Is(err, registry.ErrManifestInvalid) && d.Digest == d.Digest.Algorithm().FromBytes(data) {
		// What others take for a manifest can at least be fetched.
		err = l.manifests.PutManifest(context.Background(), l.name, registry.Manifest{MediaType: d.MediaType, Digest: d.Digest}, tags, nil)
	}
	if errors.Is(err, registry.ErrDigestInvalid) || errors.Is(err, registry.ErrManifestInvalid) {
		return nil
	}
	if err != nil {
		return err
	}
	l.content[d.Digest] = content{asManifest, int64(len(data))}
	l.order = append(l.order, d.Digest)

	var index struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	json.Unmarshal(data, &index) // what is none has no children
	for _, child := range index.Manifests {
		if child.Digest.Validate() == nil && isManifestType(child.MediaType) {
			if err := l.add(fsys, dir, child, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}

// withoutContent keeps what is known of manifests.
type withoutContent struct{ *registry.MemStore }

func (s withoutContent) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow func(string, digest.Digest) error) error {
	m.Content = nil
	return s.MemStore.PutManifest(ctx, repo, m, tags, allow)
}

// setList notes a list of referrers that we wrote; d is empty where there is
// none any more.
func (l *layout) setList(subject digest.Digest, d ocispec.Descriptor) {
	if old := l.lists[subject].Digest; old != "" {
		l.drop(old, asList)
	}
	if d.Digest == "" {
		delete(l.lists, subject)
		return
	}
	if l.lists == nil {
		l.lists = make(map[digest.Digest]ocispec.Descriptor)
	}
	l.lists[subject] = d
	l.take(d.Digest, asList)
}

// take begins a use of content.
func (l *layout) take(d digest.Digest, u use) {
	c := l.content[d]
	c.use |= u
	l.content[d] = c
}

// drop ends a use of content.
func (l *layout) drop(d digest.Digest, u use) {
	c := l.content[d]
	if c.use &^= u; c.use&(asManifest|asList) == 0 { // a blob as any other
		delete(l.content, d)
		return
	}
	l.content[d] = c
}

// encode returns the index.json.
func (l *layout) encode() ([]byte, error) {
	ctx := context.Background()
	tags := make(map[digest.Digest][]string)
	for tag, err := range l.manifests.Tags(ctx, l.name, "") {
		if errors.Is(err, registry.ErrNameUnknown) {
			break // there are blobs alone
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
		refs := tags[d]
		if refs == nil {
			refs = []string{""}
		}
		for _, ref := range refs {
			annotations := make(map[string]string)
			if ref != "" {
				annotations[ocispec.AnnotationRefName] = ref
			}
			if l.content[d].is(asBlob) {
				annotations[annotationBlob] = "true"
			} else if raw, ok := l.entries[entryKey{d, ref}]; ok {
				entries = append(entries, raw)
				continue
			}
			entries = append(entries, entry(m.MediaType, d, l.content[d].size, annotations))
		}
	}
	for _, subject := range slices.Sorted(maps.Keys(l.lists)) {
		d := l.lists[subject]
		annotations := map[string]string{annotationList: subject.String()}
		// Where a client pushed something under that tag, the tag is its own.
		if _, err := l.manifests.GetTag(ctx, l.name, listTag(subject)); err != nil {
			annotations[ocispec.AnnotationRefName] = listTag(subject)
		}
		if l.content[d.Digest].is(asBlob) {
			annotations[annotationBlob] = "true"
		}
		entries = append(entries, entry(d.MediaType, d.Digest, d.Size, annotations))
	}
	index := maps.Clone(l.index)
	if index == nil {
		index = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		}
	}
	raw, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	index["manifests"] = raw
	return json.Marshal(index)
}

// entry is an entry of an index.json.
func entry(mediaType string, d digest.Digest, size int64, annotations map[string]string) json.RawMessage {
	raw, _ := json.Marshal(ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size, Annotations: annotations}) // strings and a number: cannot fail
	return raw
}

// listTag is the tag of a subject's list of referrers, as section "Referrers
// Tag Schema" has it.
func listTag(subject digest.Digest) string {
	algorithm, encoded := subject.Algorithm().String(), subject.Encoded()
	return algorithm[:min(32, len(algorithm))] + "-" + encoded[:min(64, len(encoded))]
}

// list returns the list of a subject's referrers, nil where there are none.
func (l *layout) list(subject digest.Digest) ([]byte, error) {
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
	return json.Marshal(index)
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

func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, registry.ErrTooLarge
	}
	return data, err
}
