// SPDX-License-Identifier: Apache-2.0

// Directories: file://.

package objects

import (
	"cmp"
	"context"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"gocloud.dev/blob"
)

// fileBucket is a directory. The key of an object is the path of its file, except for
// keys that can't be: see fileKey.
type fileBucket struct{ *localBucket }

const (
	// maxFile and maxDir are how many bytes the names of a file and a directory may
	// have: the Go CDK appends up to 21 to those of files.
	maxFile = 255 - 21
	maxDir  = 255

	// cutAt is where longer names are cut in two, and cut is what then ends the first
	// part.
	cutAt = 200
	cut   = "~/"

	// attrs ends the names of the Go CDK's own files.
	attrs = ".attrs"
)

// escape matches what the Go CDK reads as one character in the name of a file.
var escape = regexp.MustCompile(`__(0x[-+0-9a-fA-F]+__)`)

// fileKey returns the key under which the Go CDK can store the object with a key. It
// is the same for most keys. The Go CDK rejects those that end in ".attrs", and file
// systems those with long names, so such a name is cut into a directory and a file. The
// keys of a store have no "~".
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

func (b fileBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	r, err := b.localBucket.Get(ctx, fileKey(key), offset, n)
	if err == nil {
		r.Key = key
	}
	return r, err
}

func (b fileBucket) Stat(ctx context.Context, key string) (Object, error) {
	o, err := b.localBucket.Stat(ctx, fileKey(key))
	if err == nil {
		o.Key = key
	}
	return o, err
}

func (b fileBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	return b.localBucket.Put(ctx, fileKey(key), data, c)
}

func (b fileBucket) NewWriter(ctx context.Context, key string) Writer {
	return b.localBucket.NewWriter(ctx, fileKey(key))
}

func (b fileBucket) Copy(ctx context.Context, to, from string, size int64) error {
	return b.localBucket.Copy(ctx, fileKey(to), fileKey(from), size)
}

func (b fileBucket) Delete(ctx context.Context, key, version string) error {
	return b.localBucket.Delete(ctx, fileKey(key), version)
}

func (b fileBucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	return b.localBucket.SignedURL(ctx, fileKey(key), expires)
}

// List lists all objects, and sorts them: the Go CDK walks directories, so it lists a/b
// before a-b, and a page that starts after the former would lack the latter.
func (b fileBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	all, err := b.listAll(ctx, q.Prefix)
	if err != nil {
		return nil, "", err
	}
	slices.SortFunc(all, func(x, y Object) int { return cmp.Compare(x.Key, y.Key) })
	after := max(q.After, q.Token)
	all = all[sort.Search(len(all), func(i int) bool { return all[i].Key > after }):]
	if len(all) <= n {
		return all, "", nil
	}
	return all[:n], all[n-1].Key, nil
}

// listAll returns all objects with a prefix, in any order.
func (b fileBucket) listAll(ctx context.Context, prefix string) ([]Object, error) {
	opts := &blob.ListOptions{Prefix: filePrefix(prefix)}
	for size := 4096; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		page, next, err := b.bucket.ListPage(ctx, blob.FirstPageToken, size, opts)
		err = b.result(err)
		if err == ErrNotExist {
			continue // a file was deleted after the Go CDK had read its name
		}
		if err != nil {
			return nil, err
		}
		if len(next) > 0 {
			size *= 8
			continue
		}
		all := make([]Object, 0, len(page))
		for _, o := range page {
			if key := keyOf(o.Key); strings.HasPrefix(key, prefix) {
				all = append(all, Object{Key: key, Size: o.Size, Time: o.ModTime})
			}
		}
		return all, nil
	}
}
