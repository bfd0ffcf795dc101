// SPDX-License-Identifier: Apache-2.0

// The half of the contract that changes what is there: blobs and manifests.

package ocidir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// linkBlob publishes a file as a blob of a repository.
func (s *Store) linkBlob(repo string, d digest.Digest, file string) error {
	return s.change(repo, func(e *edit) error {
		if e.isBlob(d) || !e.has(d) {
			return e.link(d, file)
		}
		e.take(d, asBlob) // it is a manifest, and now a blob too
		e.write = true
		return nil
	})
}

// FindBlob asks the repositories only for what was ever pushed.
func (s *Store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	if canCountLinks {
		if _, err := os.Stat(s.path(poolPath(d))); err != nil {
			return func(func(string, error) bool) {}
		}
	}
	return s.reader.FindBlob(ctx, d)
}

func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	content, err := s.OpenBlob(ctx, from, d)
	if err != nil {
		return err
	}
	defer content.Close()
	err = s.linkBlob(repo, d, s.path(contentPath(repoDir(from), d)))
	if errors.Is(err, fs.ErrNotExist) {
		return registry.ErrBlobUnknown // deleted since
	}
	return err
}

func (s *Store) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	return s.changeAlone(repo, func(e *edit) error {
		switch {
		case e.isNew:
			return registry.ErrNameUnknown
		case !e.isBlob(d) || !e.has(d):
			return registry.ErrBlobUnknown
		case e.content[d].is(asBlob):
			e.drop(d, asBlob)
			e.write = true
			return nil
		}
		e.after = append(e.after, func() error { return e.remove(d) })
		e.ends = true
		return nil
	})
}

func (s *Store) PutManifest(ctx context.Context, repo string, m registry.Manifest, tags []string, allow func(tag string, current digest.Digest) error) error {
	// It is written before others have to wait for it.
	file := ""
	write := func() (err error) {
		file, err = s.writeTemp(m.Content)
		return err
	}
	defer func() {
		if file != "" {
			os.Remove(file)
		}
	}()
	if _, err := s.GetManifest(ctx, repo, m.Digest); err != nil {
		if err := write(); err != nil {
			return failed(err)
		}
	}
	return s.change(repo, func(e *edit) error {
		if !e.content[m.Digest].is(asManifest) && file == "" { // deleted since
			if err := write(); err != nil {
				return err
			}
		}
		return e.putManifest(ctx, m, file, tags, allow)
	})
}

func (e *edit) putManifest(ctx context.Context, m registry.Manifest, file string, tags []string, allow func(tag string, current digest.Digest) error) error {
	manifests := e.manifests.Clone()
	if err := (withoutContent{manifests}).PutManifest(ctx, e.name, m, tags, allow); err != nil {
		return err
	}
	c, known := e.content[m.Digest]
	if !c.is(asManifest) {
		if !known && e.has(m.Digest) {
			c.use |= asBlob
		}
		if err := e.link(m.Digest, file); err != nil {
			return err
		}
		c.use |= asManifest
		c.size = int64(len(m.Content))
		e.content[m.Digest] = c
		e.order = append(e.order, m.Digest)
		e.write = true
		if m.Subject != "" {
			e.subjects[m.Subject] = true
		}
	}
	e.manifests = manifests
	e.write = e.write || len(tags) > 0
	return nil
}

func (s *Store) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	return s.changeAlone(repo, func(e *edit) error {
		m, err := e.manifests.GetManifest(ctx, repo, d)
		if err != nil {
			return e.unknown(err)
		}
		if err := e.manifests.DeleteManifest(ctx, repo, d); err != nil {
			return err
		}
		blob := e.content[d].is(asBlob)
		e.drop(d, asManifest)
		e.order = slices.DeleteFunc(slices.Clone(e.order), func(other digest.Digest) bool { return other == d })
		if m.Subject != "" {
			e.subjects[m.Subject] = true
		}
		e.write = true
		if _, used := e.content[d]; !blob && !used {
			e.after = append(e.after, func() error { return e.remove(d) })
		}
		e.ends = true
		return nil
	})
}

func (s *Store) DeleteTag(ctx context.Context, repo, tag string, allow func(tag string, current digest.Digest) error) error {
	return s.change(repo, func(e *edit) error {
		if err := e.manifests.DeleteTag(ctx, repo, tag, allow); err != nil {
			return e.unknown(err)
		}
		e.write = true
		return nil
	})
}

// unknown tells what is unknown: where there are blobs alone, the name is not.
func (e *edit) unknown(err error) error {
	if errors.Is(err, registry.ErrNameUnknown) && !e.isNew {
		return fmt.Errorf("%w", registry.ErrManifestUnknown)
	}
	return err
}

// writeTemp writes a file that is to get its name.
func (s *Store) writeTemp(data []byte) (name string, err error) {
	f, err := os.CreateTemp(s.path(uploadsDir), "*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return filepath.Clean(f.Name()), nil
}
