// SPDX-License-Identifier: Apache-2.0

// Buckets in memory: mem://.

package objects

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memoryBucket is a bucket in the memory of this process.
type memoryBucket struct {
	mu      sync.Mutex // guards the fields below
	objects map[string]memoryObject
	writes  int64
}

type memoryObject struct {
	data []byte // immutable
	Object
}

// OpenMemory returns a new, empty bucket. Its URL has no parameters but that of the Go
// CDK, nomd5: there are no MD5 sums.
func OpenMemory(u *url.URL) (Bucket, error) {
	q := u.Query()
	q.Del("nomd5")
	if err := rejectUnknown(q); err != nil {
		return nil, err
	}
	return NewMemory(), nil
}

// NewMemory returns a new, empty bucket.
func NewMemory() Bucket { return &memoryBucket{objects: make(map[string]memoryObject)} }

func (*memoryBucket) Conditional() bool { return false }
func (*memoryBucket) Close() error      { return nil }

// find returns an object. It must be called with the lock held.
func (b *memoryBucket) find(ctx context.Context, key string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, err
	}
	o, ok := b.objects[key]
	if !ok {
		return o, ErrNotExist
	}
	return o, nil
}

func (b *memoryBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, err
	}
	if offset > 0 && offset >= o.Size {
		return nil, ErrOffset
	}
	data := o.data[offset:]
	if n >= 0 && n < int64(len(data)) {
		data = data[:n]
	}
	return &Reader{io.NopCloser(bytes.NewReader(data)), o.Object}, nil
}

func (b *memoryBucket) Stat(ctx context.Context, key string) (Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, err := b.find(ctx, key)
	return o.Object, err
}

// put writes an object whose bytes nobody changes any more.
func (b *memoryBucket) put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, err := b.find(ctx, key)
	if err != nil && err != ErrNotExist {
		return "", err
	}
	if c.Absent && err == nil || c.Version != "" && old.Version != c.Version {
		return "", ErrCondition
	}
	b.writes++
	version := strconv.FormatInt(b.writes, 10)
	b.objects[key] = memoryObject{data, Object{Key: key, Size: int64(len(data)), Time: time.Now(), Version: version}}
	return version, nil
}

func (b *memoryBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	return b.put(ctx, key, bytes.Clone(data), c)
}

func (b *memoryBucket) Copy(ctx context.Context, to, from string, size int64) error {
	b.mu.Lock()
	o, err := b.find(ctx, from)
	b.mu.Unlock()
	if err == nil {
		_, err = b.put(ctx, to, o.data, Condition{})
	}
	return err
}

func (b *memoryBucket) Delete(ctx context.Context, key, version string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch o, err := b.find(ctx, key); {
	case err == ErrNotExist:
		return nil
	case err != nil:
		return err
	case version != "" && version != o.Version:
		return ErrCondition
	}
	delete(b.objects, key)
	return nil
}

// List's tokens are the last key of the page before.
func (b *memoryBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	b.mu.Lock()
	var all []Object
	for key, o := range b.objects {
		if strings.HasPrefix(key, q.Prefix) {
			o.Version = ""
			all = append(all, o.Object)
		}
	}
	b.mu.Unlock()
	page, next := pageOf(all, q, n)
	return page, next, nil
}

// pageOf returns a page of a list of all objects, whose order it changes, and the token
// of the next page, which is the last key of this one.
func pageOf(all []Object, q ListQuery, n int) (page []Object, next string) {
	slices.SortFunc(all, func(x, y Object) int { return strings.Compare(x.Key, y.Key) })
	i, found := slices.BinarySearchFunc(all, max(q.After, q.Token), func(o Object, key string) int { return strings.Compare(o.Key, key) })
	if found {
		i++
	}
	all = all[i:]
	if len(all) <= n {
		return all, ""
	}
	return all[:n], all[n-1].Key
}

func (*memoryBucket) SignedURL(context.Context, string, time.Duration) (string, error) {
	return "", fmt.Errorf("%w: objects in memory have no URLs", ErrUnsupported)
}

// AbortWriters does nothing: a process's memory ends with it.
func (*memoryBucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	return 0, ctx.Err()
}

// memoryWriter writes an object.
type memoryWriter struct {
	b    *memoryBucket
	ctx  context.Context
	key  string
	data []byte
	err  error // why the writer can't continue
}

func (b *memoryBucket) NewWriter(ctx context.Context, key string) Writer {
	return &memoryWriter{b: b, ctx: ctx, key: key}
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *memoryWriter) Close() error {
	if w.err == nil {
		_, w.err = w.b.put(w.ctx, w.key, slices.Clip(w.data), Condition{})
	}
	if w.err != nil {
		w.data = nil
		return w.err
	}
	w.err = errClosed
	return nil
}

func (w *memoryWriter) Abort() {
	if w.err == nil {
		w.err = errAborted
	}
	w.data = nil
}
