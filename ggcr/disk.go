// SPDX-License-Identifier: Apache-2.0

// Blobs in files.

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// NewDiskBlobHandler returns a BlobHandler that keeps blobs in files below dir,
// named <algorithm>/<hex>. It implements all three extensions. It ignores a file
// whose content does not match the digest in its name.
func NewDiskBlobHandler(dir string) BlobHandler { return disk{dir} }

type disk struct {
	dir string
}

// path returns the name of a blob's file. It rejects a malformed hash, which could
// name a file elsewhere.
func (d disk) path(h Hash) (string, error) {
	if err := digestOf(h).Validate(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return filepath.Join(d.dir, h.Algorithm, h.Hex), nil
}

func (d disk) open(h Hash) (*os.File, error) {
	path, err := d.path(h)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	return f, missing(err)
}

// missing replaces fs.ErrNotExist with ErrNotFound.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return err
}

func (d disk) Get(_ context.Context, _ string, h Hash) (io.ReadCloser, error) {
	f, err := d.open(h)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Stat reads the entire file to verify it: other programs may write to dir, and a
// disk may return other bytes than were written.
func (d disk) Stat(ctx context.Context, _ string, h Hash) (int64, error) {
	f, err := d.open(h)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	verifier := digestOf(h).Verifier()
	size, err := io.Copy(verifier, contextReader{ctx, f})
	if err != nil {
		return 0, err
	}
	if !verifier.Verified() {
		return 0, fmt.Errorf("%w: the content of %s does not match its digest", ErrNotFound, digestOf(h))
	}
	return size, nil
}

// contextReader is a reader that fails once ctx has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Put writes to a temporary file first, so that a blob is stored completely or not
// at all.
func (d disk) Put(ctx context.Context, _ string, h Hash, rc io.ReadCloser) error {
	defer rc.Close()
	path, err := d.path(h)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(d.dir, "upload-*")
	if err != nil {
		return err
	}
	verifier := digestOf(h).Verifier()
	_, err = io.Copy(io.MultiWriter(f, verifier), contextReader{ctx, rc})
	if err == nil && !verifier.Verified() {
		err = fmt.Errorf("the content does not match the digest %s", digestOf(h))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) // err is more important than an error of Remove
	}
	return err
}

func (d disk) Delete(_ context.Context, _ string, h Hash) error {
	path, err := d.path(h)
	if err != nil {
		return err
	}
	return missing(os.Remove(path))
}
