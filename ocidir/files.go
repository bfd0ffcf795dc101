// SPDX-License-Identifier: Apache-2.0

// Files: links to content that repositories share, and writes that survive a
// crash.

package ocidir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

// poolPath returns the path of the link in .berth/blobs, the pool, to content
// with the digest d.
func poolPath(d digest.Digest) string {
	return path.Join(poolDir, d.Algorithm().String(), d.Encoded())
}

// linkContent links name to the content with the digest d: to the file in the
// pool, or if there is none to the file source, which keeps its name.
// Errors: fs.ErrExist if name exists.
func (s *Store) linkContent(d digest.Digest, source, name string) error {
	pool := s.path(poolPath(d))
	if !canCountLinks {
		return linkOrCopy(source, name)
	}
	pooled := os.Link(pool, name)
	if pooled == nil || errors.Is(pooled, fs.ErrExist) {
		return pooled
	}
	if err := linkOrCopy(source, name); err != nil {
		return err
	}
	// Without a link in the pool, a later push of the same bytes is stored
	// separately, which only wastes space.
	if !errors.Is(pooled, fs.ErrNotExist) {
		os.Remove(pool) // the file has as many names as the file system allows
	}
	os.MkdirAll(filepath.Dir(pool), 0o777)
	os.Link(name, pool)
	return nil
}

// unpool removes content from the pool if no layout has it. A concurrent push
// that has linked to the content keeps it under its own name.
func (s *Store) unpool(d digest.Digest) {
	if pool := s.path(poolPath(d)); canCountLinks && linkCount(pool) == 1 {
		os.Remove(pool)
	}
}

// linkOrCopy gives a file a second name, or copies it if the file system has no
// links.
// Errors: fs.ErrExist, fs.ErrNotExist.
func linkOrCopy(from, to string) error {
	err := os.Link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := to + ".tmp"
	out, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(tmp, to)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// touch sets the modification time of a file of content to now.
func touch(name string) error {
	now := time.Now()
	if err := os.Chtimes(name, now, now); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil // only the owner of a file can do so; another user may have put the layout there
}

// writeTemp writes data to a new file in the uploads folder, which the caller
// must remove.
func (s *Store) writeTemp(data []byte) (name string, err error) {
	f, err := os.CreateTemp(s.path(uploadsDir), "*.tmp")
	if err != nil {
		return "", err
	}
	if err := writeAndClose(f, data); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return filepath.Clean(f.Name()), nil
}

// replaceFile writes a file atomically.
func replaceFile(name string, data []byte) error {
	dir, base := filepath.Split(name)
	tmp := filepath.Join(dir, tempName(base))
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	if err := writeAndClose(f, data); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, name)
}

// tempName returns the name under which replaceFile writes a file.
func tempName(base string) string { return "." + base + ".tmp" }

// writeAndClose writes data to f, syncs and closes it.
func writeAndClose(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// syncDir syncs a folder, so that its names survive a crash of the machine.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) { // as on Windows
		return err
	}
	return nil
}
