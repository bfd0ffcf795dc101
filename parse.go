// SPDX-License-Identifier: Apache-2.0

// What a manifest says, read once and for all: strictly, since what two readers
// understand differently is a hole.

package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types of manifests that are looked into. Manifests of any other
// type are kept as they are.
const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func isManifest(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		typeDockerManifest, typeDockerList, typeDockerSchema1, typeDockerSigned:
		return true
	}
	return false
}

// manifestDoc has what is looked at in all types of manifests that are looked
// into. Of its lists it has no more than their digests.
type manifestDoc struct {
	mediaType    string
	artifactType string
	config       *descriptor
	layers       []descriptor // nil: none in the document
	manifests    []descriptor
	fsLayers     []descriptor
	subject      *descriptor
	annotations  json.RawMessage // an object of strings
	signatures   []signature
}

type descriptor struct {
	mediaType string
	digest    digest.Digest
}

type signature struct {
	protected string
}

// parseManifest looks into a manifest, once and for all: what a store keeps of
// it beside its bytes, and what it names.
func parseManifest(mediaType string, content []byte) (Manifest, manifestNames, error) {
	fail := func(format string, args ...any) (Manifest, manifestNames, error) {
		return Manifest{}, manifestNames{}, fmt.Errorf("%w: "+format, append([]any{ErrManifestInvalid}, args...)...)
	}
	m := Manifest{Content: content}
	names := manifestNames{payload: content}

	m.MediaType = "application/octet-stream"
	if mediaType != "" {
		var ok bool
		if m.MediaType, ok = parseMediaType(mediaType); !ok {
			return fail("malformed media type")
		}
	}
	if !isManifest(m.MediaType) {
		// What the document says of itself, if it is one. To the client that
		// pulls it by another type it would be another document:
		// CVE-2021-41190.
		var own struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(content, &own) != nil {
			return m, names, nil
		}
		ownType, ok := parseMediaType(own.MediaType)
		switch {
		case mediaType != "" && isManifest(ownType):
			return fail("its mediaType is not its Content-Type")
		case mediaType == "" && own.MediaType != "" && !ok:
			return fail("malformed media type")
		case mediaType == "" && ok:
			m.MediaType = ownType
		}
		if !isManifest(m.MediaType) {
			return m, names, nil
		}
	}

	if !utf8.Valid(content) { // RFC 8259 section 8.1
		return fail("not UTF-8")
	}
	doc, err := parseDocument(content)
	if err != nil {
		return fail("%s", jsonFault(err))
	}
	if doc.mediaType != "" && doc.mediaType != m.MediaType {
		return fail("its mediaType is not its Content-Type")
	}
	// A body that is both an image and an index is one to some clients and the
	// other to others: the same CVE.
	switch m.MediaType {
	case ocispec.MediaTypeImageManifest, typeDockerManifest:
		if doc.manifests != nil || doc.fsLayers != nil {
			return fail("an image manifest has no manifests and no fsLayers")
		}
		if doc.config != nil {
			names.blobs = append(names.blobs, doc.config.digest)
		}
		for _, layer := range doc.layers {
			if !nonDistributable(layer.mediaType) {
				names.blobs = append(names.blobs, layer.digest)
			}
		}
	case ocispec.MediaTypeImageIndex, typeDockerList:
		if doc.config != nil || doc.layers != nil || doc.fsLayers != nil {
			return fail("an index has no config and no layers")
		}
		for _, child := range doc.manifests {
			if isManifest(child.mediaType) {
				names.manifests = append(names.manifests, child.digest)
			}
		}
	case typeDockerSchema1, typeDockerSigned:
		if doc.config != nil || doc.layers != nil || doc.manifests != nil {
			return fail("a schema 1 manifest has no config, layers and manifests")
		}
		for _, layer := range doc.fsLayers {
			names.blobs = append(names.blobs, layer.digest)
		}
		if len(doc.signatures) > 0 {
			payload, ok := signedPayload(content, doc.signatures[0].protected)
			if !ok {
				return fail("malformed signature")
			}
			names.payload = payload
		} else if m.MediaType == typeDockerSigned {
			return fail("no signature")
		}
	}
	// Layers are often the same: an empty one, say.
	names.blobs = compact(names.blobs)
	names.manifests = compact(names.manifests)

	oci := m.MediaType == ocispec.MediaTypeImageManifest || m.MediaType == ocispec.MediaTypeImageIndex
	if oci && doc.subject != nil {
		if checkDigest(doc.subject.digest) != nil {
			return fail("malformed digest of the subject")
		}
		m.Subject = doc.subject.digest
		m.Referrer.ArtifactType = doc.artifactType
		if m.Referrer.ArtifactType == "" && doc.config != nil {
			m.Referrer.ArtifactType = doc.config.mediaType
		}
		names.annotations = doc.annotations
	}
	return m, names, nil
}

// parseMediaType returns a media type without its parameters (RFC 9110 section
// 8.3.1), in lower case.
func parseMediaType(s string) (string, bool) {
	s, _, _ = strings.Cut(s, ";") // "The client SHOULD NOT include parameters": whatever they are
	t, _, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(t, "/") {
		return "", false
	}
	return strings.Clone(t), true // not all of a long header
}

// parseDocument reads a manifest. It stops at the first thing that is wrong, so
// that what it holds is bounded by what content says, not by how often.
func parseDocument(content []byte) (doc manifestDoc, err error) {
	if !json.Valid(content) {
		return doc, json.Unmarshal(content, new(json.RawMessage)) // which tells where
	}
	err = members(content, func(key string, v []byte) (err error) {
		switch key {
		case "mediaType":
			doc.mediaType, err = text(v)
		case "artifactType":
			doc.artifactType, err = text(v)
		case "config":
			doc.config, err = parseDescriptor(v, "digest")
		case "subject":
			doc.subject, err = parseDescriptor(v, "digest")
		case "layers":
			doc.layers, err = parseDescriptors(v, "digest")
		case "manifests":
			doc.manifests, err = parseDescriptors(v, "digest")
		case "fsLayers":
			doc.fsLayers, err = parseDescriptors(v, "blobSum")
		case "annotations":
			doc.annotations, err = parseAnnotations(v)
		case "signatures":
			err = elements(v, func(v []byte) error {
				if len(doc.signatures) == maxSignatures {
					return errors.New("too many signatures")
				}
				var s signature
				err := members(v, func(key string, v []byte) (err error) {
					if key == "protected" {
						s.protected, err = text(v)
					}
					return err
				}, "protected")
				doc.signatures = append(doc.signatures, s)
				return err
			})
		}
		return err
	}, "mediaType", "artifactType", "config", "subject", "layers", "manifests", "fsLayers", "annotations", "signatures")
	return doc, err
}

// maxSignatures is the most that a manifest may have; Docker made one.
const maxSignatures = 100

// parseDescriptor reads a descriptor, nil for null. Its digest must be one, if of
// an algorithm unknown here: a manifest may name what only others can verify.
func parseDescriptor(v []byte, digestKey string) (*descriptor, error) {
	if string(v) == "null" {
		return nil, nil
	}
	var d descriptor
	err := members(v, func(key string, v []byte) (err error) {
		s := ""
		switch key {
		case "mediaType":
			d.mediaType, err = text(v)
		case digestKey:
			s, err = text(v)
			d.digest = digest.Digest(s)
		}
		return err
	}, "mediaType", digestKey)
	if err == nil && checkDigest(d.digest) == errBadDigest {
		err = errors.New("malformed digest in a descriptor")
	}
	return &d, err
}

// parseDescriptors reads a list of descriptors, nil for null.
func parseDescriptors(v []byte, digestKey string) ([]descriptor, error) {
	if string(v) == "null" {
		return nil, nil
	}
	all := []descriptor{}
	err := elements(v, func(v []byte) error {
		d, err := parseDescriptor(v, digestKey)
		if err == nil && d == nil {
			err = errJSONKind
		}
		if err == nil {
			all = append(all, *d)
		}
		return err
	})
	return all, err
}

// parseAnnotations returns an object of strings, nil for an empty one or null.
func parseAnnotations(v []byte) (json.RawMessage, error) {
	if string(v) == "null" {
		return nil, nil
	}
	n := 0
	err := members(v, func(_ string, v []byte) error {
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

// The functions below read JSON that is known to be valid.

// members has each member of an object read. Of those that are known, one that
// stands there twice, or in letters of another case, is an error: JSON parsers
// differ in what they make of it.
func members(v []byte, read func(key string, v []byte) error, known ...string) error {
	if v = trim(v); v[0] != '{' {
		return errJSONKind
	}
	var seen uint // a bit for each in known
	for v = trim(v[1:]); v[0] != '}'; {
		end := valueEnd(v)
		key, err := text(v[:end])
		if err != nil {
			return err
		}
		v = trim(trim(v[end:])[1:]) // the colon
		end = valueEnd(v)
		for i, name := range known {
			if !strings.EqualFold(name, key) {
				continue
			}
			if name != key {
				return fmt.Errorf("a member that is %s in other letters", name)
			}
			if seen&(1<<i) != 0 {
				return fmt.Errorf("two members %s", name)
			}
			seen |= 1 << i
		}
		if err := read(key, v[:end]); err != nil {
			return err
		}
		if v = trim(v[end:]); v[0] == ',' {
			v = trim(v[1:])
		}
	}
	return nil
}

// elements has each element of an array read.
func elements(v []byte, read func(v []byte) error) error {
	if v = trim(v); v[0] != '[' {
		return errJSONKind
	}
	for v = trim(v[1:]); v[0] != ']'; {
		end := valueEnd(v)
		if err := read(v[:end]); err != nil {
			return err
		}
		if v = trim(v[end:]); v[0] == ',' {
			v = trim(v[1:])
		}
	}
	return nil
}

// text returns a string, "" for null.
func text(v []byte) (s string, err error) {
	switch {
	case v[0] == '"' && bytes.IndexByte(v, '\\') < 0:
		return string(v[1 : len(v)-1]), nil
	case v[0] == '"':
		return s, json.Unmarshal(v, &s)
	case string(v) == "null":
		return "", nil
	}
	return "", errJSONKind
}

// trim returns v without the space before it.
func trim(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t' || v[0] == '\n' || v[0] == '\r') {
		v = v[1:]
	}
	return v
}

// valueEnd returns the length of the value that v begins with.
func valueEnd(v []byte) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			for i++; v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i // the end of a number or a word
			}
			continue
		default:
			if depth == 0 && i+1 < len(v) && (v[i+1] == '}' || v[i+1] == ']') {
				return i + 1 // as before
			}
			continue
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(v)
}

var errJSONKind = errors.New("a value of the wrong type")

func compact(list []digest.Digest) []digest.Digest {
	slices.Sort(list)
	return slices.Compact(list)
}

// jsonFault says what is wrong with a document, without quoting it.
func jsonFault(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("malformed JSON at byte %d", syntax.Offset)
	case errors.As(err, &kind):
		return errJSONKind.Error()
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "malformed JSON: it ends early"
	}
	return err.Error()
}

// nonDistributable reports whether layers of a type need not be in a registry:
// the image-spec's non-distributable layers, Docker's foreign ones.
func nonDistributable(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// signedPayload returns what was signed of a Docker schema 1 manifest, of
// which its digest is: the first formatLength bytes, and formatTail. That must
// be the document without its signatures: with anything else, the digest would
// be of the client's choice.
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
