// SPDX-License-Identifier: Apache-2.0

// The keys of objects: see the layout in the package's comment.

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
	checkPrefix   = "check/"
	reposPrefix   = "repos/"
)

// flattenName turns a repository's name into one component of a key, so that no
// name is a directory of another. It keeps the byte order: - . / become three
// other characters that sort before the digits, in the same order. unflattenName
// is its inverse.
var (
	flattenName   = strings.NewReplacer("-", "!", ".", "-", "/", ".")
	unflattenName = strings.NewReplacer("!", "-", "-", ".", ".", "/")
)

func nameKey(repo string) string { return namesPrefix + flattenName.Replace(repo) }

// contentPrefix is the prefix of a repository's objects. Those that make the
// repository exist, blobs and manifests, sort before the others.
func contentPrefix(repo string) string { return reposPrefix + repo + "/_" }

func linksPrefix(repo string) string { return contentPrefix(repo) + "blobs/" }

func linkKey(repo string, d digest.Digest) string { return linksPrefix(repo) + digestPath(d) }

func manifestsPrefix(repo string) string { return contentPrefix(repo) + "manifests/" }

func manifestKey(repo string, d digest.Digest) string { return manifestsPrefix(repo) + digestPath(d) }

func referrersPrefix(repo string, subject digest.Digest) string {
	return contentPrefix(repo) + "referrers/" + digestPath(subject) + "/"
}

func referrerKey(repo string, subject, d digest.Digest, incarnation string) string {
	return referrersPrefix(repo, subject) + digestPath(d) + "/" + incarnation
}

func packsPrefix(repo string, subject digest.Digest) string {
	return contentPrefix(repo) + "packs/" + digestPath(subject) + "/"
}

func hintsPrefix(repo string, d digest.Digest) string {
	return contentPrefix(repo) + "tagged/" + digestPath(d) + "/"
}

func tagsPrefix(repo string) string { return contentPrefix(repo) + "tags/" }

func tagKey(repo, name string) string { return tagsPrefix(repo) + name }

func dataKey(d digest.Digest, data string) string {
	return blobsPrefix + digestPath(d) + "/data/" + data
}

func condemnedKey(d digest.Digest, data string) string {
	return blobsPrefix + digestPath(d) + "/condemned/" + data
}

func inversePrefix(d digest.Digest) string { return blobsPrefix + digestPath(d) + "/links/" }

// inverseKey returns the key of a link's inverse. It contains the link's own ID:
// no other link will ever have the same key, so once the link is gone, the inverse
// may be deleted without a condition.
func inverseKey(d digest.Digest, l link, repo string) string {
	return inversePrefix(d) + l.Data + "/" + l.ID + "/" + repo
}

// parseInverseKey is the inverse of inverseKey, without its prefix.
func parseInverseKey(name string) (l link, repo string, ok bool) {
	l.Data, name, _ = strings.Cut(name, "/")
	l.ID, repo, ok = strings.Cut(name, "/")
	return l, repo, ok
}

// parseBlobKey is the inverse of dataKey, condemnedKey and inverseKey, without
// blobsPrefix.
func parseBlobKey(key string) (d digest.Digest, kind, name string, ok bool) {
	alg, rest, _ := strings.Cut(key, "/")
	hex, rest, _ := strings.Cut(rest, "/")
	kind, name, ok = strings.Cut(rest, "/")
	return digest.Digest(alg + ":" + hex), kind, name, ok
}

// nameChars are the characters of names, other than the slashes of repositories.
const nameChars = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-="

// keyPart returns the longest prefix of after that may be part of a key. The name
// after which a list starts comes from a request, unchecked. A list that starts at
// keyPart may begin too early, so the caller must skip names up to after.
//
// MinIO rejects keys with components that are empty, "." or "..". No name has such
// components, neither as it is nor flattened.
func keyPart(after string) string {
	after = after[:min(len(after), 255)]
	for i := range len(after) {
		if strings.IndexByte(nameChars+"/", after[i]) < 0 {
			after = after[:i]
			break
		}
	}
	end := 0 // of the component, and the slash after it
	for component := range strings.SplitSeq(after, "/") {
		if component == "" || component == "." || component == ".." {
			return after[:max(0, end-1)]
		}
		end += len(component) + 1
	}
	return after
}

// validID reports whether id may be the ID of an upload session. An ID comes from
// a request, unchecked, and becomes a component of a key, which some buckets change if
// it ends in "..".
func validID(id string) bool {
	return id != "" && id != "." && !strings.HasSuffix(id, "..") && len(id) <= 128 && strings.Trim(id, nameChars) == ""
}

// sessionKey returns the part of a key that names an upload session: an ID that a
// client chose names nothing in another repository. No repository's name begins
// with "_", which keeps these keys apart from uploads/<id>/, where earlier versions
// kept sessions: GC deletes those.
func sessionKey(repo, id string) string { return flattenName.Replace(repo) + "/_" + id }

func stateKey(session string) string { return uploadsPrefix + session + "/state" }

func partKey(session, part string) string { return uploadsPrefix + session + "/part-" + part }

// digestPath returns a digest as two components of a key.
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
