// SPDX-License-Identifier: Apache-2.0

// Buckets without conditional writes: file:// and mem://.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// localBucket is a bucket of this process. Locks stand in for conditional writes.
type localBucket struct {
	cdkBucket
}

func newLocal(b *blob.Bucket) Bucket {
	local := &localBucket{cdkBucket{b, localProvider{}}}
	var info os.FileInfo
	if b.As(&info) {
		return fileBucket{local}
	}
	return local
}

// locks are the locks of keys, by the hash of the key. They belong to the process,
// not to a Bucket, so that two stores can share a bucket. Each write and deletion
// of a key locks it.
var locks [64]sync.RWMutex

func lockOf(key string) *sync.RWMutex {
	h := uint32(2166136261) // FNV-1a
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return &locks[h%uint32(len(locks))]
}

// lockFor locks a key, and returns a function that unlocks it.
func lockFor(key string) (unlock func()) {
	l := lockOf(key)
	l.Lock()
	return l.Unlock
}

type localProvider struct{}

// localVersion returns the version of an object with a time and a size: see write.
func localVersion(t time.Time, size int64) string {
	return fmt.Sprintf("%x-%x", t.UnixNano(), size)
}

func (localProvider) version(r *blob.Reader) string         { return localVersion(r.ModTime(), r.Size()) }
func (localProvider) statVersion(a *blob.Attributes) string { return localVersion(a.ModTime, a.Size) }
func (localProvider) listedKey(o *blob.ListObject) string   { return o.Key }
func (localProvider) startAfter(string, func(any) bool)     {}
func (localProvider) status(error) int                      { return 0 }

func (localProvider) convert(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	switch gcerrors.Code(err) {
	case gcerrors.NotFound:
		return ErrNotExist
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	return err
}

func (b *localBucket) Conditional() bool { return false }

// Get holds the lock while it opens the object, so that the version and the size
// are those of the bytes.
func (b *localBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := lockOf(key)
	l.RLock()
	defer l.RUnlock()
	return b.cdkBucket.Get(ctx, key, offset, n)
}

func (b *localBucket) Stat(ctx context.Context, key string) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	return b.cdkBucket.Stat(ctx, key)
}

func (b *localBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	return b.write(ctx, key, c, func() error { return b.writeFrom(ctx, key, bytes.NewReader(data)) })
}

// Copy copies the bytes. The copy of the Go CDK would keep the object's time in
// mem://.
func (b *localBucket) Copy(ctx context.Context, to, from string, size int64) error {
	_, err := b.write(ctx, to, Condition{}, func() error { return b.copy(ctx, to, from) })
	return err
}

func (b *localBucket) copy(ctx context.Context, to, from string) error {
	r, err := b.bucket.NewReader(ctx, from, nil)
	if err != nil {
		return err
	}
	defer r.Close()
	return b.writeFrom(ctx, to, r)
}

// writeFrom writes an object with the bytes of r, whole or not at all. The Go CDK's own
// WriteAll and Upload replace an object by the first half of another if the disk is
// full.
func (b *localBucket) writeFrom(ctx context.Context, key string, r io.Reader) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.bucket.NewWriter(ctx, key, &blob.WriterOptions{ContentType: contentType})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		cancel() // Close then discards the object
		w.Close()
		return err
	}
	return w.Close()
}

// write writes an object if the condition holds. The version is made of the time
// and the size, so it writes again while these are what they were before, which
// happens if the clock is coarse.
func (b *localBucket) write(ctx context.Context, key string, c Condition, once func() error) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	defer lockFor(key)()
	old, err := b.Stat(ctx, key)
	if err != nil && err != ErrNotExist {
		return "", err
	}
	if c.Absent && err == nil || c.Version != "" && old.Version != c.Version {
		return "", ErrCondition
	}
	for {
		if err := b.result(once()); err != nil {
			return "", err
		}
		o, err := b.Stat(ctx, key)
		if err != nil || o.Version != old.Version {
			return o.Version, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *localBucket) Delete(ctx context.Context, key, version string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer lockFor(key)()
	if version != "" {
		switch o, err := b.Stat(ctx, key); {
		case err == ErrNotExist:
			return nil
		case err != nil:
			return err
		case o.Version != version:
			return ErrCondition
		}
	}
	if err := b.result(b.bucket.Delete(ctx, key)); err != ErrNotExist {
		return err
	}
	return nil
}

// localWriter holds the lock while the object begins to exist.
type localWriter struct {
	Writer
	key string
}

func (b *localBucket) NewWriter(ctx context.Context, key string) Writer {
	return localWriter{b.cdkBucket.NewWriter(ctx, key), key}
}

func (w localWriter) Close() error {
	defer lockFor(w.key)()
	return w.Writer.Close()
}

// List lists by keys: the token is the last key of the page before.
func (b *localBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	q.After = max(q.After, q.Token)
	q.Token = q.After // the same as that of the Go CDK
	return b.cdkBucket.List(ctx, q, n)
}
