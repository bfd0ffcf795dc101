// SPDX-License-Identifier: Apache-2.0

// Parsing of manifests. It is strict, since a document that two parsers
// understand differently is a security hole.

package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// references holds the content that a manifest refers to, the bytes that its
// digest covers, and its annotations if it has a subject.
type references struct {
	blobs, manifests []digest.Digest
	payload          []byte
	annotations      json.RawMessage
	incomplete       error // it lacks a member that its type requires
}

// parseManifest parses a manifest: the facts that a store keeps in addition to its
// bytes, and its references but for those that it passes to blob and manifest.
func parseManifest(mediaType string, content []byte, blob, manifest func(d []byte)) (Manifest, references, error) {
	fail := func(format string, args ...any) (Manifest, references, error) {
		return Manifest{}, references{}, fmt.Errorf("%w: "+format, append([]any{ErrManifestInvalid}, args...)...)
	}
	m := Manifest{Content: content}
	var err error
	if m.MediaType, err = manifestType(mediaType, content); err != nil {
		return fail("%s", err)
	}
	if !isManifest(m.MediaType) {
		return m, references{payload: content}, nil
	}
	if !utf8.Valid(content) { // RFC 8259 section 8.1
		return fail("not UTF-8")
	}
	doc, err := parseDocument(content, blob, manifest)
	if err != nil {
		return fail("%s", jsonFault(err))
	}
	if doc.mediaType != "" && doc.mediaType != m.MediaType {
		return fail("its mediaType is not its Content-Type")
	}
	refs, err := doc.references(m.MediaType, content)
	if err != nil {
		return fail("%s", err)
	}
	schema1 := m.MediaType == typeDockerSchema1 || m.MediaType == typeDockerSigned
	if doc.subject != nil && !schema1 { // tools set it in Docker's types too
		m.Subject = digest.Digest(doc.subject.digest)
		if checkDigest(m.Subject) != nil {
			return fail("malformed digest of the subject")
		}
		m.Referrer.ArtifactType = doc.artifactType
		if m.Referrer.ArtifactType == "" && doc.config != nil {
			m.Referrer.ArtifactType = doc.config.mediaType
		}
		refs.annotations = doc.annotations
	}
	return m, refs, nil
}

// manifestType returns the type of a manifest that was pushed with a
// Content-Type, or without one.
func manifestType(contentType string, content []byte) (string, error) {
	mediaType := "application/octet-stream"
	if contentType != "" {
		var ok bool
		if mediaType, ok = parseMediaType(contentType); !ok {
			return "", errors.New("malformed media type")
		}
	}
	if isManifest(mediaType) {
		return mediaType, nil
	}
	// The document may have a mediaType member. A client that pulls it under
	// another type would understand another document: CVE-2021-41190.
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(content, &doc) != nil {
		return mediaType, nil
	}
	member, ok := parseMediaType(doc.MediaType)
	switch {
	case contentType != "" && isManifest(member):
		return "", errors.New("its mediaType is not its Content-Type")
	case contentType == "" && doc.MediaType != "" && !ok:
		return "", errors.New("malformed media type")
	case contentType == "" && ok:
		return member, nil
	}
	return mediaType, nil
}

// document holds the members that are read, for all types of manifests, but for the
// descriptors in its lists.
type document struct {
	mediaType    string
	artifactType string
	config       *descriptor
	subject      *descriptor
	annotations  json.RawMessage // an object of strings
	signatures   []signature

	layers, manifests, fsLayers listMember
}

// listMember says whether a document has a list. Go's encoder writes an empty one as null.
type listMember int

const (
	listAbsent listMember = iota
	listNull
	listPresent
)

// descriptor holds parts of a document.
type descriptor struct {
	mediaType string
	digest    []byte
}

type signature struct {
	protected string
}

// references returns the references of a document of the given type, but for the content
// that it names. It rejects a document of two types at once, which some clients would read
// as an image and others as an index: CVE-2021-41190 again.
func (doc document) references(mediaType string, content []byte) (references, error) {
	refs := references{payload: content}
	switch mediaType {
	case ocispec.MediaTypeImageManifest, typeDockerManifest:
		if doc.manifests == listPresent || doc.fsLayers == listPresent {
			return refs, errors.New("an image manifest has no manifests and no fsLayers")
		}
		if doc.config == nil || doc.layers == listAbsent {
			refs.incomplete = fmt.Errorf("%w: an image manifest requires a config and layers", ErrManifestInvalid)
		}
	case ocispec.MediaTypeImageIndex, typeDockerList:
		if doc.config != nil || doc.layers == listPresent || doc.fsLayers == listPresent {
			return refs, errors.New("an index has no config and no layers")
		}
		if doc.manifests == listAbsent {
			refs.incomplete = fmt.Errorf("%w: an index requires manifests", ErrManifestInvalid)
		}
	case typeDockerSchema1, typeDockerSigned:
		if doc.config != nil || doc.layers == listPresent || doc.manifests == listPresent {
			return refs, errors.New("a schema 1 manifest has no config, layers and manifests")
		}
		if doc.fsLayers != listPresent {
			refs.incomplete = fmt.Errorf("%w: a schema 1 manifest requires fsLayers", ErrManifestInvalid)
		}
		if len(doc.signatures) > 0 {
			payload, ok := signedPayload(content, doc.signatures[0].protected)
			if !ok {
				return refs, errors.New("malformed signature")
			}
			refs.payload = payload
		} else if mediaType == typeDockerSigned {
			return refs, errors.New("no signature")
		}
	}
	return refs, nil
}

// parseDocument reads a manifest. It stops at the first fault, so that its
// memory is bounded by the size of content, not by the number of its faults. It passes the
// digests of the content that the manifest names to blob and manifest.
func parseDocument(content []byte, blob, manifest func(d []byte)) (doc document, err error) {
	if !json.Valid(content) {
		return doc, json.Unmarshal(content, new(json.RawMessage)) // its error has the position
	}
	err = eachMember(content, func(key, v []byte) (err error) {
		switch string(key) {
		case "mediaType":
			doc.mediaType, err = typeValue(v)
		case "artifactType":
			doc.artifactType, err = stringValue(v)
		case "config":
			if doc.config, err = parseOptional(v, "digest"); doc.config != nil && err == nil {
				blob(doc.config.digest)
			}
		case "subject":
			doc.subject, err = parseOptional(v, "digest")
		case "layers":
			doc.layers, err = parseDescriptors(v, "digest", func(d descriptor) {
				if !nonDistributable(d.mediaType) {
					blob(d.digest)
				}
			})
		case "manifests":
			doc.manifests, err = parseDescriptors(v, "digest", func(d descriptor) {
				if isManifest(d.mediaType) {
					manifest(d.digest)
				}
			})
		case "fsLayers":
			doc.fsLayers, err = parseDescriptors(v, "blobSum", func(d descriptor) { blob(d.digest) })
		case "annotations":
			doc.annotations, err = parseAnnotations(v)
		case "signatures":
			doc.signatures, err = parseSignatures(v)
		}
		return err
	}, "mediaType", "artifactType", "config", "subject", "layers", "manifests", "fsLayers", "annotations", "signatures")
	return doc, err
}

// maxSignatures is the maximum number of signatures; Docker made one.
const maxSignatures = 100

func parseSignatures(v []byte) (all []signature, err error) {
	err = eachElement(v, func(v []byte) error {
		if len(all) == maxSignatures {
			return errors.New("too many signatures")
		}
		var s signature
		err := eachMember(v, func(key, v []byte) (err error) {
			if string(key) == "protected" {
				s.protected, err = stringValue(v)
			}
			return err
		}, "protected")
		all = append(all, s)
		return err
	})
	return all, err
}

// parseDescriptor reads a descriptor. It requires a well formed digest, but of any
// algorithm: a manifest may name content that only others can verify.
func parseDescriptor(v []byte, digestKey string) (d descriptor, err error) {
	err = eachMember(v, func(key, v []byte) (err error) {
		switch string(key) {
		case "mediaType":
			d.mediaType, err = typeValue(v)
		case digestKey:
			d.digest, err = stringBytes(v)
		}
		return err
	}, "mediaType", digestKey)
	if err == nil && checkDigest(d.digest) == errBadDigest {
		err = errors.New("malformed digest in a descriptor")
	}
	return d, err
}

// parseOptional is parseDescriptor, nil for null.
func parseOptional(v []byte, digestKey string) (*descriptor, error) {
	if string(v) == "null" {
		return nil, nil
	}
	d, err := parseDescriptor(v, digestKey)
	return &d, err
}

// parseDescriptors calls each for the descriptors in a list.
func parseDescriptors(v []byte, digestKey string, each func(descriptor)) (listMember, error) {
	if string(v) == "null" {
		return listNull, nil
	}
	err := eachElement(v, func(v []byte) error {
		d, err := parseDescriptor(v, digestKey)
		if err == nil {
			each(d)
		}
		return err
	})
	return listPresent, err
}

// typeValue is stringValue for a media type, without a copy of the usual ones.
func typeValue(v []byte) (string, error) {
	s, err := stringBytes(v)
	if usual, ok := usualTypes[string(s)]; ok {
		return usual, err
	}
	return string(s), err
}

// parseAnnotations returns an object of strings, nil for an empty one or null.
func parseAnnotations(v []byte) (json.RawMessage, error) {
	if string(v) == "null" {
		return nil, nil
	}
	n := 0
	err := eachMember(v, func(_, v []byte) error {
		if n++; v[0] != '"' {
			return errJSONKind
		}
		return nil
	})
	if n == 0 {
		return nil, err
	}
	return v, err
}

// signedPayload returns the signed part of a Docker schema 1 manifest, which its
// digest covers: the first formatLength bytes, and formatTail. It must be the
// document without its signatures; otherwise the client could choose the digest.
func signedPayload(content []byte, protected string) (payload []byte, ok bool) {
	var format struct {
		Length int    `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	header, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(protected, "="))
	if err != nil || json.Unmarshal(header, &format) != nil {
		return nil, false
	}
	tail, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(format.Tail, "="))
	if err != nil || format.Length < 0 || format.Length > len(content) {
		return nil, false
	}
	rest, comma := bytes.CutPrefix(bytes.TrimSpace(content[format.Length:]), []byte(","))
	if !comma || !bytes.HasPrefix(bytes.TrimSpace(rest), []byte(`"signatures"`)) || string(bytes.TrimSpace(tail)) != "}" {
		return nil, false
	}
	payload = slices.Concat(content[:format.Length], tail)
	return payload, json.Valid(payload)
}
