// SPDX-License-Identifier: Apache-2.0

// The names of objects: see the layout in the package's comment.

package bucket

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	namesPrefix   = "names/"
	blobsPrefix   = "blobs/"
	uploadsPrefix = "uploads/"
)

// A repository's name as one component of a key, so that none is another's
// directory, and in the same byte order: each of - . / becomes the character
// that takes its place before the digits.
var (
	flatten   = strings.NewReplacer("-", "!", ".", "-", "/", ".")
	unflatten = strings.NewReplacer("!", "-", "-", ".", ".", "/")
)

func nameKey(repo string) string { return namesPrefix + flatten.Replace(repo) }

// contentPrefix is of all that makes a repository exist, and of its other
// objects, which sort after that.
func contentPrefix(repo string) string { return "repos/" + repo + "/_" }

func linkKey(repo string, d digest.Digest) string {
	return contentPrefix(repo) + "blobs/" + digestPath(d)
}

func manifestKey(repo string, d digest.Digest) string {
	return contentPrefix(repo) + "manifests/" + digestPath(d)
}

func referrersPrefix(repo string, subject digest.Digest) string {
	return contentPrefix(repo) + "referrers/" + digestPath(subject) + "/"
}

func hintsPrefix(repo string, d digest.Digest) string {
	return contentPrefix(repo) + "tagged/" + digestPath(d) + "/"
}

func tagsPrefix(repo string) string { return contentPrefix(repo) + "tags/" }

func dataKey(d digest.Digest, data string) string {
	return blobsPrefix + digestPath(d) + "/data/" + data
}

func condemnedKey(d digest.Digest, data string) string {
	return blobsPrefix + digestPath(d) + "/condemned/" + data
}

func inversePrefix(d digest.Digest) string { return blobsPrefix + digestPath(d) + "/links/" }

// inverseKey tells of a link that it is there. It has the link's own ID: once
// that link is gone, no other ever has this key, and so it may be deleted
// without a condition.
func inverseKey(d digest.Digest, l link, repo string) string {
	return inversePrefix(d) + l.Data + "/" + l.ID + "/" + repo
}

// parseInverse is the inverse of inverseKey, after its prefix.
func parseInverse(name string) (l link, repo string, ok bool) {
	l.Data, name, _ = strings.Cut(name, "/")
	l.ID, repo, ok = strings.Cut(name, "/")
	return l, repo, ok
}

// word is what names are made of, but for the slashes of repositories.
const word = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-="

// plain returns the part of a name to start a list after that may be a part of a
// key: it comes as a request has it. Who lists skips what is left.
func plain(after string) string {
	after = after[:min(len(after), 255)]
	for i := range len(after) {
		if strings.IndexByte(word+"/", after[i]) < 0 {
			return after[:i]
		}
	}
	return after
}

// validID reports whether an upload session may have this ID. What a request
// names comes here unchecked, and would be a part of a key.
func validID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 128 && strings.Trim(id, word) == ""
}

func stateKey(id string) string { return uploadsPrefix + id + "/state" }

func partKey(id, part string) string { return uploadsPrefix + id + "/part-" + part }

// digestPath is a digest as components of a key.
func digestPath(d digest.Digest) string { return strings.Replace(string(d), ":", "/", 1) }

func parseDigestPath(path string) digest.Digest {
	return digest.Digest(strings.Replace(path, "/", ":", 1))
}

// newUUID returns a random UUID (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
