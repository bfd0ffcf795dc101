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
	ID   string `json:"id"`   // its own, of no other
	Data string `json:"data"` // what it names
	Size int64  `json:"size"`
}

// link returns the link of a repository to a blob.
// Errors: errMissing.
func (s *Store) link(ctx context.Context, repo string, d digest.Digest) (l link, err error) {
	b, _, err := s.get(ctx, linkKey(repo, d))
	if err != nil {
		return link{}, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return link{}, fmt.Errorf("bucket: malformed link: %w", err)
	}
	return l, nil
}

// known is link, with a registry's errors.
func (s *Store) known(ctx context.Context, repo string, d digest.Digest) (link, error) {
	l, err := s.link(ctx, repo, d)
	if err == errMissing {
		err = s.unknown(ctx, repo, registry.ErrBlobUnknown)
	}
	return l, err
}

// OpenBlob returns the content of a blob. It asks for bytes when they are read,
// so to look at the size costs no more than to look up the blob.
func (s *Store) OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error) {
	l, err := s.known(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	return s.newReader(ctx, dataKey(d, l.Data), l.Size), nil
}

// MountBlob links a blob of another repository.
func (s *Store) MountBlob(ctx context.Context, repo, from string, d digest.Digest) error {
	l, err := s.known(ctx, from, d)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // to be done half is no use to anyone
	err = s.publish(ctx, repo, d, l.Size, l.Data, func(key string) error {
		return s.copy(ctx, key, dataKey(d, l.Data), l.Size)
	})
	if err != errMissing {
		return err
	}
	// It was deleted meanwhile, and our link names nothing.
	if now, err := s.link(ctx, repo, d); err == nil && now.Data == l.Data {
		if err := s.unlink(ctx, repo, d, now); err != nil {
			return err
		}
	}
	return registry.ErrBlobUnknown
}

// FindBlob yields the repositories that have a blob.
func (s *Store) FindBlob(ctx context.Context, d digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		seen := make(map[string]bool)
		for o, err := range s.list(ctx, inversePrefix(d), "", firstPage) {
			if err != nil {
				yield("", err)
				return
			}
			_, repo, ok := parseInverse(o.name)
			if !ok || seen[repo] {
				continue
			}
			seen[repo] = true
			switch _, err := s.link(ctx, repo, d); {
			case err == errMissing: // it is gone, or not there yet
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
	l, err := s.known(ctx, repo, d)
	if err != nil {
		return err
	}
	err = s.unlink(context.WithoutCancel(ctx), repo, d, l)
	if err == errMissing {
		return registry.ErrBlobUnknown // another was faster
	}
	return err
}

// unlink deletes a link.
// Errors: errMissing.
func (s *Store) unlink(ctx context.Context, repo string, d digest.Digest, l link) error {
	if err := s.remove(ctx, linkKey(repo, d)); err != nil {
		return err
	}
	s.discard(ctx, inverseKey(d, l, repo))
	return s.leave(ctx, repo)
}

// publish links a blob in repo: to the data that is given, or, if data is "", to
// what another repository has, or to new data, which write writes at a key.
//
// GC condemns data and then looks for links to it. Here the link is written,
// and then we look whether the data is condemned, or gone already. So one of
// the two sees the other: data that we find in good standing has a link that
// GC will find, and what is condemned we write anew, under another name. Data
// that we have just written is too young to be condemned.
func (s *Store) publish(ctx context.Context, repo string, d digest.Digest, size int64, data string, write func(key string) error) error {
	if data == "" {
		var err error
		if data, err = s.findData(ctx, d); err != nil {
			return err
		}
	}
	var written time.Time // data, by us; before it began
	for range attempts {
		if data == "" {
			data, written = newUUID(), time.Now()
			if err := write(dataKey(d, data)); err != nil {
				return err
			}
		}
		began := time.Now()
		if err := s.writeLink(ctx, repo, d, link{newUUID(), data, size}); err != nil {
			return err
		}
		if time.Since(began) >= s.trust {
			continue // GC may have taken the inverse for one that was left behind
		}
		if time.Since(written) < s.trust {
			return nil
		}
		if ok, err := s.standing(ctx, d, data); ok || err != nil {
			return err
		}
		data = ""
	}
	return registry.ErrUnavailable
}

// writeLink writes a link, its inverse first, lest GC miss it, and the name of
// the repository last: see enter.
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
	return s.enter(ctx, repo)
}

// standing reports whether data is there and not condemned. In this order: what
// condemns it is deleted after the data.
func (s *Store) standing(ctx context.Context, d digest.Digest, data string) (bool, error) {
	condemned, err := s.exists(ctx, condemnedKey(d, data))
	if condemned || err != nil {
		return false, err
	}
	return s.exists(ctx, dataKey(d, data))
}

// findData returns the data that some repository has a blob in, or "". It looks
// at few: to store a blob twice is no harm.
func (s *Store) findData(ctx context.Context, d digest.Digest) (data string, err error) {
	const few = 4
	tried := 0
	for o, err := range s.list(ctx, inversePrefix(d), "", few) {
		if err != nil {
			return "", err
		}
		inverse, repo, _ := parseInverse(o.name)
		l, err := s.link(ctx, repo, d)
		if err != nil && err != errMissing {
			return "", err
		}
		if err == nil && l.Data == inverse.Data {
			return l.Data, nil
		}
		if tried++; tried == few {
			break
		}
	}
	return "", nil
}
