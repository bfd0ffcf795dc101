// SPDX-License-Identifier: Apache-2.0

// The directory of a store, which no name leads out of.

package ocidir

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/berth-oci/registry"
)

// rootDir is a directory as an fs.FS that can be written to. Symbolic links do not
// lead out of it, and a file that is neither regular nor a folder does not exist:
// another tool, or somebody else's layout, may have put it there. Names are
// slash-separated and relative to the directory.
type rootDir struct{ root *os.Root }

func (d rootDir) Open(name string) (fs.File, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d rootDir) open(name string) (*os.File, error) {
	if _, err := d.Stat(name); err != nil { // opening a pipe would block
		return nil, err
	}
	return d.root.Open(name)
}

// Stat does not follow a link in the last part of name.
func (d rootDir) Stat(name string) (fs.FileInfo, error) {
	info, err := d.root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return info, err
}

func (d rootDir) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(d.root.FS(), name) }

// checkNoLinks returns an error if a part of a folder's name is a symbolic link: what
// is written to a folder must have one name only.
func (d rootDir) checkNoLinks(name string) error {
	for ; name != "."; name = path.Dir(name) {
		if info, err := d.root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("%w: the folder %s is a symbolic link", registry.ErrDenied, name)
		}
	}
	return nil
}

// exists reports whether there is a regular file.
func (d rootDir) exists(name string) bool {
	info, err := d.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// create creates a file that does not exist yet.
func (d rootDir) create(name string) (*os.File, error) {
	return d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
}

// remove removes a file, if it exists.
func (d rootDir) remove(name string) error {
	if err := d.root.Remove(name); !isMissing(err) {
		return err
	}
	return nil
}

// mkdirAll creates a folder and those above it.
func (d rootDir) mkdirAll(name string) error {
	err := d.root.Mkdir(name, 0o777)
	if isMissing(err) && path.Dir(name) != name {
		if err := d.mkdirAll(path.Dir(name)); err != nil {
			return err
		}
		err = d.root.Mkdir(name, 0o777)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, err := d.root.Stat(name); err != nil || !info.IsDir() {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	return nil
}

// tempName returns the name of a temporary file, which nobody can guess.
func tempName() string { return path.Join(uploadsDir, rand.Text()+".tmp") }

// writeTemp writes data to a new temporary file, which the caller must remove.
func (d rootDir) writeTemp(data []byte) (name string, err error) {
	name = tempName()
	f, err := d.create(name)
	if err != nil {
		return "", err
	}
	if err := writeAndClose(f, data); err != nil {
		d.remove(name)
		return "", err
	}
	return name, nil
}

// replace writes a file atomically.
func (d rootDir) replace(name string, data []byte) error {
	tmp, err := d.writeTemp(data)
	if err != nil {
		return err
	}
	return d.moveTemp(tmp, name)
}

// moveTemp puts a temporary file in the place of name, or removes it on an error.
func (d rootDir) moveTemp(temp, name string) error {
	err := d.rename(temp, name)
	if err != nil {
		d.remove(temp)
	}
	return err
}

// writeAndClose writes data to f, syncs and closes it.
func writeAndClose(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// linkOrCopy gives a file a second name, or copies it if the file system has no
// links.
// Errors: fs.ErrExist, fs.ErrNotExist.
func (d rootDir) linkOrCopy(from, to string) error {
	if _, err := d.Stat(from); err != nil { // a link to a symbolic link is one too
		return err
	}
	err := d.link(from, to)
	if err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	in, err := d.open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := tempName()
	out, err := d.create(tmp)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		return d.moveTemp(tmp, to)
	}
	d.remove(tmp)
	return err
}

// sync syncs a folder, so that its names survive a crash of the machine.
func (d rootDir) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) { // as on Windows
		return err
	}
	return nil
}

// same reports whether two files have the same content. Errors are those of the
// second.
func (d rootDir) same(a, b string) (bool, error) {
	g, err := d.open(b)
	if err != nil {
		return false, err
	}
	defer g.Close()
	f, err := d.open(a)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	infoA, errA := f.Stat()
	infoB, errB := g.Stat()
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	if os.SameFile(infoA, infoB) {
		return true, nil
	}
	if infoA.Size() != infoB.Size() {
		return false, nil
	}
	bufA, bufB := make([]byte, 128<<10), make([]byte, 128<<10)
	for {
		n, errA := io.ReadFull(f, bufA)
		m, errB := io.ReadFull(g, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		switch {
		case errA == nil && errB == nil:
		case isEnd(errB):
			return isEnd(errA), nil
		case errB != nil:
			return false, errB
		default:
			return false, nil // a can't be read
		}
	}
}

// isEnd reports whether err is that of io.ReadFull at the end of a file.
func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// holds reports whether a file has the given content.
func (d rootDir) holds(name string, data []byte) bool {
	info, err := d.Stat(name)
	if err != nil || info.Size() != int64(len(data)) {
		return false
	}
	content, err := readFile(d, name)
	return err == nil && bytes.Equal(content, data)
}

// readFile reads a regular file.
func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := openRegular(fsys, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
