// SPDX-License-Identifier: Apache-2.0

// Collect: a collection of all repositories.

package retention

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// Options are the options of Collect.
type Options struct {
	// Grace is how long content is kept after it was used, even if nothing leads
	// to it: one hour by default, and 0 if it is negative. It must be longer than
	// clients need from finding content to pushing the manifest that names it. A
	// bucket requires half an hour.
	Grace time.Duration

	// Rules say which tags, and which manifests that no tag leads to, are kept.
	Rules []Rule

	// KeepUntagged keeps all manifests that no rule matches.
	KeepUntagged bool

	// Pulled returns when a manifest was last pulled, the zero time if that is
	// not known: for Keep.PulledWithin.
	Pulled func(repo string, d digest.Digest) time.Time

	// DryRun deletes nothing.
	DryRun bool

	// OnDecision, unless nil, is called for each tag, manifest and blob.
	OnDecision func(Decision)
}

// Decision says whether a tag, a manifest or a blob is kept. Unless DryRun is set, it
// has been deleted if not.
type Decision struct {
	Repository string
	Tag        string        // "" for a manifest or a blob
	Digest     digest.Digest // of the manifest that a tag points at, of a manifest, or of a blob
	Blob       bool
	Size       int64 // in bytes, 0 for a tag
	Keep       bool

	// Reason says why: "rule" with the name of the rule, or one of the constants.
	Reason string
}

// Reasons of decisions that no rule has made.
const (
	ReasonNoRule  = "no rule matches"             // a tag, or a manifest with KeepUntagged, is kept
	ReasonLive    = "a tag leads to it"           // kept
	ReasonYoung   = "used within the grace"       // kept
	ReasonUsed    = "used meanwhile"              // kept, although it was about to be deleted
	ReasonNamed   = "a kept manifest leads to it" // kept
	ReasonGarbage = "nothing leads to it"         // deleted
)

// Report counts the results of a collection. With DryRun, it counts what would have
// been deleted.
type Report struct {
	Repositories int   // that were examined
	Tags         int   // deleted
	Manifests    int   // deleted
	Blobs        int   // deleted from a repository, and those that no repository had
	Bytes        int64 // in the deleted manifests and blobs; blobs in several repositories count in each
	Uploads      int   // ended

	// Young is the number of manifests and blobs that were kept only because they
	// were used within the grace period.
	Young int
}

// Collect removes garbage, and what rules say, from all repositories of a store:
// see the package documentation. It returns the report of what it has done even if it
// returns an error.
//
// Errors: registry.ErrUnsupported if the store has no Collector, those of invalid
// rules, and those of the store, joined.
func Collect(ctx context.Context, s registry.Store, o Options) (Report, error) {
	return collect(ctx, s, o, slice)
}

// collect is Collect with the time that it works between pauses.
func collect(ctx context.Context, s registry.Store, o Options, slice time.Duration) (Report, error) {
	c := &collection{store: s, Options: o, slice: slice, named: make(map[uint64]struct{}), seed: maphash.MakeSeed()}
	for i := range o.Rules {
		r := &o.Rules[i]
		if err := r.Check(); err != nil {
			return c.report, fmt.Errorf("retention: rule %d (%s): %w", i, r.Name, err)
		}
		if r.Name == "" {
			return c.report, fmt.Errorf("retention: rule %d has no name", i)
		}
	}
	switch {
	case o.Grace == 0:
		c.Grace = time.Hour
	case o.Grace < 0:
		c.Grace = 0
	}
	var err error
	if c.now, err = s.Now(ctx); err != nil {
		return c.report, err
	}
	c.since = c.now.Add(-c.Grace)
	var errs []error
	for repo, err := range s.Repositories(ctx, "") {
		if err != nil {
			return c.report, errors.Join(append(errs, err)...)
		}
		c.report.Repositories++
		if err := c.collectRepo(ctx, repo); err != nil && !errors.Is(err, registry.ErrNameUnknown) {
			errs = append(errs, fmt.Errorf("repository %s: %w", repo, err))
		}
		if ctx.Err() != nil {
			return c.report, errors.Join(append(errs, ctx.Err())...)
		}
	}
	if !o.DryRun {
		rest, err := s.CollectRest(ctx, c.since)
		c.report.Blobs += rest.Blobs
		c.report.Bytes += rest.Bytes
		c.report.Uploads += rest.Uploads
		errs = append(errs, err)
	}
	return c.report, errors.Join(errs...)
}

// collection is one run of Collect.
type collection struct {
	Options
	store      registry.Store
	now, since time.Time
	report     Report
	slice      time.Duration
	pauseAt    time.Time

	// The hashes of the blobs that manifests of a repository name, by maphash.Bytes and String:
	// there are so many that their digests would be most of the memory of a collection. If
	// two had the same, garbage would be kept until the next collection.
	named map[uint64]struct{}
	seed  maphash.Seed
}

// slice is how long a collection works before it pauses, for rest. Otherwise, it would
// delay requests: a goroutine that computes keeps a processor for 10 ms, in which Go may
// not look for requests that have come. If a push waits for the collection, it works for
// longer; and after a pause that took longer than rest, since processors are busy, in
// proportion, so that clients do not make garbage faster than it is collected. maxSlices are
// the 10 ms that Go gives any goroutine.
const (
	slice       = 250 * time.Microsecond
	urgentSlice = time.Millisecond
	rest        = time.Millisecond
	maxSlices   = 40
)

// pause is called between short steps, without a lock.
func (c *collection) pause() {
	now := time.Now()
	if now.Before(c.pauseAt) {
		return
	}
	time.Sleep(rest)
	resumed := time.Now()
	work := c.slice * min(resumed.Sub(now), maxSlices*rest) / rest
	c.pauseAt = resumed.Add(work)
}

func (c *collection) decided(d Decision) {
	if c.OnDecision != nil {
		c.OnDecision(d)
	}
}
