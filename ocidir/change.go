// SPDX-License-Identifier: Apache-2.0

// Changes of a repository: in batches, synced, and acknowledged when they
// survive.

package ocidir

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// repo is a repository that is being changed.
type repo struct {
	s    *Store
	name string
	dir  string // a file's path
	refs int    // to it; guarded by the store's mu

	mu    sync.Mutex // guards queue
	queue []*change

	committing sync.Mutex // held by who commits the queue
}

// change is a change that waits, or has been made.
type change struct {
	make func(*edit) error
	last bool // it begins a batch, or is the only one: what it does afterwards must not undo another's work
	err  error
	done bool
}

// edit is a repository while changes are made to it.
type edit struct {
	*layout
	r     *repo
	isNew bool // there is no such repository yet

	write    bool                   // index.json has changed
	synced   map[string]bool        // folders in which there are new names
	subjects map[digest.Digest]bool // of which the referrers have changed
	files    []digest.Digest        // that were linked, to be taken back if the rest fails
	after    []func() error         // to be done when index.json says so
	ends     bool                   // something is deleted, and it may have been the last
}

// change makes a change of a repository. When it returns nil, the change
// survives.
func (s *Store) change(name string, f func(*edit) error) error {
	return s.run(name, &change{make: f})
}

// changeAlone makes a change that does something after index.json is written.
func (s *Store) changeAlone(name string, f func(*edit) error) error {
	return s.run(name, &change{make: f, last: true})
}

func (s *Store) run(name string, c *change) error {
	r := s.acquire(name)
	defer s.release(r)
	r.mu.Lock()
	r.queue = append(r.queue, c)
	r.mu.Unlock()

	r.committing.Lock()
	defer r.committing.Unlock()
	if c.done {
		return failed(c.err) // another was here before, and took it along
	}
	r.mu.Lock()
	batch := r.queue
	r.queue = nil
	r.mu.Unlock()
	for len(batch) > 0 {
		n := 1
		for !batch[0].last && n < len(batch) && !batch[n].last {
			n++
		}
		r.commit(batch[:n])
		batch = batch[n:]
	}
	if !c.done {
		return errors.New("ocidir: whoever was to make the change has panicked")
	}
	return failed(c.err)
}

func (s *Store) acquire(name string) *repo {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.repos[name]
	if !ok {
		r = &repo{s: s, name: name, dir: s.path(repoDir(name))}
		if s.repos == nil {
			s.repos = make(map[string]*repo)
		}
		s.repos[name] = r
	}
	r.refs++
	return r
}

func (s *Store) release(r *repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.refs--; r.refs == 0 {
		delete(s.repos, r.name)
	}
}

// commit makes changes, all that can be made, and then makes them survive.
func (r *repo) commit(batch []*change) {
	e := &edit{r: r, synced: make(map[string]bool), subjects: make(map[digest.Digest]bool)}
	now, err := r.s.layout(r.name)
	if errors.Is(err, registry.ErrNameUnknown) {
		now, err = emptyLayout(r.name), nil
		e.isNew = true
	}
	if err == nil {
		e.layout = now.clone()
		for _, c := range batch {
			c.err = c.make(e)
		}
		err = e.commit()
	}
	for _, c := range batch {
		if c.err == nil {
			c.err = err
		}
		c.done = true
	}
}

// commit writes what has changed: files first, then their names, and then
// index.json, which makes them seen.
func (e *edit) commit() error {
	if !e.write && !e.ends && len(e.synced) == 0 {
		return nil
	}
	err := e.publish()
	if err != nil {
		for _, d := range e.files {
			os.Remove(e.file(d))
			os.Remove(e.r.s.path(poolPath(d))) // it may be an upload's file, which is written to
		}
		return err
	}
	for _, f := range e.after {
		err = errors.Join(err, f())
	}
	if e.ends {
		err = errors.Join(err, e.removeEmpty())
	}
	return err
}

func (e *edit) publish() error {
	for subject := range e.subjects {
		if err := e.writeList(subject); err != nil {
			return err
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(e.synced)) {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	if !e.write && !e.isNew {
		return nil
	}
	data, err := e.encode()
	if err != nil {
		return err
	}
	if e.isNew {
		if err := writeFile(filepath.Join(e.r.dir, ocispec.ImageLayoutFile), []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
			return err
		}
	}
	name := filepath.Join(e.r.dir, ocispec.ImageIndexFile)
	if err := writeFile(name, data); err != nil {
		return err
	}
	e.files = nil // it names them
	if e.info, err = os.Stat(name); err != nil {
		return err
	}
	s := e.r.s
	s.cacheMu.Lock()
	s.keep(e.layout)
	s.cacheMu.Unlock()
	if err := syncDir(e.r.dir); err != nil {
		return err
	}
	for dir := e.r.dir; e.isNew && dir != s.dir; { // its folder's name, and those above
		dir = filepath.Dir(dir)
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// file returns the path of the file of content with the digest d.
func (e *edit) file(d digest.Digest) string {
	return filepath.Join(e.r.dir, filepath.FromSlash(contentPath("", d)))
}

// has reports whether there is a file of content with the digest d.
func (e *edit) has(d digest.Digest) bool {
	_, err := os.Stat(e.file(d))
	return err == nil
}

// link gives the file of content with the digest d its name. Its own file, tmp,
// is taken where the bytes are not there yet.
func (e *edit) link(d digest.Digest, tmp string) error {
	name := e.file(d)
	if err := e.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	err := e.r.s.share(d, tmp, name)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		e.files = append(e.files, d)
		e.synced[filepath.Dir(name)] = true
	}
	return err
}

// mkdir makes a folder in the repository's.
func (e *edit) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	e.r.s.folders.Lock()
	defer e.r.s.folders.Unlock()
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for d := dir; d != e.r.dir; {
		d = filepath.Dir(d)
		e.synced[d] = true
	}
	return nil
}

// removeEmpty takes the repository away if it holds nothing any more.
func (e *edit) removeEmpty() error {
	if len(e.order) > 0 {
		return nil
	}
	s := e.r.s
	s.folders.Lock()
	defer s.folders.Unlock()
	blobs := filepath.Join(e.r.dir, ocispec.ImageBlobsDir)
	folders, err := os.ReadDir(blobs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range folders {
		os.Remove(filepath.Join(blobs, f.Name())) // unless something is in it
	}
	if err := os.Remove(blobs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // something is
	}
	for _, name := range []string{ocispec.ImageIndexFile, ocispec.ImageLayoutFile, tempName(ocispec.ImageIndexFile)} {
		if err := os.Remove(filepath.Join(e.r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := syncDir(e.r.dir); err != nil {
		return err
	}
	for dir := e.r.dir; dir != s.dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // there are others below it
		}
	}
	return nil
}

// remove takes the file of content with the digest d away.
func (e *edit) remove(d digest.Digest) error {
	name := e.file(d)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	e.r.s.unshare(d)
	return syncDir(filepath.Dir(name))
}

// writeList writes the list of a subject's referrers, for tools that read the
// layout. A tag that a client pushed under its name stays what it is.
func (e *edit) writeList(subject digest.Digest) error {
	old := e.lists[subject].Digest
	data, err := e.list(subject)
	if err != nil {
		return err
	}
	var d ocispec.Descriptor // none, where there are none any more
	if data != nil {
		d = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		if !e.has(d.Digest) {
			tmp, err := e.r.s.writeTemp(data)
			if err != nil {
				return err
			}
			defer os.Remove(tmp)
			if err := e.link(d.Digest, tmp); err != nil {
				return err
			}
		} else if c, known := e.content[d.Digest]; !known || c.use == 0 {
			e.take(d.Digest, asBlob) // it was pushed as one
		}
	}
	e.setList(subject, d)
	e.write = true
	if _, used := e.content[old]; old != "" && old != d.Digest && !used {
		e.after = append(e.after, func() error { return e.remove(old) })
	}
	return nil
}

// writeFile writes a file so that it is there as a whole or not at all.
func writeFile(name string, data []byte) error {
	dir, base := filepath.Split(name)
	tmp := filepath.Join(dir, tempName(base))
	if err := writeSynced(tmp, data); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, name)
}

func tempName(base string) string { return "." + base + ".tmp" }

func writeSynced(name string, data []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// share gives a file the name that it has in a layout: another name of the
// bytes that are there already, or of tmp. tmp stays where it is.
// Errors: fs.ErrExist where the name is taken, by the same bytes then.
func (s *Store) share(d digest.Digest, tmp, name string) error {
	pool := s.path(poolPath(d))
	if !canCountLinks {
		return linkOrCopy(tmp, name)
	}
	found := os.Link(pool, name)
	if found == nil || errors.Is(found, fs.ErrExist) {
		return found
	}
	if err := linkOrCopy(tmp, name); err != nil {
		return err
	}
	// Without a name in the common folder the bytes may be there twice later:
	// nothing worse.
	if !errors.Is(found, fs.ErrNotExist) {
		os.Remove(pool) // it has as many names as a file can have
	}
	os.MkdirAll(filepath.Dir(pool), 0o777)
	os.Link(name, pool)
	return nil
}

// poolPath returns where the bytes of content are once more.
func poolPath(d digest.Digest) string {
	return path.Join(poolDir, d.Algorithm().String(), d.Encoded())
}

// unshare takes the bytes out of the common folder when no layout has them any
// more. One that takes them meanwhile has its own name for them.
func (s *Store) unshare(d digest.Digest) {
	if pool := s.path(poolPath(d)); canCountLinks && links(pool) == 1 {
		os.Remove(pool)
	}
}

// linkOrCopy gives a file another name. It copies it where links can't be made.
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
