// SPDX-License-Identifier: Apache-2.0

// GC: deleting what nothing names any more.

package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// GCOptions are the choices of GC.
type GCOptions struct {
	// Grace is how old something must be for GC to touch it, and how long
	// data is condemned before it is deleted: one hour by default, and at
	// least half an hour. Who began to read a blob before it was deleted can
	// read on for that long.
	Grace time.Duration
}

// GCStats is what GC has done.
type GCStats struct {
	Blobs     int   // data objects that it has looked at
	Condemned int   // data objects to delete in a later run
	Deleted   int   // data objects deleted
	Bytes     int64 // and their bytes
	Links     int   // inverse links deleted, left behind by processes that stopped
	Uploads   int   // upload sessions ended
	Names     int   // repositories taken off the catalog, left behind likewise
}

// GC deletes the data of blobs that no repository has any more, and the
// sessions of uploads that were given up. Data is condemned in one run and
// deleted in another, Grace later: so run it now and then, as from cron. It may
// run while others push and pull, and beside another.
func (s *Store) GC(ctx context.Context, opts GCOptions) (GCStats, error) {
	if opts.Grace == 0 {
		opts.Grace = time.Hour
	}
	if opts.Grace < s.least {
		return GCStats{}, fmt.Errorf("bucket: a grace of %v is too short: what is being pushed would be deleted; the least is %v", opts.Grace, s.least)
	}
	g := &collection{store: s, before: time.Now().Add(-opts.Grace)}
	err := g.sweepUploads(ctx, time.Now().Add(-max(opts.Grace, s.opts.UploadIdle)))
	if err == nil {
		err = g.sweepBlobs(ctx)
	}
	if err == nil {
		err = g.sweepNames(ctx)
	}
	return g.stats, err
}

// collection is one run of GC.
type collection struct {
	store  *Store
	before time.Time // what was written before is old
	stats  GCStats
}

// candidate is a data object.
type candidate struct {
	size      int64
	old       bool
	condemned bool
	overdue   bool // condemned long ago
	linked    bool
}

// sweepBlobs walks all that is in blobs/ once. Of a blob come, in the order of
// the keys, what condemns data, then data, then the inverse links.
func (g *collection) sweepBlobs(ctx context.Context) error {
	var (
		d    digest.Digest // the blob
		data map[string]*candidate
	)
	for o, err := range g.store.list(ctx, blobsPrefix, "", nextPage) {
		if err != nil {
			return err
		}
		of, kind, name, ok := parseBlobKey(o.name)
		if !ok {
			continue
		}
		if of != d {
			if err := g.judge(ctx, d, data); err != nil {
				return err
			}
			d, data = of, make(map[string]*candidate)
		}
		switch kind {
		case "condemned", "data":
			c := data[name]
			if c == nil {
				c = new(candidate)
				data[name] = c
			}
			if kind == "condemned" {
				c.condemned, c.overdue = true, o.time.Before(g.before)
				continue
			}
			c.size, c.old = o.size, o.time.Before(g.before)
			g.stats.Blobs++
		case "links":
			l, repo, ok := parseInverse(name)
			if c := data[l.Data]; !ok || c != nil && c.linked {
				continue
			}
			live, err := g.lives(ctx, d, l, repo, o.time)
			if err != nil {
				return err
			}
			if c := data[l.Data]; c != nil {
				c.linked = live
			}
		}
	}
	return g.judge(ctx, d, data)
}

// parseBlobKey is the inverse of dataKey and the like, after blobsPrefix.
func parseBlobKey(key string) (d digest.Digest, kind, name string, ok bool) {
	alg, rest, _ := strings.Cut(key, "/")
	hex, rest, _ := strings.Cut(rest, "/")
	kind, name, ok = strings.Cut(rest, "/")
	return digest.Digest(alg + ":" + hex), kind, name, ok
}

// lives reports whether the link that an inverse tells of is there, or may be
// about to be written. Otherwise it deletes the inverse.
func (g *collection) lives(ctx context.Context, d digest.Digest, inverse link, repo string, written time.Time) (bool, error) {
	l, err := g.store.link(ctx, repo, d)
	if err != nil && err != errMissing {
		return false, err
	}
	if err == nil && l.ID == inverse.ID || !written.Before(g.before) {
		return true, nil
	}
	if err := g.store.remove(ctx, inverseKey(d, inverse, repo)); err != nil && err != errMissing {
		return false, err
	}
	g.stats.Links++
	return false, nil
}

// judge condemns the data of a blob that no link names, and deletes what was
// condemned long ago.
//
// What condemns data is never taken back while the data is there, though a link
// may name it: of two runs at once, one could take it back while the other is
// about to delete, and who publishes would look just then. Such data stays
// while the link does; who pushes the blob next writes it anew.
func (g *collection) judge(ctx context.Context, d digest.Digest, data map[string]*candidate) error {
	s := g.store
	for name, c := range data {
		switch {
		case c.linked || !c.old:
		case !c.condemned:
			if err := s.put(ctx, condemnedKey(d, name), nil); err != nil {
				return err
			}
			g.stats.Condemned++
		case c.overdue:
			// The links were listed after the data was condemned: who wrote
			// one since has found that out.
			if err := s.remove(ctx, dataKey(d, name)); err != nil && err != errMissing {
				return err
			}
			if err := s.remove(ctx, condemnedKey(d, name)); err != nil && err != errMissing {
				return err
			}
			g.stats.Deleted++
			g.stats.Bytes += c.size
		}
	}
	return nil
}

// sweepUploads ends the sessions that were not used since idle, and deletes
// parts that were left behind.
func (g *collection) sweepUploads(ctx context.Context, idle time.Time) error {
	var (
		id    string
		parts []part
		used  time.Time // the latest
	)
	sweep := func() error {
		if id == "" || !used.Before(idle) {
			return nil
		}
		return g.sweepUpload(ctx, id, parts)
	}
	for o, err := range g.store.list(ctx, uploadsPrefix, "", nextPage) {
		if err != nil {
			return err
		}
		of, name, _ := strings.Cut(o.name, "/")
		if of != id {
			if err := sweep(); err != nil {
				return err
			}
			id, parts, used = of, nil, time.Time{}
		}
		if o.time.After(used) {
			used = o.time
		}
		if name, ok := strings.CutPrefix(name, "part-"); ok {
			parts = append(parts, part{Name: name})
		}
	}
	return sweep()
}

// sweepUpload ends a session, unless someone uses it just now, and deletes its
// objects.
func (g *collection) sweepUpload(ctx context.Context, id string, parts []part) error {
	st, err := g.store.state(ctx, id)
	if err != nil && err != errMissing {
		return err
	}
	if err == nil && !st.Ended {
		switch _, err := g.store.end(ctx, id, st); {
		case errors.Is(err, registry.ErrUploadBusy) || errors.Is(err, registry.ErrBlobUploadUnknown):
			return nil
		case err != nil:
			return err
		}
		g.stats.Uploads++
	}
	g.store.clear(ctx, id, parts)
	return nil
}

// sweepNames takes repositories off the catalog that hold nothing.
func (g *collection) sweepNames(ctx context.Context) error {
	for o, err := range g.store.list(ctx, namesPrefix, "", nextPage) {
		if err != nil {
			return err
		}
		if !o.time.Before(g.before) {
			continue
		}
		repo := unflatten.Replace(o.name)
		holds, err := g.store.holds(ctx, repo)
		if err == nil && !holds {
			g.stats.Names++
			err = g.store.leave(ctx, repo)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
