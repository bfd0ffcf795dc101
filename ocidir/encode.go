// SPDX-License-Identifier: Apache-2.0

// Writing of index.json.

package ocidir

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// encode writes the index.json.
func (l *layout) encode(w io.Writer) error {
	b := bufio.NewWriterSize(w, 64<<10)
	index := l.index
	if index == nil {
		index = map[string]json.RawMessage{
			"schemaVersion": json.RawMessage("2"),
			"mediaType":     json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`),
		}
	}
	b.WriteByte('{')
	for _, key := range slices.Sorted(maps.Keys(index)) {
		name, err := marshal(key)
		if err != nil {
			return err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(index[key])
		b.WriteByte(',')
	}
	b.WriteString(`"manifests":[`)
	if err := l.encodeEntries(b); err != nil {
		return err
	}
	b.WriteString("]}")
	return b.Flush()
}

// encodeEntries writes the entries of the index.json.
func (l *layout) encodeEntries(b *bufio.Writer) error {
	tags, err := l.tagsByDigest()
	if err != nil {
		return err
	}
	separator := ""
	write := func(entry []byte) {
		b.WriteString(separator)
		b.Write(entry)
		separator = ","
	}
	var buffer []byte
	for _, c := range l.inOrder() {
		m, err := l.manifests.GetManifest(context.Background(), l.name, c.digest)
		if err != nil {
			return err
		}
		for _, tag := range *cmp.Or(tags[c.digest], untagged) {
			if raw, ok := l.entries.Get(entryKey(c.digest, tag)); ok && !c.has(asBlob) {
				write(raw)
				continue
			}
			buffer = appendEntry(buffer[:0], m.MediaType, c.digest, c.size, tag, c.has(asBlob))
			write(buffer)
		}
	}
	for subject := range l.lists.After("") {
		raw, err := marshal(l.listEntry(digest.Digest(subject)))
		if err != nil {
			return err
		}
		write(raw)
	}
	for _, raw := range l.unreadable.After("") {
		write(raw)
	}
	return nil
}

// untagged are the tags of a manifest without tags.
var untagged = &[]string{""}

// tagsByDigest returns the tags of each manifest that has some.
func (l *layout) tagsByDigest() (map[digest.Digest]*[]string, error) {
	tags := make(map[digest.Digest]*[]string)
	for tag, err := range l.manifests.Tags(context.Background(), l.name, "") {
		if errors.Is(err, registry.ErrNameUnknown) {
			break // the repository has only blobs
		}
		m, err := l.manifests.GetTag(context.Background(), l.name, tag)
		if err != nil {
			return nil, err
		}
		if tags[m.Digest] == nil {
			tags[m.Digest] = new([]string)
		}
		*tags[m.Digest] = append(*tags[m.Digest], tag)
	}
	return tags, nil
}

// orderedContent is content at its place in index.json.
type orderedContent struct {
	content
	digest digest.Digest
}

// inOrder returns the manifests in the order of index.json.
func (l *layout) inOrder() []orderedContent {
	all := make([]orderedContent, 0, l.content.Len())
	for d, c := range l.content.After("") {
		if c.has(asManifest) {
			all = append(all, orderedContent{c, digest.Digest(d)})
		}
	}
	slices.SortFunc(all, func(a, b orderedContent) int { return cmp.Compare(a.order, b.order) })
	return all
}

// appendEntry appends an entry of an index.json to b.
func appendEntry(b []byte, mediaType string, d digest.Digest, size int64, tag string, isBlob bool) []byte {
	if isPlain(mediaType) { // a tag is, too
		return appendPlainEntry(b, mediaType, d, size, tag, isBlob)
	}
	descriptor := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: size}
	descriptor.Annotations = make(map[string]string)
	if tag != "" {
		descriptor.Annotations[ocispec.AnnotationRefName] = tag
	}
	if isListTag(tag) {
		descriptor.Annotations[annotationTag] = "true"
	}
	if isBlob {
		descriptor.Annotations[annotationBlob] = "true"
	}
	if isIndexType(mediaType) {
		descriptor.Annotations[annotationChildren] = "listed"
	}
	raw, _ := marshal(descriptor) // strings and a number: cannot fail
	return append(b, raw...)
}

// isPlain reports whether a string is the same in JSON.
func isPlain(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// appendPlainEntry is appendEntry for a media type that is the same in JSON.
func appendPlainEntry(b []byte, mediaType string, d digest.Digest, size int64, tag string, isBlob bool) []byte {
	b = append(b, `{"mediaType":"`...)
	b = append(b, mediaType...)
	b = append(b, `","digest":"`...)
	b = append(b, d...)
	b = append(b, `","size":`...)
	b = strconv.AppendInt(b, size, 10)
	separator := `,"annotations":{"`
	annotate := func(key, value string) {
		b = append(append(append(append(append(b, separator...), key...), `":"`...), value...), '"')
		separator = `,"`
	}
	if isBlob {
		annotate(annotationBlob, "true")
	}
	if isIndexType(mediaType) {
		annotate(annotationChildren, "listed")
	}
	if isListTag(tag) {
		annotate(annotationTag, "true")
	}
	if tag != "" {
		annotate(ocispec.AnnotationRefName, tag)
	}
	if separator == `,"` {
		b = append(b, '}')
	}
	return append(b, '}')
}

// annotated returns d with another annotation.
func annotated(d ocispec.Descriptor, key, value string) ocispec.Descriptor {
	if d.Annotations = maps.Clone(d.Annotations); d.Annotations == nil {
		d.Annotations = make(map[string]string)
	}
	d.Annotations[key] = value
	return d
}
