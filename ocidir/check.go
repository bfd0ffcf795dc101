// SPDX-License-Identifier: Apache-2.0

// Verifying all content.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// CheckOptions are the options of Check. Its functions may be nil.
type CheckOptions struct {
	// Repair replaces damaged files by intact ones of other repositories, and
	// moves the others to .berth/damaged, so that clients push them again. The
	// store must be one of Open.
	Repair bool

	// Problem is called with each problem.
	Problem func(Problem)

	// Progress is called with the number of bytes verified, and of all bytes.
	Progress func(done, total int64)
}

// Problem is content that is damaged or missing, or a repository that can't be
// read.
type Problem struct {
	Repository string // empty for a file of the store itself
	File       string // relative to the directory, if the problem is one file's
	Err        error
	Repair     string // how Check has repaired it, if it has
}

func (p Problem) String() string {
	where := p.File
	if where == "" {
		where = p.Repository
	}
	if p.Repair != "" {
		return fmt.Sprintf("%s: %v; %s", where, p.Err, p.Repair)
	}
	return fmt.Sprintf("%s: %v", where, p.Err)
}

// CheckStats counts what Check has verified.
type CheckStats struct {
	Repositories, Files int
	Bytes               int64
	Problems, Repaired  int
}

// Errors of problems.
var (
	errDamagedFile = errors.New("its bytes do not have its digest")
	errMissing     = errors.New("a manifest of index.json is missing")
)

// Check verifies that s, a store of [Open] or [FS], can read each repository, and
// that the bytes of each file have the digest that it is named by. The store may be
// in use. Check returns an error only if it can't go on; it returns none because of
// a problem.
func Check(ctx context.Context, s registry.Store, opts CheckOptions) (CheckStats, error) {
	c := checker{ctx: ctx, opts: opts}
	switch s := s.(type) {
	case *Store:
		c.reader, c.store = &s.reader, s
	case *fsStore:
		c.reader = &s.reader
	default:
		return CheckStats{}, fmt.Errorf("ocidir: can't check a %T", s)
	}
	if opts.Repair && c.store == nil {
		return CheckStats{}, errors.New("ocidir: can't repair a store that is read-only")
	}
	err := c.run()
	return c.stats, err
}

// checker is a run of Check.
type checker struct {
	ctx    context.Context
	opts   CheckOptions
	reader *reader
	store  *Store // nil if it is read-only

	stats CheckStats
	total int64 // bytes
	seen  map[fileID]error
}

// checkedFile is a file to verify.
type checkedFile struct {
	repo, name string
	digest     digest.Digest
	info       fs.FileInfo
}

func (c *checker) run() error {
	c.seen = make(map[fileID]error)
	var files []checkedFile
	for repo, err := range c.reader.Repositories(c.ctx, "") {
		if err == nil {
			err = c.ctx.Err()
		}
		if err != nil {
			return err
		}
		c.stats.Repositories++
		files = append(files, c.repository(repo)...)
	}
	files = append(files, c.files("", poolDir)...)
	for _, f := range files {
		c.total += f.info.Size()
	}
	for _, f := range files {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		err := c.verify(f)
		c.stats.Files++
		c.stats.Bytes += f.info.Size()
		if c.opts.Progress != nil {
			c.opts.Progress(c.stats.Bytes, c.total)
		}
		if err != nil && !isMissing(err) {
			c.report(Problem{Repository: f.repo, File: f.name, Err: err, Repair: c.repair(f)})
		}
	}
	return nil
}

// report reports a problem.
func (c *checker) report(p Problem) {
	c.stats.Problems++
	if p.Repair != "" {
		c.stats.Repaired++
	}
	if c.opts.Problem != nil {
		c.opts.Problem(p)
	}
}

// repository checks the index.json of a repository, and returns its files.
func (c *checker) repository(repo string) []checkedFile {
	l, err := c.reader.load(repo)
	if err != nil {
		c.report(Problem{Repository: repo, Err: err})
		return nil
	}
	for _, raw := range l.unreadable.After("") {
		c.report(Problem{Repository: repo, Err: fmt.Errorf("an entry of index.json can't be read: %s", raw)})
	}
	for d := range l.allManifests() {
		if _, ok := l.pending.Get(string(d)); ok {
			continue
		}
		name := contentPath(c.reader.folder(repo), d)
		if _, err := fs.Stat(c.reader.fsys, name); isMissing(err) {
			c.report(Problem{Repository: repo, File: name, Err: errMissing})
		}
	}
	return c.files(repo, path.Join(c.reader.folder(repo), "blobs"))
}

// files returns the files of content below a folder.
func (c *checker) files(repo, blobs string) (files []checkedFile) {
	algorithms, err := fs.ReadDir(c.reader.fsys, blobs)
	if err != nil && !isMissing(err) {
		c.report(Problem{Repository: repo, File: blobs, Err: err})
	}
	for _, algorithm := range algorithms {
		folder := path.Join(blobs, algorithm.Name())
		entries, err := fs.ReadDir(c.reader.fsys, folder)
		if err != nil && !isMissing(err) {
			c.report(Problem{Repository: repo, File: folder, Err: err})
		}
		for _, e := range entries {
			d := digest.Digest(algorithm.Name() + ":" + e.Name())
			info, err := e.Info()
			if err != nil || d.Validate() != nil || !info.Mode().IsRegular() {
				continue // no client can request it
			}
			files = append(files, checkedFile{repo, path.Join(folder, e.Name()), d, info})
		}
	}
	return files
}

// verify returns an error if the bytes of a file do not have its digest. A file
// with several names is read once.
func (c *checker) verify(f checkedFile) error {
	id, ok := idOf(f.info)
	if err, seen := c.seen[id]; ok && seen {
		return err
	}
	err := c.read(f)
	if ok {
		c.seen[id] = err
	}
	return err
}

func (c *checker) read(f checkedFile) error {
	file, err := openRegular(c.reader.fsys, f.name)
	if err != nil {
		return err
	}
	defer file.Close()
	v := f.digest.Verifier()
	if _, err := io.Copy(v, file); err != nil {
		return err
	}
	if v.Verified() {
		return nil
	}
	if f.repo != "" && c.isSigned(f) {
		return nil
	}
	return errDamagedFile
}

// isSigned reports whether a file is an intact manifest whose digest is not that of
// all its bytes.
func (c *checker) isSigned(f checkedFile) bool {
	_, err := c.reader.GetManifest(c.ctx, f.repo, f.digest)
	return err == nil
}

// repair repairs a damaged file, and returns how.
func (c *checker) repair(f checkedFile) string {
	if !c.opts.Repair {
		return ""
	}
	source, ok := c.intact(f.digest)
	if ok {
		cmp := comparer{files: c.store.files, digest: f.digest, source: source}
		if err := c.store.replaceDamaged(f.digest, &cmp); err != nil {
			return ""
		}
		return "replaced by an intact copy"
	}
	files := c.store.files
	aside := path.Join(ownDir, "damaged", f.digest.Encoded())
	// The file may be there already under another name: then rename does nothing.
	if files.mkdirAll(path.Dir(aside)) != nil || files.rename(f.name, aside) != nil || files.remove(f.name) != nil {
		return ""
	}
	return "moved to " + aside
}

// intact returns a file with the bytes of d.
func (c *checker) intact(d digest.Digest) (name string, ok bool) {
	names := []string{poolPath(d)}
	for repo, err := range c.store.Repositories(c.ctx, "") {
		if err == nil {
			names = append(names, contentPath(repoDir(repo), d))
		}
	}
	for _, name := range names {
		info, err := c.store.files.Stat(name)
		if err == nil && c.verify(checkedFile{name: name, digest: d, info: info}) == nil {
			return name, true
		}
	}
	return "", false
}

// Unreadable returns the entries of a repository's index.json whose manifest is
// missing or damaged, in JSON. Clients can't see them; pushes keep them. A store of
// [FS] has the method too.
func (r *reader) Unreadable(repo string) (entries []string, err error) {
	l, err := r.load(repo)
	if err != nil {
		return nil, err
	}
	for _, raw := range l.unreadable.After("") {
		entries = append(entries, string(raw))
	}
	return entries, nil
}

// fileID identifies a file with all its names.
type fileID struct{ device, inode uint64 }
