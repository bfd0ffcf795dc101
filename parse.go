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
	Protected string `json:"protected"`
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
			payload, ok := signedPayload(content, doc.signatures[0].Protected)
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
	descriptors := func(list *[]descriptor, digestKey string) func(*json.Decoder) error {
		return func(dec *json.Decoder) error {
			all := []descriptor{}
			null, err := elements(dec, func() error {
				d, err := parseDescriptor(dec, digestKey)
				all = append(all, d)
				return err
			})
			if !null {
				*list = all
			}
			return err
		}
	}
	one := func(d **descriptor) func(*json.Decoder) error {
		return func(dec *json.Decoder) error {
			var raw json.RawMessage
			if err := dec.Decode(&raw); err != nil || string(raw) == "null" {
				return err
			}
			parsed, err := parseDescriptor(json.NewDecoder(bytes.NewReader(raw)), "digest")
			*d = &parsed
			return err
		}
	}
	value := func(v any) func(*json.Decoder) error {
		return func(dec *json.Decoder) error { return dec.Decode(v) }
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	err = members(dec, map[string]func(*json.Decoder) error{
		"mediaType":    value(&doc.mediaType),
		"artifactType": value(&doc.artifactType),
		"config":       one(&doc.config),
		"layers":       descriptors(&doc.layers, "digest"),
		"manifests":    descriptors(&doc.manifests, "digest"),
		"fsLayers":     descriptors(&doc.fsLayers, "blobSum"),
		"subject":      one(&doc.subject),
		"annotations":  func(dec *json.Decoder) (err error) { doc.annotations, err = readStrings(dec); return err },
		"signatures":   value(&doc.signatures),
	})
	if err != nil {
		return doc, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return doc, errors.New("malformed JSON: something after the document")
	}
	return doc, nil
}

// readStrings returns an object of strings, nil for an empty one or null.
func readStrings(dec *json.Decoder) (raw json.RawMessage, err error) {
	if err := dec.Decode(&raw); err != nil || string(raw) == "null" {
		return nil, err
	}
	inner := json.NewDecoder(bytes.NewReader(raw))
	if err := delimiter(inner, '{'); err != nil {
		return nil, err
	}
	if !inner.More() {
		return nil, nil
	}
	for inner.More() {
		if _, err := inner.Token(); err != nil { // the key
			return nil, err
		}
		value, err := inner.Token()
		if err != nil {
			return nil, err
		}
		if _, ok := value.(string); !ok {
			return nil, errJSONKind
		}
	}
	return raw, nil
}

// parseDescriptor reads a descriptor, whose digest must be one, if of an
// algorithm unknown here: a manifest may name what only others can verify.
func parseDescriptor(dec *json.Decoder, digestKey string) (d descriptor, err error) {
	err = members(dec, map[string]func(*json.Decoder) error{
		"mediaType": func(dec *json.Decoder) error { return dec.Decode(&d.mediaType) },
		digestKey:   func(dec *json.Decoder) error { return dec.Decode(&d.digest) },
	})
	if err == nil && checkDigest(d.digest) == errBadDigest {
		err = errors.New("malformed digest in a descriptor")
	}
	return d, err
}

// members reads a JSON object, and has each member in known read by its
// function. A member that stands there twice, or in letters of another case, is
// an error: JSON parsers differ in what they make of it.
func members(dec *json.Decoder, known map[string]func(*json.Decoder) error) error {
	if err := delimiter(dec, '{'); err != nil {
		return err
	}
	seen := make(map[string]bool, len(known))
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		key := token.(string) // a decoder gives no other
		read, ok := known[key]
		switch {
		case !ok:
			for k := range known {
				if strings.EqualFold(k, key) {
					return fmt.Errorf("a member that is %s in other letters", k)
				}
			}
			var skipped json.RawMessage
			err = dec.Decode(&skipped)
		case seen[key]:
			return fmt.Errorf("two members %s", key)
		default:
			seen[key] = true
			err = read(dec)
		}
		if err != nil {
			return err
		}
	}
	return delimiter(dec, '}')
}

// elements reads a JSON array, each element by read, or null.
func elements(dec *json.Decoder, read func() error) (null bool, err error) {
	token, err := dec.Token()
	if err != nil || token == nil {
		return true, err
	}
	if token != json.Delim('[') {
		return false, errJSONKind
	}
	for dec.More() {
		if err := read(); err != nil {
			return false, err
		}
	}
	return false, delimiter(dec, ']')
}

func delimiter(dec *json.Decoder, want json.Delim) error {
	token, err := dec.Token()
	if err == nil && token != want {
		err = errJSONKind
	}
	return err
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
