// SPDX-License-Identifier: Apache-2.0

//go:build !go1.25

package ocidir

import (
	"os"
	"path"
	"path/filepath"
	"time"
)

// The os.Root of Go 1.24 lacks these methods. Their substitutes find a link that
// leads out of the directory, unless it is put there between the check and the
// operation.

func (d rootDir) rename(from, to string) error {
	if err := d.checkFolders(from, to); err != nil {
		return err
	}
	return os.Rename(d.path(from), d.path(to))
}

func (d rootDir) link(from, to string) error {
	if err := d.checkFolders(from, to); err != nil {
		return err
	}
	return os.Link(d.path(from), d.path(to))
}

func (d rootDir) chtimes(name string, t time.Time) error {
	if _, err := d.Stat(name); err != nil {
		return err
	}
	return os.Chtimes(d.path(name), t, t)
}

// checkFolders returns an error if the folder of a name is outside the directory.
func (d rootDir) checkFolders(names ...string) error {
	for _, name := range names {
		if _, err := d.root.Stat(path.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d rootDir) path(name string) string {
	return filepath.Join(d.root.Name(), filepath.FromSlash(name))
}
