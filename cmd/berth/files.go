// SPDX-License-Identifier: Apache-2.0

// Files that are replaced as a whole.

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// writeFile writes a file atomically, since other processes may wait for it, or read it.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	return placeFile(name, data, func(f *os.File) error { return f.Chmod(mode) }, os.Rename)
}

// createFile is writeFile for a file that must not exist yet, or else it returns
// fs.ErrExist.
func createFile(name string, data []byte, mode fs.FileMode) error {
	return placeFile(name, data, func(f *os.File) error { return f.Chmod(mode) }, func(from, to string) error {
		err := os.Link(from, to)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		if _, err := os.Lstat(to); err == nil { // a file system without links
			return fs.ErrExist
		}
		return os.Rename(from, to)
	})
}

// rewriteFile is writeFile for a file of somebody else: it keeps the mode, the owner and
// the group, and if the name is that of a link, replaces the file behind it. A new file has
// the given mode.
func rewriteFile(name string, data []byte, mode fs.FileMode) error {
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	return placeFile(name, data, func(f *os.File) error {
		old, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return f.Chmod(mode)
		} else if err != nil {
			return err
		}
		return errors.Join(keepOwner(f, old), f.Chmod(old.Mode().Perm()))
	}, os.Rename)
}

// placeFile writes data into a file that only this user can read, and has a name that
// nobody could foresee, prepares it, and moves it to its place.
func placeFile(name string, data []byte, prepare func(*os.File) error, move func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-") // has mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = prepare(f)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return move(f.Name(), name)
}
