// SPDX-License-Identifier: Apache-2.0

// Loading a repository: its index.json with the changes of its journal.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

// loadLayout reads the repository in dir. It returns its state, that of its
// index.json alone, and its journal, nil if it has none. Another process may fold the
// journal meanwhile.
func loadLayout(fsys fs.FS, dir, name string, noLists bool) (l, base *layout, j *journalContent, err error) {
	for {
		l, err := readIndex(fsys, dir, name, noLists)
		if err != nil {
			return nil, nil, nil, err
		}
		if info, err := fs.Stat(fsys, path.Join(dir, journalFile)); err == nil {
			l.journal = info
		}
		j, err := readJournal(fsys, dir)
		if err != nil {
			return nil, nil, nil, err
		}
		info, err := fs.Stat(fsys, path.Join(dir, ocispec.ImageIndexFile))
		if err != nil {
			return nil, nil, nil, err
		}
		if !isUnchanged(l.info, info) {
			continue // the journal may be that of the next index.json
		}
		if j == nil {
			l.journal = nil
			return l, l, nil, nil
		}
		base := l.clone()
		l.journalSize = j.size
		if err := l.replay(folder{fsys: fsys, dir: dir}, j); err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", path.Join(dir, journalFile), err)
		}
		return l, base, j, nil
	}
}

// readOn returns l with the changes that were appended to its journal since it was
// read. It returns nil if the repository must be read anew.
func (l *layout) readOn(fsys fs.FS, dir string) (*layout, error) {
	f, err := openRegular(fsys, path.Join(dir, journalFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	j := journalContent{size: l.journalSize}
	if l.journal != nil {
		s, ok := f.(io.Seeker)
		if !ok || !os.SameFile(l.journal, info) || info.Size() < l.journalSize {
			return nil, nil
		}
		if _, err := s.Seek(l.journalSize, io.SeekStart); err != nil {
			return nil, err
		}
		j.header.Version = journalVersion
	}
	if err := j.read(f); err != nil {
		return nil, err
	}
	if l.journal == nil && j.header.Base != l.hash {
		return nil, nil
	}
	index, err := fs.Stat(fsys, path.Join(dir, ocispec.ImageIndexFile))
	if err != nil || !isUnchanged(l.info, index) {
		return nil, err
	}
	next := l.clone()
	next.journal, next.journalSize = info, j.size
	for _, b := range j.batches {
		for _, r := range b.Changes {
			if err := next.apply(folder{fsys: fsys, dir: dir}, r); err != nil {
				return nil, err
			}
		}
	}
	return next, nil
}

// replay makes the changes of a journal. Over an index.json that another tool has
// written, it makes all of them.
func (l *layout) replay(src folder, j *journalContent) error {
	contained := j.contained(l.hash)
	l.dirty = true
	for i, b := range j.batches {
		for _, r := range b.Changes {
			if i < contained {
				l.removeLeftover(r)
			} else if err := l.apply(src, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeLeftover condemns a file again that was to be removed after a change that
// index.json contains.
func (l *layout) removeLeftover(r record) {
	switch {
	case r.Op == opPush || r.Op == opKeepBlob:
		l.condemned = l.condemned.Without(string(r.Digest))
	case r.Op == opDelete && !r.Blob || r.Op == opDeleteBlob || r.Op == opList:
		if l.uses(r.Digest) == 0 {
			l.condemned = l.condemned.With(string(r.Digest), struct{}{})
		}
	}
}

// apply makes a change, which may have been made already.
func (l *layout) apply(src folder, r record) error {
	switch r.Op {
	case opPush:
		return l.applyPush(src, r)
	case opDelete:
		if err := l.deleteManifest(r.Digest); isUnknown(err) {
			l.removeLeftover(r)
		} else if err != nil {
			return err
		}
		return nil
	case opUntag:
		for _, tag := range r.Tags {
			if err := l.manifests.DeleteTag(context.Background(), l.name, tag, nil); err != nil && !isUnknown(err) {
				return err
			}
		}
		return nil
	case opKeepBlob:
		l.keepBlob(r.Digest)
		return nil
	case opDeleteBlob:
		l.deleteBlob(r.Digest)
		return nil
	case opList:
		l.removeLeftover(r)
		return nil
	}
	return fmt.Errorf("unknown operation %q", r.Op)
}

// applyPush pushes a manifest.
func (l *layout) applyPush(src folder, r record) error {
	if r.Size == 0 && r.Content == nil {
		r.Content = []byte{}
	}
	f := fact{Digest: r.Digest, MediaType: r.MediaType, Size: r.Size}
	if !l.uses(r.Digest).has(asManifest) {
		content := r.Content
		if content == nil {
			var err error
			if content, err = src.content(r.Digest); isMissing(err) {
				return nil // another tool has removed it
			} else if err != nil {
				return err
			}
		}
		parsed, ok := parseFact(r.MediaType, r.Digest, content)
		switch {
		case ok:
			f = parsed
		case r.Content != nil:
			return fmt.Errorf("the content of %s has another digest", r.Digest)
		}
	}
	err := l.putManifest(f.manifest(), f.Size, r.Content, r.Tags, nil, r.Time)
	if errors.Is(err, registry.ErrManifestInvalid) {
		return nil // another tool has given it another media type
	}
	if err == nil && r.Blob {
		l.addUse(r.Digest, asBlob)
	}
	return err
}

// isUnknown reports whether err means that something does not exist.
func isUnknown(err error) bool {
	return errors.Is(err, registry.ErrManifestUnknown) || errors.Is(err, registry.ErrNameUnknown)
}
