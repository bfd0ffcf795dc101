// SPDX-License-Identifier: Apache-2.0

// The cache of what the manifests of a repository say, so that a layout can be
// loaded without reading each of them.

package ocidir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// factsFile is the name of the cache, a file of lines. It is not synced: a line
// that is damaged or missing costs reading the manifest.
const factsFile = ".index.cache"

// fact is what a layout needs to know of a manifest, a line of the cache. It is
// true for ever, since a digest names the content.
type fact struct {
	Digest       digest.Digest        `json:"digest"`
	MediaType    string               `json:"mediaType"`
	Size         int64                `json:"size"`
	Subject      digest.Digest        `json:"subject,omitempty"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Descriptor   json.RawMessage      `json:"descriptor,omitempty"` // in lists of referrers
	Children     []ocispec.Descriptor `json:"children,omitempty"`   // the manifests that it names
}

// isValid reports whether a fact can be that of a manifest.
func (f fact) isValid() bool {
	for _, child := range f.Children {
		if child.Digest.Validate() != nil {
			return false
		}
	}
	return f.Digest.Validate() == nil && (f.Subject == "" || f.Subject.Validate() == nil)
}

// manifest returns the manifest without its content.
func (f fact) manifest() registry.Manifest {
	m := registry.Manifest{MediaType: f.MediaType, Digest: f.Digest, Subject: f.Subject}
	if f.Subject != "" {
		m.Referrer = registry.Referrer{Digest: f.Digest, ArtifactType: f.ArtifactType, Descriptor: f.Descriptor}
	}
	return m
}

// factOf returns the fact of a manifest.
func factOf(m registry.Manifest, content []byte) fact {
	f := fact{
		Digest: m.Digest, MediaType: m.MediaType, Size: int64(len(content)),
		Subject: m.Subject, ArtifactType: m.Referrer.ArtifactType, Descriptor: m.Referrer.Descriptor,
	}
	for _, d := range childManifests(content) {
		if d.Digest.Validate() == nil && isManifestType(d.MediaType) {
			f.Children = append(f.Children, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
		}
	}
	return f
}

// parseFact parses a manifest, and reports whether the content has the digest d.
// Other tools may take other documents for manifests: they are opaque bytes.
func parseFact(mediaType string, d digest.Digest, content []byte) (fact, bool) {
	p := registry.ManifestPush{MediaType: mediaType, Content: content, Digest: d, Sparse: true}
	m, err := registry.PushManifest(context.Background(), withoutContent{new(registry.MemStore)}, "fact", p) // for its checks
	if errors.Is(err, registry.ErrManifestInvalid) && d == d.Algorithm().FromBytes(content) {
		return fact{Digest: d, MediaType: mediaType, Size: int64(len(content))}, true
	}
	return factOf(m, content), err == nil
}

// childManifests returns the entries of an index, nil for any other document.
func childManifests(content []byte) []ocispec.Descriptor {
	var index struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	json.Unmarshal(content, &index)
	return index.Manifests
}

// facts are the facts of a cache. Most manifests have neither a subject nor
// children: theirs take little memory.
type facts struct {
	lines int // of the cache
	plain map[[sha256.Size]byte]plainFact
	other map[digest.Digest]fact
}

// plainFact is the fact of a manifest without a subject and children, with a usual
// media type, and a SHA-256 digest.
type plainFact struct {
	size      int64
	mediaType int8 // its index in mediaTypes
}

// readFacts reads the cache of the layout in dir.
func readFacts(fsys fs.FS, dir string) (all facts) {
	f, err := openRegular(fsys, path.Join(dir, factsFile))
	if err != nil {
		return facts{}
	}
	defer f.Close()
	all = facts{0, make(map[[sha256.Size]byte]plainFact), make(map[digest.Digest]fact)}
	if info, err := f.Stat(); err == nil {
		const line = 170 // bytes, about
		all.plain = make(map[[sha256.Size]byte]plainFact, info.Size()/line)
	}
	eachLine(f, func(line []byte) error {
		all.lines++
		var one fact
		if decodeLine(line, &one) && one.isValid() {
			all.add(one)
		}
		return nil
	})
	return all
}

func (all facts) add(f fact) {
	mediaType := slices.Index(mediaTypes[:], f.MediaType)
	key, ok := sha256Of(f.Digest)
	if !ok || mediaType < 0 || f.Subject != "" || f.Children != nil {
		all.other[f.Digest] = f
		return
	}
	all.plain[key] = plainFact{f.Size, int8(mediaType)}
}

// get returns the fact of a manifest.
func (all facts) get(d digest.Digest) (fact, bool) {
	if key, ok := sha256Of(d); ok {
		if p, ok := all.plain[key]; ok {
			return fact{Digest: d, MediaType: mediaTypes[p.mediaType], Size: p.size}, true
		}
	}
	f, ok := all.other[d]
	return f, ok
}

// sha256Of returns the bytes of a SHA-256 digest.
func sha256Of(d digest.Digest) (sum [sha256.Size]byte, ok bool) {
	if d.Algorithm() != digest.SHA256 || len(d.Encoded()) != hex.EncodedLen(len(sum)) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(d.Encoded()))
	return sum, err == nil
}

// addFacts appends to the cache in dir. Errors do not matter.
func (d rootDir) addFacts(dir string, facts []fact) {
	if len(facts) == 0 {
		return
	}
	name := path.Join(dir, factsFile)
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return
	}
	defer f.Close()
	data := []byte("\n") // the last line may have been cut short
	for _, one := range facts {
		if data, err = appendLine(data, one); err != nil {
			return
		}
		if len(data) > 64<<10 {
			f.Write(data)
			data = data[:0]
		}
	}
	f.Write(data)
}

// compactFacts writes the cache in dir anew, with only the facts to keep, each once.
// It returns the number of its lines. Errors do not matter.
func (d rootDir) compactFacts(dir string, keep func(digest.Digest) bool) (lines int) {
	f, err := openRegular(d, path.Join(dir, factsFile))
	if err != nil {
		return 0
	}
	defer f.Close()
	var data []byte
	seen := make(map[digest.Digest]bool)
	eachLine(f, func(line []byte) error {
		var one fact
		if decodeLine(line, &one) && keep(one.Digest) && !seen[one.Digest] {
			seen[one.Digest] = true
			data = append(data, line...)
		}
		return nil
	})
	d.replace(path.Join(dir, factsFile), data)
	return len(seen)
}
