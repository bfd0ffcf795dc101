// SPDX-License-Identifier: Apache-2.0

// The grammar of repository names, tags, digests and upload IDs, and the paths
// made of them.

package registry

import (
	"fmt"
	"net/url"
	"strings"

	_ "crypto/sha256" // the digest algorithms of go-digest
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
)

// maxName is the maximum length of a repository name. The spec tells clients to
// limit the host and the name together to 255 characters (section "Pulling
// manifests").
const maxName = 255

// validName reports whether s is a repository name:
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func validName(s string) bool {
	if len(s) > maxName {
		return false
	}
	separators := "/" // since the last letter or digit; a name may not start with one
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			separators = ""
			continue
		}
		// c may extend only some separators.
		switch {
		case c == '-' && strings.Trim(separators, "-") == "":
		case c == '_' && (separators == "" || separators == "_"):
		case (c == '.' || c == '/') && separators == "":
		default:
			return false
		}
		separators = s[i-len(separators) : i+1]
	}
	return s != "" && separators == ""
}

// validTag reports whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
func validTag(s string) bool {
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
		if !word && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return 0 < len(s) && len(s) <= 128
}

// errBadTag rejects a malformed tag in a push. The spec has no code of its own
// for it.
var errBadTag = fmt.Errorf("%w: malformed tag", ErrNameInvalid)

// checkDigest returns an error unless d is well formed and of an available
// algorithm. It does the work of d.Validate without regular expressions, since
// it runs for every request.
func checkDigest[D ~string | ~[]byte](d D) error {
	n := 0 // the length of the algorithm
	for n < len(d) && d[n] != ':' {
		n++
	}
	if n+1 >= len(d) {
		return errBadDigest
	}
	a, encoded := digest.Algorithm(d[:n]), d[n+1:]
	if !a.Available() {
		if digest.DigestRegexpAnchored.MatchString(string(d)) {
			return errBadAlgorithm
		}
		return errBadDigest
	}
	if len(encoded) != a.Size()*2 {
		return errBadDigest
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errBadDigest
		}
	}
	return nil
}

// validUploadID reports whether a client may choose id: it becomes part of a
// path in Locations, and perhaps in a store.
func validUploadID(id string) bool {
	const word = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-="
	return id != "." && id != ".." && len(id) <= 128 && strings.Trim(id, word) == ""
}

func blobURL(repo string, d digest.Digest) string {
	return "/v2/" + repo + "/blobs/" + d.String()
}

func manifestURL(repo, reference string) string {
	return "/v2/" + repo + "/manifests/" + reference
}

func uploadURL(repo, id string) string {
	return "/v2/" + repo + "/blobs/uploads/" + url.PathEscape(id)
}
