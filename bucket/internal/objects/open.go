// SPDX-License-Identifier: Apache-2.0

// Opening a bucket by its URL, and parts that several kinds of buckets share.

package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Open opens the bucket of a URL: see OpenS3, OpenGCS, OpenAzure, OpenFile and
// OpenMemory.
func Open(ctx context.Context, u *url.URL) (Bucket, error) {
	switch u.Scheme {
	case "s3":
		return OpenS3(ctx, u)
	case "gs":
		return OpenGCS(ctx, u)
	case "azblob":
		return OpenAzure(u)
	case "file":
		return OpenFile(u)
	case "mem":
		return OpenMemory(u)
	}
	return nil, fmt.Errorf("objects: no kind of bucket has URLs that begin with %s://", u.Scheme)
}

// getNothing is Get for no bytes, which can't be expressed as a range.
func getNothing(ctx context.Context, b interface {
	Stat(context.Context, string) (Object, error)
}, key string, offset int64) (*Reader, error) {
	o, err := b.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > 0 && offset >= o.Size {
		return nil, ErrOffset
	}
	return &Reader{noBytes{}, o}, nil
}

// noBytes has no bytes to read.
type noBytes struct{}

func (noBytes) Read([]byte) (int, error) { return 0, io.EOF }
func (noBytes) Close() error             { return nil }

// readCloser reads from one thing and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}

// The errors of writers that must no longer be used.
var (
	errClosed  = errors.New("objects: the writer is closed")
	errAborted = errors.New("objects: the writer was aborted")
)

// escapeKey replaces the characters that a kind of bucket can't have in keys, as the Go
// CDK (https://gocloud.dev) does: buckets that were written with it have such keys.
func escapeKey(key string, unfit func(runes []rune, i int) bool) string {
	runes := []rune(key)
	var s strings.Builder
	for i, c := range runes {
		if unfit(runes, i) {
			fmt.Fprintf(&s, "__%#x__", c)
		} else {
			s.WriteRune(c)
		}
	}
	return s.String()
}

// afterDots reports whether a character is a slash after two dots.
func afterDots(runes []rune, i int) bool {
	return i > 1 && runes[i] == '/' && runes[i-1] == '.' && runes[i-2] == '.'
}

// escaped matches what escapeKey makes of a character, and what only looks like it.
var escaped = regexp.MustCompile(`__0x[0-9a-f]+__`)

// unescapeAll replaces all that looks like an escaped character.
func unescapeAll(name string) string {
	return escaped.ReplaceAllStringFunc(name, func(s string) string {
		c, err := strconv.ParseInt(s[len("__0x"):len(s)-len("__")], 16, 32)
		if err != nil {
			return s
		}
		return string(rune(c))
	})
}

// unescapeKey is the inverse of a function that escapes keys. Keys that only look as if
// something in them were escaped are returned as they are.
func unescapeKey(name string, escape func(string) string) string {
	if key := unescapeAll(name); escape(key) == name {
		return key
	}
	return name
}
