// SPDX-License-Identifier: Apache-2.0

// Blobs: links in repositories, and the data that they name.

package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// link makes data readable as a blob of a repository: the data of a register.
type link struct {
	ID   string `json:"id"`   // unique
	Data string `json:"data"` // the name of the data
	Size int64  `json:"size"`
	// CRC is the CRC-32C of the data, nil if it is not known.
	CRC *uint32 `json:"crc,omitempty"`

	value value
}

func (l link) exists() bool { return l.Data != "" }

func (l link) info(d digest.Digest) registry.Info {
	return registry.Info{Digest: d, Size: l.Size, Time: l.value.object.Time}
}

// readLink returns a repository's link to a blob.
func (s *Store) readLink(ctx context.Context, repo string, d digest.Digest) (link, error) {
	v, err := s.read(ctx, linkKey(repo, d))
	if err != nil {
		return link{value: v}, s.corrupt(err, repo, d)
	}
	l, err := parseLink(v)
	return l, s.corrupt(err, repo, d)
}

// parseLink returns the link of a register's value.
func parseLink(v value) (link, error) {
	l := link{value: v}
	if !v.exists() {
		return l, nil
	}
	if json.Unmarshal(v.data, &l) != nil || !validID(l.ID) || !validID(l.Data) || l.Size < 0 {
		return link{value: v}, errMalformed
	}
	return l, nil
}

// blobLink is readLink with the errors of a registry.Store.
// Errors: ErrNameUnknown, ErrBlobUnknown.
func (s *Store) blobLink(ctx context.Context, repo string, d digest.Digest) (link, error) {
	l, err := s.readLink(ctx, repo, d)
	if err == nil && !l.exists() {
		err = s.unknownError(ctx, repo, registry.ErrBlobUnknown)
	}
	return l, err
}

// OpenBlob returns the content of a blob. It costs one call: the content is
// requested when it is read.
func (s *Store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	l, err := s.blobLink(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	r := s.newReader(ctx, dataKey(d, l.Data), l.Size)
	r.verify(d, l.CRC, func() { s.dropDamaged(ctx, repo, d, l) })
	return r, nil
}

// dropDamaged removes a link to data that was found missing or damaged, so that clients
// learn from a HEAD that they must push the blob again. It reads the data once more,
// because it may have been damaged on its way.
func (s *Store) dropDamaged(ctx context.Context, repo string, d digest.Digest, l link) {
	ctx = context.WithoutCancel(ctx)
	s.condemn(ctx, d, l.Data)
	s.later(func() {
		if err := s.verifyData(ctx, d, l.Data, l.Size); err == errDamaged || err == errNotFound {
			s.unlink(ctx, repo, d, l)
		}
	})
}

// Blobs yields the blobs of a repository after a digest. It reads each link, since
// a list of links lacks the sizes of the blobs.
func (s *Store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[registry.Info, error] {
	blobs := listDigests(ctx, s, linksPrefix(repo), after, func(ctx context.Context, d digest.Digest) (registry.Info, error) {
		l, err := s.readLink(ctx, repo, d)
		if err == nil && !l.exists() {
			err = errNotFound
		}
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
	p := publication{store: s, repo: repo, digest: d, size: l.Size, crc: l.CRC, data: l.Data, write: func(key string) error {
		// The data is condemned, perhaps because it is damaged.
		if err := s.verifyData(ctx, d, l.Data, l.Size); err != nil {
			return err
		}
		return s.copy(ctx, key, dataKey(d, l.Data), l.Size)
	}}
	if err := p.publish(ctx); err != errNotFound && err != errDamaged {
		return err
	}
	// The data was deleted meanwhile or is damaged, and our link names it.
	if current, err := s.readLink(ctx, repo, d); err == nil && current.Data == l.Data {
		if _, err := s.unlink(ctx, repo, d, current); err != nil {
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
			switch l, err := s.readLink(ctx, repo, d); {
			case errors.Is(err, errCorrupt): // another repository may have it
			case err != nil:
				yield("", err)
				return
			case !l.exists(): // it was deleted, or is about to be written
			case !yield(repo, nil):
				return
			}
		}
	}
}

// DeleteBlob makes a blob unreadable through repo.
func (s *Store) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	ctx = context.WithoutCancel(ctx) // all or nothing
	for attempt := range maxAttempts {
		backOff(attempt)
		l, err := s.readLink(ctx, repo, d)
		if err != nil && !errors.Is(err, errCorrupt) {
			return err
		}
		if err == nil && !l.exists() {
			if err := s.removeRepo(ctx, repo); err != nil { // a delete was interrupted
				return err
			}
			return s.unknownError(ctx, repo, registry.ErrBlobUnknown)
		}
		if ok, err := s.unlink(ctx, repo, d, l); ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// unlink deletes a link, unless another writer has replaced it.
func (s *Store) unlink(ctx context.Context, repo string, d digest.Digest, l link) (bool, error) {
	_, ok, err := s.replace(ctx, linkKey(repo, d), l.value, newID(), nil)
	if !ok || err != nil {
		return false, err
	}
	if l.exists() {
		s.later(func() { s.remove(ctx, inverseKey(d, l, repo)) })
	}
	return true, s.removeRepo(ctx, repo)
}
