// SPDX-License-Identifier: Apache-2.0

// Directories: file://.

package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fileBucket is a directory. The key of an object is the path of its file, except for
// keys that can't be: see fileKey. Locks stand in for conditional writes.
type fileBucket struct {
	dir    string      // absolute
	mode   fs.FileMode // of new directories
	near   bool        // temporary files are next to the objects
	signer *fileSigner // nil: the bucket can't sign URLs
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

func (*fileBucket) Conditional() bool { return false }
func (*fileBucket) Close() error      { return nil }

// fileResult converts the error of an operation.
func fileResult(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, fs.ErrNotExist):
		return ErrNotExist
	case errors.Is(err, ErrRejected):
		return err
	}
	return fmt.Errorf("objects: %w", err)
}

// object returns the facts about an object. Its version is made of the time and the
// size: see write.
func object(key string, info fs.FileInfo) (Object, error) {
	if info.IsDir() {
		return Object{}, ErrNotExist
	}
	return Object{
		Key:     key,
		Size:    info.Size(),
		Time:    info.ModTime(),
		Version: fmt.Sprintf("%x-%x", info.ModTime().UnixNano(), info.Size()),
	}, nil
}

// Get holds the lock while it opens the object, because of write.
func (b *fileBucket) Get(ctx context.Context, key string, offset, n int64) (*Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := lockOf(key)
	l.RLock()
	defer l.RUnlock()
	f, o, err := b.open(key)
	if err != nil {
		return nil, fileResult(err)
	}
	if offset > 0 {
		if offset >= o.Size {
			f.Close()
			return nil, ErrOffset
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, fileResult(err)
		}
	}
	if n < 0 {
		return &Reader{f, o}, nil
	}
	return &Reader{readCloser{io.LimitReader(f, n), f}, o}, nil
}

func (b *fileBucket) open(key string) (*os.File, Object, error) {
	path, err := b.path(key)
	if err != nil {
		return nil, Object{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, Object{}, err
	}
	info, err := f.Stat()
	if err == nil {
		var o Object
		if o, err = object(key, info); err == nil {
			return f, o, nil
		}
	}
	f.Close()
	return nil, Object{}, err
}

func (b *fileBucket) Stat(ctx context.Context, key string) (Object, error) {
	if err := ctx.Err(); err != nil {
		return Object{}, err
	}
	path, err := b.path(key)
	if err != nil {
		return Object{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Object{}, fileResult(err)
	}
	return object(key, info)
}

func (b *fileBucket) Put(ctx context.Context, key string, data []byte, c Condition) (string, error) {
	return b.write(ctx, key, c, func() error { return b.writeFrom(ctx, key, bytes.NewReader(data)) })
}

func (b *fileBucket) Copy(ctx context.Context, to, from string, size int64) error {
	_, err := b.write(ctx, to, Condition{}, func() error {
		f, _, err := b.open(from)
		if err != nil {
			return err
		}
		defer f.Close()
		return b.writeFrom(ctx, to, f)
	})
	return err
}

// write writes an object if the condition holds. The version is made of the time
// and the size, so it writes again while these are what they were before, which
// happens if the clock is coarse.
func (b *fileBucket) write(ctx context.Context, key string, c Condition, once func() error) (string, error) {
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
		if err := fileResult(once()); err != nil {
			return "", err
		}
		o, err := b.Stat(ctx, key)
		if err != nil || o.Version != old.Version {
			return o.Version, err
		}
		time.Sleep(time.Millisecond)
	}
}

// writeFrom writes an object with the bytes of r, whole or not at all.
func (b *fileBucket) writeFrom(ctx context.Context, key string, r io.Reader) error {
	f, path, err := b.create(key)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // does nothing if it was renamed
	_, err = io.Copy(f, r)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// create creates a temporary file for an object. Its mode is that of other files, unlike
// that of os.CreateTemp.
func (b *fileBucket) create(key string) (f *os.File, path string, err error) {
	path, err = b.path(key)
	if err != nil {
		return nil, "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), b.mode); err != nil {
		return nil, "", err
	}
	name := path
	if !b.near {
		name = filepath.Join(os.TempDir(), filepath.Base(path))
	}
	for {
		f, err = os.OpenFile(name+"."+strconv.FormatInt(time.Now().UnixNano(), 16)+".tmp", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, path, err
		}
	}
}

func (b *fileBucket) Delete(ctx context.Context, key, version string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer lockFor(key)()
	o, err := b.Stat(ctx, key)
	switch {
	case err == ErrNotExist:
		return nil
	case err != nil:
		return err
	case version != "" && o.Version != version:
		return ErrCondition
	}
	path, err := b.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return fileResult(err)
	}
	if err := os.Remove(path + attrs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fileResult(err)
	}
	return nil
}

// List reads the names of all objects with the prefix, and sorts them: a directory's
// order is another one than that of keys.
func (b *fileBucket) List(ctx context.Context, q ListQuery, n int) ([]Object, string, error) {
	root := b.dir
	prefix := escapeKey(filePrefix(q.Prefix)+"_", unfitForFile) // as keys go on
	if i := strings.LastIndexByte(prefix, '/'); i > 0 {
		dir := filepath.FromSlash(prefix[:i])
		if !filepath.IsLocal(dir) {
			return nil, "", fmt.Errorf("%w: the prefix %q is outside of the directory", ErrRejected, q.Prefix)
		}
		root = filepath.Join(root, dir)
	}
	var all []Object
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || entry.IsDir() || strings.HasSuffix(path, attrs) {
			return err
		}
		name, err := filepath.Rel(b.dir, path)
		if err != nil {
			return err
		}
		key := keyOfPath(name)
		if !strings.HasPrefix(key, q.Prefix) {
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the file was deleted after its name was read
		}
		if err != nil {
			return err
		}
		all = append(all, Object{Key: key, Size: info.Size(), Time: info.ModTime()})
		return nil
	})
	if err != nil {
		return nil, "", fileResult(err)
	}
	page, next := pageOf(all, q, n)
	return page, next, nil
}

// AbortWriters does nothing: temporary files of a process that crashed are left to the
// operating system.
func (*fileBucket) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	return 0, ctx.Err()
}

// fileWriter writes an object.
type fileWriter struct {
	ctx  context.Context
	key  string
	path string
	file *os.File // nil if it is closed
	err  error    // why the writer can't continue
}

func (b *fileBucket) NewWriter(ctx context.Context, key string) Writer {
	w := &fileWriter{ctx: ctx, key: key}
	w.file, w.path, w.err = b.create(key)
	w.err = fileResult(w.err)
	return w
}

func (w *fileWriter) Write(p []byte) (n int, err error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil {
		n, err = w.file.Write(p)
		w.err = fileResult(err)
	}
	return n, w.err
}

func (w *fileWriter) Close() error {
	if w.err == nil {
		w.err = w.finish()
	}
	if w.err != nil {
		w.Abort()
		return w.err
	}
	w.err = errClosed
	return nil
}

// finish gives the file its name, while nothing else can write the object.
func (w *fileWriter) finish() error {
	defer lockFor(w.key)()
	if err := w.file.Close(); err != nil {
		return fileResult(err)
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	return fileResult(os.Rename(w.file.Name(), w.path))
}

func (w *fileWriter) Abort() {
	if w.err == errClosed || w.file == nil {
		return
	}
	if w.err == nil {
		w.err = errAborted
	}
	w.file.Close() // again, perhaps
	os.Remove(w.file.Name())
	w.file = nil
}
