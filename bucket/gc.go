// SPDX-License-Identifier: Apache-2.0

// GC, which deletes data that no repository has anymore.

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

// GCOptions are the options of GC.
type GCOptions struct {
	// Grace is the minimum age of objects that GC touches, and the minimum
	// time between condemning data and deleting it: one hour by default, and at
	// least half an hour. A client that has begun to read a blob before it was
	// deleted can continue to read for that long.
	Grace time.Duration
}

// GCStats counts the results of a run of GC.
type GCStats struct {
	Blobs     int   // data objects examined
	Condemned int   // data objects that a later run will delete
	Deleted   int   // data objects deleted
	Bytes     int64 // in the data objects deleted
	Links     int   // inverse links deleted that stopped processes had left behind
	Uploads   int   // upload sessions ended, and multipart uploads aborted
	Names     int   // repositories removed from the catalog, likewise left behind
	Entries   int   // entries of tags and referrers deleted, likewise left behind
	Marks     int   // marks deleted that say that something was deleted
}

// GC deletes the data of blobs that no repository has anymore, abandoned upload
// sessions, and what processes have left behind that stopped in the middle. It
// condemns data in one run and deletes it in another, at least Grace later, so run
// it regularly, for example from cron. It may run while clients push and pull, and
// concurrently with another GC. All times are the bucket's.
func (s *Store) GC(ctx context.Context, opts GCOptions) (GCStats, error) {
	if opts.Grace == 0 {
		opts.Grace = time.Hour
	}
	if opts.Grace < s.minGrace {
		return GCStats{}, fmt.Errorf("bucket: a grace period of %v is too short: pushes in progress would lose data; the minimum is %v", opts.Grace, s.minGrace)
	}
	s.mu.Lock()
	s.expire()
	s.unlock()
	now, err := s.measureClock(ctx)
	if err != nil {
		return GCStats{}, err
	}
	g := &collection{
		store:         s,
		cutoff:        now.Add(-opts.Grace),
		idleSince:     now.Add(-max(opts.Grace, s.opts.UploadIdle)),
		writersBefore: now.Add(-max(opts.Grace, s.longWrite)),
	}
	for _, sweep := range []func(context.Context) error{g.probe, g.sweepUploads, g.sweepBlobs, g.sweepRepos, g.sweepNames, g.sweepChecks} {
		if err := sweep(ctx); err != nil {
			return g.stats, err
		}
	}
	return g.stats, nil
}

// collection is one run of GC.
type collection struct {
	store     *Store
	cutoff    time.Time // objects written before are old
	idleSince time.Time // upload sessions used before have ended

	writersBefore time.Time // multipart uploads begun before have ended
	stats         GCStats

	conditionalDelete bool // the bucket has it
}

func (g *collection) isOld(written time.Time) bool { return written.Before(g.cutoff) }

// blobData is a data object of a blob.
type blobData struct {
	exists    bool
	size      int64
	old       bool
	condemned bool
	overdue   bool // condemned at least Grace ago
	linked    bool
}

// sweepBlobs walks all of blobs/ once. In the order of the keys, each blob has
// the marks that condemn data, then the data, then the inverse links.
func (g *collection) sweepBlobs(ctx context.Context) error {
	var (
		d    digest.Digest        // the current blob
		data map[string]*blobData // of that blob, by name
	)
	for o, err := range g.store.list(ctx, blobsPrefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		blob, kind, name, ok := parseBlobKey(o.name)
		if !ok {
			continue
		}
		if blob != d {
			if err := g.condemnOrDelete(ctx, d, data); err != nil {
				return err
			}
			d, data = blob, make(map[string]*blobData)
		}
		switch kind {
		case "condemned", "data":
			b := data[name]
			if b == nil {
				b = new(blobData)
				data[name] = b
			}
			if kind == "condemned" {
				b.condemned, b.overdue = true, g.isOld(o.time)
				continue
			}
			b.exists, b.size, b.old = true, o.size, g.isOld(o.time)
			g.stats.Blobs++
		case "links":
			l, repo, ok := parseInverseKey(name)
			if !ok {
				continue
			}
			live, err := g.isLive(ctx, d, l, repo, o.time)
			if err != nil {
				return err
			}
			if b := data[l.Data]; b != nil {
				b.linked = b.linked || live
			}
		}
	}
	return g.condemnOrDelete(ctx, d, data)
}

// isLive reports whether the link of an inverse exists, or may be about to be
// written. Otherwise it deletes the inverse.
func (g *collection) isLive(ctx context.Context, d digest.Digest, inverse link, repo string, written time.Time) (bool, error) {
	if !g.isOld(written) {
		return true, nil
	}
	l, err := g.store.readLink(ctx, repo, d)
	if errors.Is(err, errCorrupt) || err == nil && l.ID == inverse.ID {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if err := g.store.remove(ctx, inverseKey(d, inverse, repo)); err != nil {
		return false, err
	}
	g.stats.Links++
	return false, nil
}

// condemnOrDelete condemns the data of a blob that no link names, and deletes
// data that was condemned at least Grace ago.
//
// The mark that condemns data is never removed while the data exists, even if a
// link names the data: of two concurrent runs, one could remove the mark while the
// other is about to delete the data, and a push could check for the mark just
// then. Such data stays as long as the link does; the next push of the blob writes
// the data again.
func (g *collection) condemnOrDelete(ctx context.Context, d digest.Digest, data map[string]*blobData) error {
	s := g.store
	for name, b := range data {
		switch {
		case !b.exists:
			if b.overdue { // the run that has deleted the data was interrupted
				if err := s.remove(ctx, condemnedKey(d, name)); err != nil {
					return err
				}
				g.stats.Marks++
			}
		case b.linked || !b.old:
		case !b.condemned:
			if err := s.put(ctx, condemnedKey(d, name), nil); err != nil {
				return err
			}
			g.stats.Condemned++
		case b.overdue:
			// The links were listed after the data was condemned: a push that
			// has written a link since then has seen the mark.
			if err := s.remove(ctx, dataKey(d, name)); err != nil {
				return err
			}
			if err := s.remove(ctx, condemnedKey(d, name)); err != nil {
				return err
			}
			g.stats.Deleted++
			g.stats.Bytes += b.size
		}
	}
	return nil
}

// sweepUploads ends the sessions that were last used before idleSince, and deletes
// parts that were left behind.
func (g *collection) sweepUploads(ctx context.Context) error {
	for _, prefix := range []string{uploadsPrefix, blobsPrefix} {
		n, err := g.store.bucket.AbortWriters(ctx, g.store.opts.Prefix+prefix, g.writersBefore)
		if err != nil {
			return g.store.storeError(ctx, err)
		}
		g.stats.Uploads += n
	}
	var (
		key      string // of the current session
		parts    []part
		lastUsed time.Time
	)
	sweep := func() error {
		if key == "" || !lastUsed.Before(g.idleSince) {
			return nil
		}
		return g.sweepUpload(ctx, key, parts)
	}
	for o, err := range g.store.list(ctx, uploadsPrefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		end := strings.LastIndexByte(o.name, '/')
		if end < 0 {
			continue
		}
		session, name := o.name[:end], o.name[end+1:]
		if session != key {
			if err := sweep(); err != nil {
				return err
			}
			key, parts, lastUsed = session, nil, time.Time{}
		}
		if o.time.After(lastUsed) {
			lastUsed = o.time
		}
		if name, ok := strings.CutPrefix(name, "part-"); ok {
			parts = append(parts, part{Name: name})
		}
	}
	return sweep()
}

// sweepUpload ends a session, unless a request has used it meanwhile, and deletes
// its objects.
func (g *collection) sweepUpload(ctx context.Context, key string, parts []part) error {
	s := g.store
	st, err := s.readState(ctx, key)
	if err != nil {
		return err
	}
	if st.isOpen() {
		st, err = s.setPhase(ctx, key, st, cancelled, "")
		switch {
		case errors.Is(err, registry.ErrUploadBusy) || errors.Is(err, registry.ErrBlobUploadUnknown):
			return nil
		case err != nil:
			return err
		}
		g.stats.Uploads++
	}
	if err := each(parts, func(p part) error { return s.remove(ctx, partKey(key, p.Name)) }); err != nil {
		return err
	}
	if st.Chosen { // another session may have the same key
		return g.removeVersion(ctx, stateKey(key), st.value)
	}
	return s.remove(ctx, stateKey(key))
}

// sweepNames removes repositories without content from the catalog.
func (g *collection) sweepNames(ctx context.Context) error {
	for o, err := range g.store.list(ctx, namesPrefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		if !g.isOld(o.time) {
			continue
		}
		if isDeletedSize(o.size) {
			if err := g.removeDeleted(ctx, namesPrefix+o.name); err != nil {
				return err
			}
			continue
		}
		repo := unflattenName.Replace(o.name)
		hasContent, err := g.store.hasContent(ctx, repo)
		if err == nil && !hasContent {
			g.stats.Names++
			err = g.store.removeRepo(ctx, repo)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sweepChecks removes what processes have left that stopped during Check.
func (g *collection) sweepChecks(ctx context.Context) error {
	for o, err := range g.store.list(ctx, checkPrefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		if g.isOld(o.time) {
			if err := g.store.remove(ctx, checkPrefix+o.name); err != nil {
				return err
			}
		}
	}
	return nil
}
