// SPDX-License-Identifier: Apache-2.0

// The files of an archive: a directory, or a tar file, compressed or not.

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/docker/go-units"
	"github.com/klauspost/compress/zstd"
)

// Limits of archives, which nobody needs to trust.
const (
	maxArchiveFiles = 500_000
	maxArchiveNames = 64 << 20  // bytes of all names
	maxArchiveIndex = 32 << 20  // bytes of index.json or manifest.json
	maxDescriptors  = 400_000   // in them
	maxZstdWindow   = 128 << 20 // that of zstd --long=27
)

// archive holds the files of a FILE of berth load.
type archive struct {
	root    *os.Root // of a directory
	file    *os.File // of a tar file
	entries map[string]section
	links   map[string]string
	temp    string // the name of a temporary file, or ""
}

// section is the content of a file in a tar file.
type section struct{ offset, size int64 }

// openArchive opens a directory, a tar file, or standard input if the name is "-". A
// compressed file is decompressed to a temporary file of at most maxSize bytes.
func openArchive(ctx context.Context, name string, stdin io.Reader, maxSize int64) (*archive, error) {
	if name == "-" {
		return openStream(ctx, stdin, maxSize)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return &archive{root: root}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	magic := make([]byte, 4)
	n, err := f.ReadAt(magic, 0)
	if !info.Mode().IsRegular() || compressed(magic[:n]) {
		defer f.Close()
		return openStream(ctx, f, maxSize)
	}
	a := &archive{file: f}
	if err == nil || err == io.EOF {
		err = a.readEntries(ctx, info.Size())
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

func compressed(magic []byte) bool {
	return bytes.HasPrefix(magic, gzipMagic) || bytes.HasPrefix(magic, zstdMagic)
}

// decompress returns a reader of r's content, decompressed if it is compressed.
func decompress(r io.Reader) (io.ReadCloser, error) {
	buffered := bufio.NewReaderSize(r, 1<<16)
	magic, _ := buffered.Peek(4)
	switch {
	case bytes.HasPrefix(magic, gzipMagic):
		return gzip.NewReader(buffered)
	case bytes.HasPrefix(magic, zstdMagic):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(buffered), nil
}

// openStream copies a tar file to a temporary file, so that it can be read in any
// order.
func openStream(ctx context.Context, r io.Reader, maxSize int64) (_ *archive, err error) {
	// A read of standard input waits for another process, and nothing ends it.
	piped, w := io.Pipe()
	go func() {
		_, err := io.Copy(w, r)
		w.CloseWithError(err)
	}()
	defer piped.Close()
	defer context.AfterFunc(ctx, func() { piped.CloseWithError(ctx.Err()) })()
	content, err := decompress(piped)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	f, err := os.CreateTemp("", "berth-load-*")
	if err != nil {
		return nil, err
	}
	a := &archive{file: f, temp: f.Name()}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if os.Remove(a.temp) == nil {
		a.temp = "" // where an open file can be removed, nothing is left after a kill
	}
	size, err := io.Copy(f, io.LimitReader(content, maxSize))
	if err != nil {
		return nil, err
	}
	if size == maxSize {
		if n, _ := io.ReadFull(content, make([]byte, 1)); n > 0 {
			return nil, fmt.Errorf("it has more than %s when decompressed: raise --max-size to load it", units.BytesSize(float64(maxSize)))
		}
	}
	return a, a.readEntries(ctx, size)
}

// contextReader is a reader that ends with a context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

var errNotArchive = errors.New("it is neither an OCI image layout nor a docker archive")

// readEntries lists the files of a tar file of size bytes.
func (a *archive) readEntries(ctx context.Context, size int64) error {
	a.entries, a.links = make(map[string]section), make(map[string]string)
	content := io.NewSectionReader(a.file, 0, size)
	t := tar.NewReader(content)
	for files, names := 0, 0; ; files++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF && files > 0 {
			return nil
		}
		if err != nil {
			if files == 0 {
				return errNotArchive
			}
			return fmt.Errorf("damaged tar file: %w", err)
		}
		names += len(h.Name) + len(h.Linkname)
		if files >= maxArchiveFiles || names > maxArchiveNames {
			return fmt.Errorf("it has more than %d files, or very long names", maxArchiveFiles)
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := content.Seek(0, io.SeekCurrent) // the header ends here
			if err != nil {
				return err
			}
			if isSparse(h) {
				return fmt.Errorf("%q is a sparse file", clean(name))
			}
			if h.Size > size-offset {
				return fmt.Errorf("it is truncated: the content of %q is missing", clean(name))
			}
			a.entries[name] = section{offset, h.Size}
		case tar.TypeSymlink:
			a.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			a.links[name] = path.Clean(h.Linkname)
		case tar.TypeGNUSparse:
			return fmt.Errorf("%q is a sparse file", clean(name))
		}
	}
}

func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// Close closes the archive.
func (a *archive) Close() error {
	if a.root != nil {
		return a.root.Close()
	}
	err := a.file.Close()
	if a.temp != "" {
		err = errors.Join(err, os.Remove(a.temp))
	}
	return err
}

// maxLinks is the number of links that lead to a file.
const maxLinks = 40

// resolve returns the name of a file that links lead to: Docker writes a layer that
// several images share only once. Links lead nowhere but to files of the archive.
func (a *archive) resolve(name string) string {
	name = path.Clean(name)
	for range maxLinks {
		target, ok := a.links[name]
		if _, exists := a.entries[name]; exists || !ok {
			break
		}
		name = target
	}
	return name
}

// archiveFile is an open file of an archive.
type archiveFile struct {
	io.ReadSeeker
	io.Closer
}

// open opens a file, and returns its size.
// Errors: fs.ErrNotExist.
func (a *archive) open(name string) (archiveFile, int64, error) {
	if a.root == nil {
		entry, ok := a.entries[a.resolve(name)]
		if !ok {
			return archiveFile{}, 0, &fs.PathError{Op: "open", Path: clean(name), Err: fs.ErrNotExist}
		}
		return archiveFile{io.NewSectionReader(a.file, entry.offset, entry.size), io.NopCloser(nil)}, entry.size, nil
	}
	size, err := a.size(name)
	if err != nil {
		return archiveFile{}, 0, err
	}
	f, err := a.root.Open(path.Clean(name))
	if err != nil {
		return archiveFile{}, 0, err
	}
	return archiveFile{f, f}, size, nil
}

// size returns the size of a file.
// Errors: fs.ErrNotExist.
func (a *archive) size(name string) (int64, error) {
	if a.root == nil {
		entry, ok := a.entries[a.resolve(name)]
		if !ok {
			return 0, &fs.PathError{Op: "open", Path: clean(name), Err: fs.ErrNotExist}
		}
		return entry.size, nil
	}
	info, err := a.root.Stat(path.Clean(name))
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s is not a regular file", clean(name))
	}
	return info.Size(), nil
}

// read returns the content of a file of at most limit bytes.
func (a *archive) read(name string, limit int64) ([]byte, error) {
	f, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s has %s, more than %s", clean(name), units.BytesSize(float64(size)), units.BytesSize(float64(limit)))
	}
	return io.ReadAll(io.LimitReader(f, size)) // a file in a directory may grow
}

// readIndex returns the content of index.json or manifest.json.
func (a *archive) readIndex(name string) ([]byte, error) {
	data, err := a.read(name, maxArchiveIndex)
	if err == nil && bytes.Count(data, []byte("{")) > 3*maxDescriptors { // with platforms and annotations
		err = fmt.Errorf("%s names more than %d things", name, maxDescriptors)
	}
	return data, err
}
