// SPDX-License-Identifier: Apache-2.0

// Package ocidir keeps a registry's content in a directory of OCI image
// layouts, and serves such layouts from any file system.
//
//	store, err := ocidir.Open("/var/lib/berth", nil)
//	if err != nil {
//		return err
//	}
//	defer store.Close()
//	http.ListenAndServe(addr, registry.New(registry.WithStore(store)))
//
// # What is on disk
//
// Each repository is a layout of the image-spec, in a folder of its name, with
// all that it needs: skopeo, crane and umoci read it as oci:DIR/NAME:TAG, and a
// layout that they wrote is served as soon as it is in place.
//
//	DIR/
//	  library/alpine/          the repository library/alpine
//	    oci-layout
//	    index.json             its manifests with their tags (org.opencontainers.image.ref.name),
//	                           and a list of referrers for each subject, as the referrers tag schema has it
//	    blobs/sha256/<hex>     blobs and manifests
//	  library/_blobs/          library/blobs: what a layout itself calls so is told apart by the underscore
//	  .berth/
//	    lock                   held by the process that has DIR open
//	    blobs/sha256/<hex>     each blob that was pushed, once more
//	    uploads/<name>.json    an upload session: whose it is, how far it is, and its hash's state
//	    uploads/<name>.data    its bytes
//
// The same blob in two repositories is one file with two names (hard links),
// not a file in a common folder: so each layout is whole, can be copied, moved
// and deleted with the tools of the system, and needs no book-keeping.
// .berth/blobs is how a push finds that the bytes are there already; DIR must
// therefore be one file system. Where it knows no hard links, bytes are copied.
//
// # What survives
//
// Before a push is acknowledged its bytes are synced, named, and their folder
// synced; index.json is replaced as a whole, after what it names. After a crash
// at any moment the directory opens as it is, and everything acknowledged is
// there. Sessions survive the end of the process, but not that of the machine.
//
// # Caveats
//
//   - One process at a time: Open refuses a directory that is in use.
//   - index.json is written anew with each push of a manifest or a tag, those
//     that come at once together. With 10,000 manifests in one repository that
//     is 2 MB each time.
//   - The limits of a disk are the file system's: where it is full, clients are
//     told 413.
package ocidir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/berth-oci/registry"
)

// Store is a registry.Store in a directory.
type Store struct {
	reader
	dir  string
	opts Options
	lock *os.File

	folders sync.Mutex // held while folders of repositories are made and removed

	mu      sync.Mutex       // guards repos
	repos   map[string]*repo // that are being changed
	uploads uploads
}

var _ registry.Store = (*Store)(nil)

// Options are the choices of Open.
type Options struct {
	// Uploads is the number of uploads in progress; unbounded by default. A
	// further one gets ErrTooManyRequests.
	Uploads int

	// UploadIdle is how long an upload is kept while no request uses it: one
	// hour by default.
	UploadIdle time.Duration
}

// ErrInUse is returned by Open where another process, or another Store of this
// one, has the directory open.
var ErrInUse = errors.New("ocidir: the directory is in use by another process")

const (
	ownDir     = ".berth"
	uploadsDir = ownDir + "/uploads"
	poolDir    = ownDir + "/blobs"
)

// Open opens the directory dir, which it makes if need be, for reading and
// writing. nil options are the defaults.
//
// Errors: ErrInUse, and those of the file system.
func Open(dir string, opts *Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir, reader: reader{fsys: os.DirFS(dir)}}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.UploadIdle <= 0 {
		s.opts.UploadIdle = time.Hour
	}
	if err := os.MkdirAll(s.path(uploadsDir), 0o777); err != nil {
		return nil, err
	}
	if s.lock, err = lockFile(s.path(ownDir + "/lock")); err != nil {
		return nil, err
	}
	if err := s.recoverUploads(); err != nil {
		s.lock.Close()
		return nil, err
	}
	return s, nil
}

// Close gives the directory free for other processes. The store must not be
// used afterwards.
func (s *Store) Close() error { return s.lock.Close() }

// path returns the file's path of one below the store's directory, in slashes.
func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// failed tells a client what it may know of an error of the file system.
func failed(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: the registry's disk is full", registry.ErrTooLarge)
	}
	return err
}

// syncDir makes the names in a folder survive the machine's end.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) { // not so on Windows
		return err
	}
	return nil
}
