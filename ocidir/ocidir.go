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
// # Files
//
// Each repository is a complete image layout of the image-spec, in a folder of
// the same name. skopeo, crane and umoci read it as oci:DIR/NAME:TAG, and a
// layout that they write is served as soon as it is in place.
//
//	DIR/
//	  library/alpine/          the repository library/alpine
//	    oci-layout
//	    index.json             its manifests with their tags (org.opencontainers.image.ref.name),
//	                           and a list of referrers for each subject, by the referrers tag schema
//	    blobs/sha256/<hex>     blobs and manifests
//	  library/_blobs/          library/blobs: an underscore escapes the names of a layout's own files
//	  .berth/
//	    lock                   held by the process that has opened DIR
//	    blobs/sha256/<hex>     another link to each blob and manifest that was pushed
//	    uploads/<name>.json    an upload session: its ID, repository, size and hash state
//	    uploads/<name>.data    its bytes
//
// A blob in two repositories is one file with two names (hard links), not a file
// in a shared folder. So each layout is complete, ordinary tools can copy, move
// and delete it, and no reference counts are needed. A push finds bytes that the
// store already has through .berth/blobs, so DIR must be on one file system. If
// the file system has no hard links, bytes are copied.
//
// # Lists of referrers
//
// The store writes a list for each subject that has referrers, tagged as section
// "Referrers Tag Schema" of the distribution-spec demands, for tools that read
// the layout. It also reads such lists that other tools wrote: an index under
// the tag of a digest is a list if it has entries and the subject of each is
// that digest.
// Clients see the referrers, but neither the tag nor the index. A tag of that
// form that a client pushes is an ordinary tag; the annotation
// io.github.berth-oci.tag marks it in index.json.
//
// # Durability
//
// Before a push is acknowledged, its bytes are synced and linked, and their
// folder is synced; index.json is replaced atomically, after the files that it
// names. After a crash at any moment the directory can be opened without repair,
// and holds everything that was acknowledged. Upload sessions survive the end of
// the process, but not a crash of the machine. The time of a blob or manifest is
// the modification time of its file, which is not synced.
//
// # Caveats
//
//   - One process at a time: Open fails if the directory is in use.
//   - index.json is rewritten for each push of a manifest or a tag; concurrent
//     pushes share one write. With 10,000 manifests in a repository it is 2 MB.
//   - The store has no size limit of its own. If the disk is full, clients get
//     413.
package ocidir

import (
	"errors"
	"fmt"
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

	folders sync.Mutex // held while folders of repositories are created or removed

	mu       sync.Mutex       // guards repos
	repos    map[string]*repo // with changes in progress
	sessions sessions
}

var _ registry.Store = (*Store)(nil)

// Options are the options of Open.
type Options struct {
	// Uploads is the maximum number of uploads in progress; unlimited by
	// default. A further one is rejected with ErrTooManyUploads.
	Uploads int

	// UploadIdle is how long an upload is kept while it receives no bytes and
	// no requests: one hour by default. A request that has stalled does not
	// keep it.
	UploadIdle time.Duration

	// NoReferrers is for a registry with registry.WithReferrersSupport(false),
	// whose clients read and write lists of referrers as tags: the store leaves
	// the lists to them.
	NoReferrers bool
}

// ErrInUse is returned by Open if another process, or another Store of this
// process, has opened the directory.
var ErrInUse = errors.New("ocidir: the directory is in use by another process")

const (
	ownDir     = ".berth"
	uploadsDir = ownDir + "/uploads"
	poolDir    = ownDir + "/blobs"
)

// Open opens the directory dir for reading and writing, and creates it if it
// does not exist. If opts is nil, the defaults apply.
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
	s.noLists = s.opts.NoReferrers
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

// Close releases the directory for other processes. The store must not be used
// afterwards.
func (s *Store) Close() error { return s.lock.Close() }

// path returns the path of a file, whose slash-separated name is relative to the
// store's directory.
func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// storeError converts an error of the file system: clients learn that the disk is
// full, and see any other failure as an internal error.
func storeError(err error) error {
	if isFull(err) {
		return fmt.Errorf("%w: the registry's disk is full", registry.ErrTooLarge)
	}
	return err
}
