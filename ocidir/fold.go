// SPDX-License-Identifier: Apache-2.0

// Folding: writing an index.json that contains the changes of the journal.

package ocidir

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/internal/tree"
)

// A journal is folded once the repository is idle for foldIdle, at the latest
// foldAge after its first change, or when it is larger than half of index.json and
// minFold. Up to then its manifests are in memory.
const (
	minFold   = 1 << 20
	maxFold   = 16 << 20
	foldRetry = 5 * time.Second
)

var (
	foldIdle = time.Second
	foldAge  = 5 * time.Second
)

// foldSize returns the size of a journal to fold.
func (r *repo) foldSize() int64 {
	return min(max(minFold, r.current.info.Size()/2), maxFold)
}

// fold is an index.json that is being written, with the files that it names.
type fold struct {
	r       *repo
	l       *layout
	batches int    // of the journal that l contains
	temp    string // the file of the new index.json
	hash    digest.Digest
	info    fs.FileInfo // once it is in place
	created []string    // files of content

	cacheLines int

	superseded atomic.Bool // by another fold, or the repository was removed
}

// errSuperseded is the error of a fold that another one has made useless.
var errSuperseded = errors.New("ocidir: superseded by another fold")

// fold folds the journal, if any, while changes go on.
func (r *repo) fold() error {
	f, err := r.startBackground()
	if f == nil {
		return err
	}
	return r.endBackground(f, f.write())
}

// startBackground begins the fold in the background. It returns nil if index.json
// lacks nothing.
func (r *repo) startBackground() (*fold, error) {
	r.folding.Lock()
	r.committing.Lock()
	defer r.committing.Unlock()
	f, err := r.beginFold()
	if f == nil {
		r.folding.Unlock()
		return nil, err
	}
	r.background = f
	return f, nil
}

// endBackground ends the fold in the background.
func (r *repo) endBackground(f *fold, writeErr error) error {
	defer r.folding.Unlock()
	r.committing.Lock()
	defer r.committing.Unlock()
	defer f.cleanUp()
	r.background = nil
	return r.endFold(f, writeErr)
}

// stopFold ends the writes of the fold in the background, if any, so that it creates
// no file that a change has removed. It must be called with committing held.
func (r *repo) stopFold() {
	if r.background != nil {
		r.background.superseded.Store(true)
		r.writing.Lock() // when it has ended
		defer r.writing.Unlock()
	}
}

// foldNow is fold for a caller that holds committing.
func (r *repo) foldNow() error {
	r.stopFold()
	f, err := r.beginFold()
	if f == nil {
		return err
	}
	defer f.cleanUp()
	err = f.write()
	if isFull(err) {
		r.s.releaseReserve()
		err = f.write()
		defer r.s.keepReserve(0)
	}
	if isFull(err) { // leave the space to the journal
		for _, name := range f.created {
			r.s.files.remove(name)
		}
	}
	return r.endFold(f, err)
}

// beginFold begins a fold, after updating the lists of referrers. It returns nil
// if index.json lacks nothing.
func (r *repo) beginFold() (*fold, error) {
	l, err := r.refresh()
	if errors.Is(err, registry.ErrNameUnknown) {
		return nil, nil // it was removed
	}
	if err != nil {
		return nil, err
	}
	if !l.dirty && !r.mustFold && r.journal == nil {
		r.s.setFailure(r.name, nil)
		return nil, nil
	}
	l = l.clone()
	lists, err := l.updateLists(r.hasFile)
	if err != nil {
		return nil, err
	}
	if len(lists) > 0 && r.journal != nil { // a crash must not make them blobs
		if err := r.append(batch{Changes: lists}, true); err != nil {
			return nil, r.foldFailed(err)
		}
	}
	r.publish(l)
	return r.newFold(l), nil
}

// newFold returns a fold of l.
func (r *repo) newFold(l *layout) *fold {
	r.tail = nil
	f := &fold{r: r, l: l}
	if r.journal != nil {
		f.batches = r.journal.batches
	}
	return f
}

// write writes all files, without their names in the folders being durable.
func (f *fold) write() error {
	f.r.writing.Lock()
	defer f.r.writing.Unlock()
	if err := f.writePending(); err != nil {
		return err
	}
	var facts []fact
	for d, p := range f.l.pending.After("") {
		if m, err := f.l.manifests.GetManifest(context.Background(), f.l.name, digest.Digest(d)); err == nil {
			facts = append(facts, factOf(m, p.data))
		}
	}
	f.r.s.files.addFacts(f.r.dir, facts)
	f.cacheLines = f.l.cacheLines + len(facts)
	if f.cacheLines > 2*f.l.content.Len()+1000 {
		f.cacheLines = f.r.s.files.compactFacts(f.r.dir, func(d digest.Digest) bool { return f.l.uses(d).has(asManifest) })
	}
	return f.writeIndex()
}

// foldWriters is the number of files that are written at the same time: the system
// syncs them together.
const foldWriters = 16

// writePending writes the files of the pending content.
func (f *fold) writePending() error {
	files := f.r.s.files
	folders := make(map[string]bool)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards the fields of f, and err
		err  error
		stop error // that of this goroutine
		free = make(chan struct{}, foldWriters)
	)
	for d, p := range f.l.pending.After("") {
		if f.superseded.Load() {
			stop = errSuperseded
			break
		}
		name := contentPath(f.r.dir, digest.Digest(d))
		if dir := path.Dir(name); !folders[dir] {
			if stop = files.mkdirAll(dir); stop != nil {
				break
			}
			folders[dir] = true
		}
		free <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			isNew, writeErr := files.writeContent(name, p)
			mu.Lock()
			if isNew {
				f.created = append(f.created, name)
			}
			err = cmp.Or(err, writeErr)
			mu.Unlock()
			<-free
		}()
	}
	wg.Wait()
	err = cmp.Or(stop, err)
	for dir := range folders {
		if err == nil {
			err = errors.Join(files.sync(dir), files.sync(path.Dir(dir)))
		}
	}
	return err
}

// writeContent writes the file of a manifest or a list, unless it exists.
func (d rootDir) writeContent(name string, p pendingContent) (isNew bool, err error) {
	if d.holds(name, p.data) {
		if !p.time.IsZero() {
			err = d.setTime(name, p.time)
		}
		return false, err
	}
	temp, err := d.writeTemp(p.data)
	if err != nil {
		return false, err
	}
	if !p.time.IsZero() {
		err = d.chtimes(temp, p.time)
	}
	if err != nil {
		d.remove(temp)
		return false, err
	}
	err = d.moveTemp(temp, name)
	return err == nil, err
}

// writeIndex writes the new index.json under a temporary name.
func (f *fold) writeIndex() error {
	files := f.r.s.files
	f.cleanUp()
	f.temp = tempName()
	file, err := files.create(f.temp)
	if err != nil {
		return err
	}
	hash := digest.Canonical.Digester()
	err = f.l.encode(io.MultiWriter(file, hash.Hash()))
	if err == nil {
		err = file.Sync()
	}
	f.hash = hash.Digest()
	return errors.Join(err, file.Close())
}

// cleanUp removes the temporary file, if it is not in place.
func (f *fold) cleanUp() {
	if f.temp != "" {
		f.r.s.files.remove(f.temp)
		f.temp = ""
	}
}

// putInPlace replaces index.json. It must be called with committing held.
func (f *fold) putInPlace() error {
	files, name := f.r.s.files, f.r.file(ocispec.ImageIndexFile)
	if err := files.rename(f.temp, name); err != nil {
		return err
	}
	f.temp = ""
	var err error
	if f.info, err = files.Stat(name); err != nil {
		return err
	}
	return files.sync(f.r.dir)
}

// version returns the state that the new index.json has.
func (f *fold) version() *layout {
	v := *f.l
	v.info, v.hash, v.dirty = f.info, f.hash, false
	v.pending = tree.Map[pendingContent]{}
	return &v
}

// result returns the state of l, which f.l became meanwhile, after the fold. Content that was
// pushed again meanwhile has a file by now, whose time is that of the first push.
func (f *fold) result(l *layout) *layout {
	l = l.clone()
	l.info, l.hash, l.cacheLines = f.info, f.hash, f.cacheLines
	for d, p := range f.l.pending.After("") {
		if again, ok := l.pending.Get(d); ok && again.time.After(p.time) {
			name := contentPath(f.r.dir, digest.Digest(d))
			if err := f.r.s.files.setTime(name, again.time); err != nil && !isMissing(err) {
				f.r.s.log.Error("the use of content can't be noted", "repository", l.name, "digest", d, "error", err)
			}
		}
		l.pending = l.pending.Without(d)
	}
	l.dirty = len(f.r.tail) > 0
	return l
}

// endFold puts the new index.json in place, removes the files that it does not name
// any more, and then shortens the journal. It must be called with committing held;
// writeErr is the error of write.
func (r *repo) endFold(f *fold, writeErr error) error {
	s := r.s
	if f.superseded.Load() {
		return nil
	}
	if err := writeErr; err != nil {
		return r.foldFailed(err)
	}
	if r.journal != nil {
		// Without the mark, a crash would have the journal replayed over the
		// new index.json, with the same result.
		if line, err := appendLine(nil, batch{Fold: &foldMark{f.hash, f.batches}}); err == nil {
			r.journal.append(line)
		}
	}
	// From here to the rename, a change of another tool would be lost: nothing else waits
	// for the disk there.
	current, err := r.refresh()
	if err != nil {
		return ignoreUnknown(err)
	}
	if !f.mayReplace(current) {
		r.arm(foldIdle)
		return nil // another tool has written it meanwhile
	}
	if err := f.putInPlace(); err != nil {
		return r.foldFailed(err)
	}
	l := f.result(current)
	removed, err := r.removeCondemned(f.l, l)
	if err == nil {
		err = r.shortenJournal(l)
	}
	for i := 0; err == nil && i < len(removed); i++ { // until then, a crash would condemn them again
		l.condemned = l.condemned.Without(removed[i])
	}
	l.dirty = l.dirty || err != nil
	r.keepVersion(f.version())
	r.publish(l)
	if err != nil {
		return r.foldFailed(err)
	}
	s.setFailure(r.name, nil)
	s.keepReserve(f.info.Size())
	r.firstDirty = time.Time{}
	if l.dirty {
		r.changed()
	}
	return nil
}

// foldFailed notes that a fold has failed. It is tried again later.
func (r *repo) foldFailed(err error) error {
	r.s.setFailure(r.name, err)
	r.arm(foldRetry)
	return err
}

// mayReplace reports whether the new index.json may replace the present one: that
// must be the one that it is based on. One that can't be read may be half written;
// after a while it is kept under another name.
func (f *fold) mayReplace(current *layout) bool {
	r := f.r
	if !isUnchanged(current.info, f.l.info) {
		return false
	}
	info, err := r.s.files.Stat(r.file(ocispec.ImageIndexFile))
	if err != nil {
		return false
	}
	if isUnchanged(info, current.info) {
		return true
	}
	if r.damaged == nil || time.Since(r.damaged.ModTime()) < damagedAge && !r.s.isClosing() {
		return false
	}
	aside := r.file("." + ocispec.ImageIndexFile + ".damaged")
	r.s.log.Error("an index.json that can't be read is kept under another name", "repository", r.name, "name", aside)
	r.damaged = nil
	return r.s.files.remove(aside) == nil && r.s.files.linkOrCopy(r.file(ocispec.ImageIndexFile), aside) == nil
}

// damagedAge is the age from which an index.json that can't be read is taken to be
// damaged, not half written.
const damagedAge = 10 * time.Second

// removeCondemned removes the files that were condemned in the state folded, and
// still are in l. It returns their digests.
func (r *repo) removeCondemned(folded, l *layout) (removed []string, err error) {
	var errs []error
	folders := make(map[string]bool)
	for d := range folded.condemned.After("") {
		if _, ok := l.condemned.Get(d); !ok {
			continue // pushed again
		}
		name := contentPath(r.dir, digest.Digest(d))
		if err := r.s.files.remove(name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, d)
		r.s.unpool(digest.Digest(d))
		folders[path.Dir(name)] = true
	}
	for dir := range folders {
		if err := r.s.files.sync(dir); !isMissing(err) {
			errs = append(errs, err)
		}
	}
	return removed, errors.Join(errs...)
}

// removeBlobs removes the files of condemned blobs, which index.json does not name:
// that needs no space.
func (r *repo) removeBlobs(l *layout) {
	if len(r.versions) == 0 {
		return
	}
	published := r.versions[len(r.versions)-1]
	for d := range l.condemned.After("") {
		if published.uses(digest.Digest(d)) == 0 {
			r.s.files.remove(contentPath(r.dir, digest.Digest(d)))
			r.s.unpool(digest.Digest(d))
		}
	}
}

// shortenJournal replaces the journal by one with the changes that index.json does
// not contain, or removes it if there are none.
func (r *repo) shortenJournal(l *layout) error {
	files, name := r.s.files, r.file(journalFile)
	tail := r.tail
	if len(tail) == 0 {
		if err := files.remove(name); err != nil {
			return err
		}
		r.journal, r.mustFold = nil, false
		return nil
	}
	j, err := createJournal(files, tempName(), l.hash, tail...)
	if err != nil {
		return err // the present one has the mark
	}
	if err := files.moveTemp(j.name, name); err != nil {
		return err
	}
	j.name = name
	r.journal, r.tail, r.mustFold = j, nil, false
	if err := files.sync(r.dir); err != nil {
		j.failed = err // its name may be that of the former one
		return err
	}
	return nil
}
