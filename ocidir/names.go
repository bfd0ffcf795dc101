// SPDX-License-Identifier: Apache-2.0

// Names of repositories and tags, and the paths made of them.

package ocidir

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The grammar of the distribution-spec, section "Pulling manifests".
var (
	component = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)
	validTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

// layoutNames are the names of a layout's own files. If a component of a
// repository's name is one of them, its folder's name starts with an underscore,
// which no component does.
var layoutNames = []string{ocispec.ImageBlobsDir, ocispec.ImageIndexFile, ocispec.ImageLayoutFile}

// repoDir returns the slash-separated path of a repository's folder.
func repoDir(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		if slices.Contains(layoutNames, part) {
			parts[i] = "_" + part
		}
	}
	return path.Join(parts...)
}

// componentOf returns the component of a repository's name that a folder stands
// for.
func componentOf(folder string) (name string, ok bool) {
	if escaped, ok := strings.CutPrefix(folder, "_"); ok {
		return escaped, slices.Contains(layoutNames, escaped)
	}
	return folder, component.MatchString(folder) && !slices.Contains(layoutNames, folder)
}

// contentPath returns the path of the file with the digest d in the layout in
// dir.
func contentPath(dir string, d digest.Digest) string {
	return path.Join(dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// tagOf returns the tag in an org.opencontainers.image.ref.name, which some tools
// write as a full reference, or "" if there is none.
func tagOf(name string) string {
	if validTag.MatchString(name) {
		return name
	}
	if tag := name[strings.LastIndexByte(name, ':')+1:]; validTag.MatchString(tag) {
		return tag
	}
	return ""
}

// walkRepos yields the repositories below dir, whose names start with prefix, in
// byte order after a name. It reports whether to go on.
func (r *reader) walkRepos(dir, prefix, after string, yield func(string, error) bool) bool {
	entries, err := fs.ReadDir(r.fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true // deleted meanwhile
	}
	if err != nil && prefix == "" {
		return yield("", err)
	}
	if err != nil { // the other repositories can be listed
		r.log.Error("a folder can't be read", "folder", dir, "error", err)
		return true
	}
	// A name and the names below it have separate places in the order: a-b
	// comes between a and a/b.
	var keys []string
	folders := make(map[string]string)
	for _, e := range entries {
		if c, ok := componentOf(e.Name()); ok && e.IsDir() {
			keys = append(keys, prefix+c, prefix+c+"/")
			folders[prefix+c] = path.Join(dir, e.Name())
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		name, below := strings.CutSuffix(key, "/")
		if below {
			if key < after && !strings.HasPrefix(after, key) {
				continue
			}
			if !r.walkRepos(folders[name], key, after, yield) {
				return false
			}
			continue
		}
		if key <= after {
			continue
		}
		if _, err := fs.Stat(r.fsys, path.Join(folders[name], ocispec.ImageIndexFile)); err == nil && !yield(name, nil) {
			return false
		}
	}
	return true
}
