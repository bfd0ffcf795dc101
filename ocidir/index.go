// SPDX-License-Identifier: Apache-2.0

// Reading of index.json.

package ocidir

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Annotations of entries that the store writes.
const (
	// annotationList is the subject of a list of referrers.
	annotationList = "io.github.berth-oci.referrers"
	// annotationTag marks a tag that has the form of a list's tag, but is an
	// ordinary tag.
	annotationTag = "io.github.berth-oci.tag"
	// annotationChildren marks an index whose children have entries of their own,
	// unless they were deleted.
	annotationChildren = "io.github.berth-oci.children"
	// annotationBlob marks a manifest that was pushed as a blob too.
	annotationBlob = "io.github.berth-oci.blob"
)

// The maximum sizes of files to read, in bytes.
const (
	maxIndex    = 1 << 30
	maxManifest = 64 << 20
)

// folder is the folder of a repository as it is read.
type folder struct {
	fsys  fs.FS
	dir   string
	facts facts
}

// has reports whether there is a file with the digest d.
func (f folder) has(d digest.Digest) bool {
	info, err := fs.Stat(f.fsys, contentPath(f.dir, d))
	return err == nil && info.Mode().IsRegular()
}

func (f folder) content(d digest.Digest) ([]byte, error) { return readContent(f.fsys, f.dir, d) }

// readIndex reads the index.json in a folder.
func readIndex(fsys fs.FS, dir, name string, noLists bool) (*layout, error) {
	file := path.Join(dir, ocispec.ImageIndexFile)
	f, err := openRegular(fsys, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := emptyLayout(name, noLists)
	if l.info, err = f.Stat(); err != nil {
		return nil, err
	}
	hash := digest.Canonical.Digester()
	src := folder{fsys, dir, readFacts(fsys, dir)}
	l.cacheLines = src.facts.lines
	data := io.TeeReader(io.LimitReader(f, maxIndex), hash.Hash())
	if err := l.decode(data, src); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		return nil, err
	}
	l.hash = hash.Digest()
	return l, nil
}

// decode adds what the JSON of an index.json says, without holding all of it in
// memory.
func (l *layout) decode(r io.Reader, src folder) error {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return cmp.Or(noEOF(err), errors.New("not a JSON object"))
	}
	l.index = make(map[string]json.RawMessage)
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return noEOF(err)
		}
		if key != "manifests" {
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil {
				return noEOF(err)
			}
			l.index[key.(string)] = raw
			continue
		}
		start, err := d.Token()
		if start == nil && err == nil {
			continue // null
		}
		if err != nil || start != json.Delim('[') {
			return cmp.Or(noEOF(err), errors.New("manifests is not an array"))
		}
		for d.More() {
			var raw json.RawMessage
			if err := d.Decode(&raw); err != nil {
				return noEOF(err)
			}
			if err := l.addEntry(src, raw); err != nil {
				return err
			}
		}
		if _, err := d.Token(); err != nil {
			return noEOF(err)
		}
	}
	if _, err := d.Token(); err != nil {
		return noEOF(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data after the JSON object")
	}
	return nil
}

// noEOF returns err, or io.ErrUnexpectedEOF for the end of a file that is cut short.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// indexEntry is an entry of an index.json.
type indexEntry struct {
	ocispec.Descriptor
	tag string
}

// parseEntry parses an entry of an index.json.
func parseEntry(raw json.RawMessage) (indexEntry, error) {
	var e indexEntry
	if err := json.Unmarshal(raw, &e.Descriptor); err != nil {
		return indexEntry{}, err
	}
	e.tag = tagOf(e.Annotations[ocispec.AnnotationRefName])
	e.MediaType = intern(e.MediaType)
	return e, e.Digest.Validate()
}

const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"

// mediaTypes are strings that many manifests share.
var mediaTypes = [...]string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json", dockerList,
}

// intern returns s, without memory of its own if it is a usual media type.
func intern(s string) string {
	for _, known := range mediaTypes {
		if s == known {
			return known
		}
	}
	return s
}

// isIndexType reports whether a media type is that of an index or a list.
func isIndexType(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerList
}

func isManifestType(mediaType string) bool { return slices.Contains(mediaTypes[:], mediaType) }

// addEntry adds an entry of the index.json: a manifest, a tag or a list of
// referrers.
func (l *layout) addEntry(src folder, raw json.RawMessage) error {
	e, err := parseEntry(raw)
	if err != nil {
		l.unreadable = l.unreadable.With(string(raw), raw)
		return nil
	}
	subject := digest.Digest(e.Annotations[annotationList])
	if l.noLists {
		subject = ""
	} else if subject == "" && e.Annotations[annotationTag] == "" {
		if subject, err = l.subjectOfList(src, e); err != nil {
			return err
		}
	}
	switch {
	case subject == "":
		readable, err := l.addManifest(src, e.Descriptor, e.tag, e.Annotations[annotationChildren] == "")
		if err != nil {
			return err
		}
		if !readable {
			l.unreadable = l.unreadable.With(entryKey(e.Digest, e.tag), raw)
			return nil
		}
		l.keepEntry(e, raw)
	case subject.Validate() != nil:
	case e.tag == "" && l.hasList(subject): // another tool has replaced the store's list, and taken over its tag
	default:
		l.setList(subject, e.Descriptor)
	}
	if e.Annotations[annotationBlob] != "" {
		l.addUse(e.Digest, asBlob)
	}
	return nil
}

// keepEntry keeps an entry that another tool wrote, unless the store would write
// the same.
func (l *layout) keepEntry(e indexEntry, raw json.RawMessage) {
	if e.Annotations[annotationBlob] != "" {
		return
	}
	if isListTag(e.tag) && e.Annotations[annotationTag] == "" {
		raw = annotateRaw(raw, annotationTag, "true")
	}
	if isIndexType(e.MediaType) && e.Annotations[annotationChildren] == "" {
		raw = annotateRaw(raw, annotationChildren, "listed")
	}
	if bytes.Equal(raw, appendEntry(nil, e.MediaType, e.Digest, e.Size, e.tag, false)) {
		return
	}
	l.entries = l.entries.With(entryKey(e.Digest, e.tag), raw)
}

// annotateRaw returns an entry with another annotation, and all that another tool
// wrote in it.
func annotateRaw(raw json.RawMessage, key, value string) json.RawMessage {
	var entry map[string]json.RawMessage
	var annotations map[string]string
	json.Unmarshal(raw, &entry) // it was parsed before: none of this can fail
	json.Unmarshal(entry["annotations"], &annotations)
	if annotations == nil {
		annotations = make(map[string]string)
	}
	annotations[key] = value
	entry["annotations"], _ = marshal(annotations)
	raw, _ = marshal(entry)
	return raw
}

// addManifest adds a manifest, and points tag at it unless tag is empty. It adds the
// manifests that it names too, if withChildren is set: the index.json of some tools
// does not have them. It reports whether the manifest can be read: other tools may
// have written the layout.
func (l *layout) addManifest(src folder, d ocispec.Descriptor, tag string, withChildren bool) (readable bool, err error) {
	var tags []string
	if tag != "" {
		tags = []string{tag}
	}
	if l.uses(d.Digest).has(asManifest) { // with the media type of its first entry
		m, err := l.manifests.GetManifest(context.Background(), l.name, d.Digest)
		if err != nil {
			return false, err
		}
		return true, l.manifests.PutManifest(context.Background(), l.name, m, tags, nil)
	}
	f, ok := src.facts.get(d.Digest)
	if !ok || f.MediaType != d.MediaType {
		data, err := src.content(d.Digest)
		if err != nil {
			if isMissing(err) || errors.Is(err, registry.ErrTooLarge) {
				err = nil
			}
			return false, err
		}
		if f, ok = parseFact(d.MediaType, d.Digest, data); !ok {
			return false, nil
		}
		if f.MediaType == d.MediaType {
			l.unsaved = append(l.unsaved, f)
		}
	}
	if err := l.putManifest(f.manifest(), f.Size, nil, tags, nil, time.Time{}); err != nil {
		return false, err
	}
	l.stale = l.stale.Without(string(f.Subject)) // until it turns out to be
	for _, child := range f.Children {
		if !withChildren || !src.has(child.Digest) {
			continue
		}
		if _, err := l.addManifest(src, child, "", true); err != nil {
			return false, err
		}
	}
	return true, nil
}

// readContent reads a manifest's file.
func readContent(fsys fs.FS, dir string, d digest.Digest) ([]byte, error) {
	f, err := openRegular(fsys, contentPath(dir, d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, maxManifest)
}

// openRegular opens a file. A folder or anything else that is no regular file does
// not exist.
func openRegular(fsys fs.FS, name string) (fs.File, error) {
	info, err := fs.Stat(fsys, name)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return fsys.Open(name)
}

// readAll reads r to its end. Errors: registry.ErrTooLarge.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, registry.ErrTooLarge
	}
	return data, err
}
