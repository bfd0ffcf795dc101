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
//	    .index.journal         the changes that index.json lacks, for at most a few seconds
//	    .index.cache           the subjects and artifact types of its manifests; it may be deleted
//	  library/_blobs/          library/blobs: an underscore escapes the names of a layout's own files
//	  .berth/
//	    version                of the format of DIR
//	    lock                   held by the process that has opened DIR
//	    open                   exists while DIR is open, and after a crash
//	    reserve                bytes to release when the disk is full, so that deletes work
//	    blobs/sha256/<hex>     another link to each blob that was pushed
//	    uploads/<name>.json    an upload session: its ID, repository, size and hash state
//	    uploads/<name>.data    its bytes
//
// A blob in two repositories is one file with two names (hard links), not a file
// in a shared folder. So each layout is complete, ordinary tools can copy, move
// and delete it, and no reference counts are needed. A push finds bytes that the
// store already has through .berth/blobs, so DIR must be on one file system. If
// the file system has no hard links, bytes are copied.
//
// Symbolic links are followed only inside DIR, only to folders, and only to read.
//
// # The journal
//
// A change to manifests or tags is appended to the repository's journal, a file of
// lines with checksums, and synced; concurrent changes share both. So its cost does
// not depend on the size of the repository. The journal is folded into index.json
// within seconds, when it has grown, in [Store.Fold] and in [Store.Close]; after a
// crash the changes are read from it. A last line that is cut short was never
// acknowledged; a damaged line before others is an error.
//
// # Other tools
//
// While a Store has opened the directory, other tools may read the layouts at any
// time. They see each index.json whole, seconds old at most, and exact after Close.
// They may also write to them: if a tool replaces an index.json that the store has
// changed since the tool has read it, both changes are merged, tag by tag. If both
// have changed a tag, the store's change wins, and that is logged. A tool that
// deletes or moves a tag within 10 seconds of a push is taken for one that has not
// seen the push. Two limits remain: tools that write the same index.json at the same
// time lose each other's changes, as they do without Berth; and an index.json that a
// tool is writing in the moment when the store replaces it is lost. A tool must not delete or change
// files in blobs, nor the files whose names start with a dot.
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
// Before a push is acknowledged, its bytes are synced, with their names: a blob in
// its file, a manifest in the journal. A file that could not be synced is not used
// any more. Files are removed only after index.json does not name them. After a
// crash at any moment the directory can be opened without repair, and holds
// everything that was acknowledged. Upload sessions survive the end of the process,
// but not a crash of the machine. The time of a blob or manifest is the
// modification time of its file, which is not synced.
//
// Manifests are verified whenever they are read; one that is damaged does not exist,
// until it is pushed again. The bytes of a blob that is pushed replace those of a
// damaged file, in each repository that shares them. [Check] verifies all content.
//
// # Caveats
//
//   - One process at a time: Open fails if the directory is in use. Others can read
//     it with [FS].
//   - The store has no size limit of its own. If the disk is full, clients get
//     413, and can delete content.
package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// Store is a registry.Store in a directory.
type Store struct {
	reader
	files rootDir
	opts  Options
	lock  io.Closer

	fromCrash atomic.Bool // there may be journals of another process

	collector collector

	folders sync.Mutex // held while folders of repositories are created or removed
	reserve reserve

	mu       sync.Mutex       // guards repos, the refs of each, and the fields below
	repos    map[string]*repo // in use
	failures map[string]error // by repository, that prevent changes
	closing  bool
	running  sync.WaitGroup // of background work

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

	// Logger gets the conflicts with other tools, damaged content and failures
	// of the disk that no request reports; by default they are not logged.
	Logger *slog.Logger
}

// Errors of Open.
var (
	// ErrInUse means that another process, or another Store of this process,
	// has opened the directory.
	ErrInUse = errors.New("ocidir: the directory is in use by another process")

	// ErrLayout means that the directory is itself an image layout.
	ErrLayout = errors.New("ocidir: the directory is an image layout, not a directory of layouts: open its parent folder, or serve it read-only")
)

const (
	ownDir     = ".berth"
	uploadsDir = ownDir + "/uploads"
	poolDir    = ownDir + "/blobs"

	// versionFile contains the format of the directory; without it, the format
	// is 1, which has no journals.
	versionFile = ownDir + "/version"
	version2    = "2\n"

	// openFile exists while the directory is open.
	openFile = ownDir + "/open"
)

// Open opens the directory dir for reading and writing, and creates it if it
// does not exist. If opts is nil, the defaults apply. The caller must call Close.
//
// Errors: ErrInUse, ErrLayout, and those of the file system.
func Open(dir string, opts *Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{files: rootDir{root}}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.UploadIdle <= 0 {
		s.opts.UploadIdle = time.Hour
	}
	s.reader = reader{fsys: s.files, log: s.opts.Logger, noLists: s.opts.NoReferrers, reload: s.refresh}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if err := s.open(); err != nil {
		root.Close()
		return nil, err
	}
	return s, nil
}

// open prepares the directory.
func (s *Store) open() error {
	if s.files.exists(ocispec.ImageIndexFile) {
		return ErrLayout
	}
	if err := s.files.mkdirAll(uploadsDir); err != nil {
		return err
	}
	lock, err := s.files.lock(ownDir + "/lock")
	if err != nil {
		return err
	}
	s.lock = lock
	err = s.checkVersion()
	if err == nil {
		err = s.recoverUploads()
	}
	if err == nil {
		err = s.markOpen()
	}
	if err != nil {
		lock.Close()
		return err
	}
	s.keepReserve(0)
	return nil
}

// checkVersion returns an error if a later version of Berth has written the
// directory.
func (s *Store) checkVersion() error {
	version, err := readFile(s.fsys, versionFile)
	if isMissing(err) {
		return s.files.replace(versionFile, []byte(version2))
	}
	if err == nil && string(version) != version2 {
		err = fmt.Errorf("ocidir: the directory has the format %q of another version of Berth", strings.TrimSpace(string(version)))
	}
	return err
}

// markOpen creates the file that Close removes. If it exists, there may be journals.
func (s *Store) markOpen() error {
	if s.files.exists(openFile) {
		s.fromCrash.Store(true)
		go s.background(func() {
			if err := s.Fold(context.Background()); err != nil {
				s.log.Error("the journals of the last process can't be folded", "error", err)
			}
		})
		return nil
	}
	if err := s.files.replace(openFile, nil); err != nil {
		return err
	}
	return s.files.sync(ownDir)
}

// Close folds the journals, and releases the directory for other processes. The
// store must not be used afterwards. If an error is returned, the changes are still
// in the journals.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.running.Wait()
	fold := s.foldInUse
	if s.fromCrash.Load() {
		fold = func() error { return s.Fold(context.Background()) }
	}
	err := fold()
	if err == nil {
		err = s.files.remove(openFile)
	}
	return errors.Join(err, s.lock.Close(), s.files.root.Close())
}

// Ready returns an error if the store can't take changes, for example because its
// disk is full. It writes a small file.
func (s *Store) Ready(_ context.Context) error {
	s.mu.Lock()
	for name, err := range s.failures {
		s.mu.Unlock()
		return fmt.Errorf("repository %s: %w", name, err)
	}
	s.mu.Unlock()
	if s.keepReserve(0); !s.hasReserve() {
		return errors.New("the disk is full")
	}
	name, err := s.files.writeTemp(make([]byte, 4<<10))
	if err != nil {
		return err
	}
	return s.files.remove(name)
}

// storeError converts an error of the file system: clients learn that the disk is
// full, and see any other failure as an internal error.
func (s *Store) storeError(err error) error {
	if isFull(err) {
		s.reserve.noteFull()
		return fmt.Errorf("%w: the registry's disk is full", registry.ErrTooLarge)
	}
	return err
}
