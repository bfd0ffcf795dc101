// SPDX-License-Identifier: Apache-2.0

// Publishing data as a blob of a repository.

package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// publication links a blob in a repository.
type publication struct {
	store  *Store
	repo   string
	digest digest.Digest
	size   int64
	crc    *uint32
	data   string                 // the data to link; "" for that of another repository, or new data
	write  func(key string) error // writes new data
	small  bool                   // write costs no more than looking for data
	end    func() error           // ends the upload session, if any
	id     string                 // of the write of the link; end may set it
	linked value                  // of the link that an attempt has written
}

// publish links the blob.
//
// GC condemns data and then looks for links to it. publish writes the link and
// then checks whether the data is condemned, or deleted already. So at least one
// of the two sees the other: data that publish finds usable has a link that GC
// will find, and data that is condemned is written again, under another name. Data
// that publish has just written is too young to be condemned.
func (p *publication) publish(ctx context.Context) error {
	if p.end == nil {
		p.end = func() error { return nil }
	}
	if !p.small {
		err := atOnce(p.end, func() (err error) {
			if p.data == "" {
				p.data, err = p.store.findData(ctx, p.digest)
			}
			return err
		})
		if err != nil {
			return err
		}
		p.end = func() error { return nil }
	}
	for attempt := range maxAttempts {
		backOff(attempt)
		if ok, err := p.try(ctx); ok || err != nil {
			return err
		}
	}
	return registry.ErrUnavailable
}

// try makes one attempt. It reports false if the data turned out to be condemned,
// or if it took so long that GC may have removed the inverse of the link.
func (p *publication) try(ctx context.Context) (bool, error) {
	s, began := p.store, time.Now()
	written := p.data == ""
	l := link{ID: newID(), Data: p.data, Size: p.size, CRC: p.crc}
	if written {
		l.Data = newID()
	}
	var old link
	err := atOnce(
		p.end,
		func() error { return s.addRepo(ctx, p.repo) },
		func() error { return s.put(ctx, inverseKey(p.digest, l, p.repo), nil) },
		func() (err error) {
			old, err = p.readLink(ctx)
			return err
		},
		func() error {
			if !written {
				return nil
			}
			return p.write(dataKey(p.digest, l.Data))
		},
	)
	if err != nil {
		return false, err
	}
	p.end = func() error { return nil }
	if written {
		p.data = l.Data // if this attempt fails, the next need not write it again
	}
	if elapsed(began) >= s.trustedFor {
		return false, nil
	}
	if ok, err := p.writeLink(ctx, old, l); !ok || err != nil {
		return !ok, err
	}
	if elapsed(began) >= s.trustedFor {
		return false, nil
	}
	usable := true
	err = atOnce(
		func() error { return s.confirmRepo(ctx, p.repo) },
		func() (err error) {
			if !written {
				usable, err = s.isUsable(ctx, p.digest, l.Data)
			}
			return err
		},
	)
	if !usable {
		p.data = "" // write it again
	}
	return usable, err
}

// readLink returns the link to be replaced. One that can't be read is replaced too.
func (p *publication) readLink(ctx context.Context) (link, error) {
	v, err := p.store.read(ctx, linkKey(p.repo, p.digest))
	if err == errMalformed {
		return link{value: v}, nil
	}
	if err != nil {
		return link{}, err
	}
	l, _ := parseLink(v)
	return l, nil
}

// writeLink replaces the old link, whoever else replaces it at the same time. It
// reports false if the push took effect before, and its link may have been replaced or
// deleted since.
func (p *publication) writeLink(ctx context.Context, old, l link) (bool, error) {
	s := p.store
	b, err := json.Marshal(l)
	if err != nil {
		return false, err
	}
	id := p.id
	if id == "" || p.linked.id != "" { // the link is ours, and names data that can't be used
		id = newID()
	}
	for attempt := range maxAttempts {
		backOff(attempt)
		if p.linked.id != "" && p.linked.id != old.value.id {
			return false, nil
		}
		if old.value.id == id || slices.Contains(old.value.before, id) {
			return false, nil // another process has published the session
		}
		now, ok, err := s.replace(ctx, linkKey(p.repo, p.digest), old.value, id, b)
		if err != nil {
			return false, err
		}
		if ok {
			if old.exists() {
				s.later(func() { s.remove(ctx, inverseKey(p.digest, old, p.repo)) })
			}
			p.linked = now
			return true, nil
		}
		if old, err = p.readLink(ctx); err != nil {
			return false, err
		}
	}
	return false, registry.ErrUnavailable
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

// condemn prevents that data which is not the blob's gets more links.
func (s *Store) condemn(ctx context.Context, d digest.Digest, data string) {
	s.put(context.WithoutCancel(ctx), condemnedKey(d, data), nil)
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
		if err != nil && !errors.Is(err, errCorrupt) {
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
