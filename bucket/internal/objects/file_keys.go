// SPDX-License-Identifier: Apache-2.0

// The paths of files in buckets that are directories. They are the same as those of the
// Go CDK (https://gocloud.dev), which earlier versions used.

package objects

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	// maxFile and maxDir are how many bytes the names of a file and a directory may
	// have: createTemp appends up to 21 to those of files.
	maxFile = 255 - 21
	maxDir  = 255

	// cutAt is where longer names are cut in two, and cut is what then ends the first
	// part.
	cutAt = 200
	cut   = "~/"

	// attrs ends the names of files in which the Go CDK kept attributes of objects.
	attrs = ".attrs"
)

// escape matches what is read as one character in the name of a file.
var escape = regexp.MustCompile(`__(0x[-+0-9a-fA-F]+__)`)

// fileKey returns what stands for a key in names of files. It is the same for most
// keys. Lists skip names that end in ".attrs", and file systems reject long ones, so
// such a name is cut into a directory and a file. The keys of a store have no "~".
func fileKey(key string) string {
	// A match ends with the underscores with which the next one may begin.
	for n := 0; n != len(key); {
		n = len(key)
		key = escape.ReplaceAllString(key, "__~$1")
	}
	if len(key) > cutAt {
		components := strings.Split(key, "/")
		for i, c := range components {
			if len(c) > maxDir || len(c) > maxFile && i == len(components)-1 {
				components[i] = c[:cutAt] + cut + c[cutAt:]
			}
		}
		key = strings.Join(components, "/")
	}
	if name, ok := strings.CutSuffix(key, attrs); ok {
		key = name + attrs[:1] + cut + attrs[1:]
	}
	return key
}

// keyOf is the inverse of fileKey.
func keyOf(file string) string {
	if name, ok := strings.CutSuffix(file, attrs[:1]+cut+attrs[1:]); ok {
		file = name + attrs
	}
	if len(file) > cutAt && strings.Contains(file, cut) {
		components := strings.SplitAfter(file, "/")
		for i, c := range components {
			if len(c) == cutAt+len(cut) && strings.HasSuffix(c, cut) {
				components[i] = c[:cutAt]
			}
		}
		file = strings.Join(components, "")
	}
	return strings.ReplaceAll(file, "__~0x", "__0x")
}

// filePrefix returns a prefix of the file keys of all objects whose keys have a prefix.
// It may be one of others, too.
func filePrefix(prefix string) string {
	i := strings.LastIndexByte(prefix, '/') + 1
	dir, name := prefix[:i], prefix[i:]
	// How a name goes on decides whether it is escaped here.
	name, _, _ = strings.Cut(name, "__")
	if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
		name = name[:dot+1]
	}
	return fileKey(dir) + name[:min(len(name), cutAt)]
}

// unfitForFile reports whether a character can't be in the name of a file.
func unfitForFile(runes []rune, i int) bool {
	c := runes[i]
	switch {
	case c < 32:
		return true
	case c == '/':
		return i == len(runes)-1 || i > 0 && runes[i-1] == '/' || afterDots(runes, i)
	}
	return os.PathSeparator == '\\' && strings.ContainsRune(`<>:"|?*\`, c)
}

// path returns the path of the file of an object.
func (b *fileBucket) path(key string) (string, error) {
	path := filepath.FromSlash(escapeKey(fileKey(key), unfitForFile))
	if !filepath.IsLocal(path) {
		return "", fmt.Errorf("%w: the key %q is outside of the directory", ErrRejected, key)
	}
	return filepath.Join(b.dir, path), nil
}

// keyOfPath is the inverse of path, for a path in the directory.
func keyOfPath(path string) string {
	return keyOf(unescapeAll(filepath.ToSlash(path)))
}
