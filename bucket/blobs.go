// SPDX-License-Identifier: Apache-2.0

// Blobs: links in repositories, and the data that they name.

package bucket

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// link makes data readable as a blob of a repository.
type link struct {
	ID   string `json:"id"`   // unique
	Data string `json:"data"` // the name of the data
	Size int64  `json:"size"`

	time time.Time // when the object was written
}

func (l link) info(d digest.Digest) registry.Info {
	return registry.Info{Digest: d, Size: l.Size, Time: l.time}
}

// readLink returns a repository's link to a blob.
// Errors: errNotFound.
func (s *Store) readLink(ctx context.Context, repo string, d digest.Digest) (link, error) {
	c, err := s.get(ctx, linkKey(repo, d))
	if err != nil {
		return link{}, err
	}
	l := link{time: c.time}
	if err := json.Unmarshal(c.data, &l); err != nil {
		return link{}, fmt.Errorf("bucket: malformed link: %w", err)
	}
	return l, nil
}

// blobLink is readLink with the errors of a registry.Store.
// Errors: ErrNameUnknown, ErrBlobUnknown.
func (s *Store) blobLink(ctx context.Context, repo string, d digest.Digest) (link, error) {
	l, err := s.readLink(ctx, repo, d)
	if err == errNotFound {
		err = s.unknownError(ctx, repo, registry.ErrBlobUnknown)
	}
	return l, err
}

// StatBlob returns the size and time of a blob. It costs one call.
func (s *Store) StatBlob(ctx context.Context, repo string, d digest.Digest) (registry.Info, error) {
	l, err := s.blobLink(ctx, repo, d)
	if err != nil {
		return registry.Info{}, err
	}
	return l.info(d), nil
}

// OpenBlob returns the content of a blob. It costs no more than StatBlob: the
// content is requested when it is read.
func (s *Store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	l, err := s.blobLink(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	return s.newReader(ctx, dataKey(d, l.Data), l.Size), nil
}

// Blobs yields the blobs of a repository after a digest. It reads each link, since
// a list of links lacks the sizes of the blobs.
func (s *Store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	blobs := listDigests(ctx, s, linksPrefix(repo), after, func(ctx context.Context, d digest.Digest) (registry.Info, error) {
		l, err := s.readLink(ctx, repo, d)
		return l.info(d), err
	})
	return orNameUnknown(ctx, s, repo, blobs)
}

// MountBlob links a blob of another repository.
func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	l, err := s.blobLink(ctx, from, d)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // half a mount is useless
	err = s.publish(ctx, repo, d, l.Size, l.Data, func(key string) error {
		return s.copy(ctx, key, dataKey(d, l.Data), l.Size)
	})
	if err != errNotFound {
		return err
	}
	// The data was deleted meanwhile, and our link names nothing.
	if current, err := s.readLink(ctx, repo, d); err == nil && current.Data == l.Data {
		if err := s.unlink(ctx, repo, d, current); err != nil {
			return err
		}
	}
	return registry.ErrBlobUnknown
}

// FindBlob yields the repositories that have a blob.
func (s *Store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		seen := make(map[string]bool)
		for o, err := range s.list(ctx, inversePrefix(d), "", firstPageSize) {
			if err != nil {
				yield("", err)
				return
			}
			_, repo, ok := parseInverseKey(o.name)
			if !ok || seen[repo] {
				continue
			}
			seen[repo] = true
			switch _, err := s.readLink(ctx, repo, d); {
			case err == errNotFound: // it was deleted, or is about to be written
			case err != nil:
				yield("", err)
				return
			case !yield(repo, nil):
				return
			}
		}
	}
}

// DeleteBlob makes a blob unreadable through repo.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	l, err := s.blobLink(ctx, repo, d)
	if err != nil {
		return err
	}
	err = s.unlink(context.WithoutCancel(ctx), repo, d, l)
	if err == errNotFound {
		return registry.ErrBlobUnknown // another caller was faster
	}
	return err
}

// unlink deletes a link.
// Errors: errNotFound.
func (s *Store) unlink(ctx context.Context, repo string, d digest.Digest, l link) error {
	if err := s.remove(ctx, linkKey(repo, d)); err != nil {
		return err
	}
	s.tryRemove(ctx, inverseKey(d, l, repo))
	return s.removeRepo(ctx, repo)
}

// publish links a blob in repo: to the given data or, if data is "", to that of
// another repository or to new data. It calls write to write new data at a key
// that it chooses.
//
// GC condemns data and then looks for links to it. publish writes the link and
// then checks whether the data is condemned, or deleted already. So at least one
// of the two sees the other: data that publish finds usable has a link that GC
// will find, and data that is condemned is written again, under another name. Data
// that publish has just written is too young to be condemned.
func (s *Store) publish(ctx context.Context, repo string, d digest.Digest, size int64, data string, write func(key string) error) error {
	if data == "" {
		var err error
		if data, err = s.findData(ctx, d); err != nil {
			return err
		}
	}
	var written time.Time // when we began to write the data, if we did
	for range maxAttempts {
		if data == "" {
			data, written = newUUID(), time.Now()
			if err := write(dataKey(d, data)); err != nil {
				return err
			}
		}
		began := time.Now()
		if err := s.writeLink(ctx, repo, d, link{ID: newUUID(), Data: data, Size: size}); err != nil {
			return err
		}
		if time.Since(began) >= s.trustedFor {
			continue // GC may have deleted the inverse, because the link did not follow it in time
		}
		if time.Since(written) < s.trustedFor {
			return nil
		}
		if ok, err := s.isUsable(ctx, d, data); ok || err != nil {
			return err
		}
		data = ""
	}
	return registry.ErrUnavailable
}

// writeLink writes a link: its inverse first, so that GC can't miss the link, and
// the name of the repository last: see addRepo.
func (s *Store) writeLink(ctx context.Context, repo string, d digest.Digest, l link) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := s.put(ctx, inverseKey(d, l, repo), nil); err != nil {
		return err
	}
	if err := s.put(ctx, linkKey(repo, d), b); err != nil {
		return err
	}
	return s.addRepo(ctx, repo)
}

// isUsable reports whether data exists and is not condemned. The order of the
// calls matters: GC deletes the data first, and then the mark that condemns it.
func (s *Store) isUsable(ctx context.Context, d digest.Digest, data string) (bool, error) {
	condemned, err := s.exists(ctx, condemnedKey(d, data))
	if condemned || err != nil {
		return false, err
	}
	return s.exists(ctx, dataKey(d, data))
}

// findData returns data that a repository's link to the blob names, or "". It
// gives up after a few links, since it does no harm to store a blob twice.
func (s *Store) findData(ctx context.Context, d digest.Digest) (data string, err error) {
	const maxLinks = 4
	tried := 0
	for o, err := range s.list(ctx, inversePrefix(d), "", maxLinks) {
		if err != nil {
			return "", err
		}
		inverse, repo, _ := parseInverseKey(o.name)
		l, err := s.readLink(ctx, repo, d)
		if err != nil && err != errNotFound {
			return "", err
		}
		if err == nil && l.Data == inverse.Data {
			return l.Data, nil
		}
		if tried++; tried == maxLinks {
			break
		}
	}
	return "", nil
}
