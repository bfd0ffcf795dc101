// SPDX-License-Identifier: Apache-2.0

// Scrub, which verifies all content.

package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ScrubOptions are the options of Scrub. Its functions may be nil, and are called one
// at a time.
type ScrubOptions struct {
	// Repair condemns damaged data, so that the next push of the blob writes it
	// again, and points links to damaged or missing data at intact data of the same
	// blob. It deletes a link if there is none, so that clients push the blob again.
	// Damaged manifests stay: a push repairs them, and their tags with them.
	Repair bool

	// Problem is called with each problem.
	Problem func(Problem)

	// Progress is called with the number of bytes of blobs that were verified, and
	// of all such bytes. It costs another list of all blobs.
	Progress func(done, total int64)
}

// Problem is content that is damaged or missing.
type Problem struct {
	Repository string // empty for the data of blobs, which repositories share
	Key        string // of the object, without Options.Prefix
	Err        error
	Repair     string // how Scrub has repaired it, if it has
}

func (p Problem) String() string {
	if p.Repair != "" {
		return fmt.Sprintf("%s: %v; %s", p.Key, p.Err, p.Repair)
	}
	return fmt.Sprintf("%s: %v", p.Key, p.Err)
}

// ScrubStats counts what Scrub has verified.
type ScrubStats struct {
	Repositories       int
	Blobs              int   // data objects, which repositories share
	Bytes              int64 // of the blobs
	Manifests          int
	Tags               int
	Problems, Repaired int
}

// Errors of problems.
var (
	errUnreadable    = errors.New("the bucket can't deliver it")
	errMalformedLink = errors.New("the link can't be read")
	errMissingData   = errors.New("the data that the link names is missing")
	errDamagedData   = errors.New("the data that the link names is damaged")
	errLinkSize      = errors.New("the link has another size than its data")
	errNoInverse     = errors.New("the inverse of the link is missing, so garbage collection would delete the data")
	errBadManifest   = errors.New("the manifest can't be read")
	errSum           = errors.New("the manifest's bytes are not those that were pushed")
	errNoEntry       = errors.New("the manifest is missing among the referrers of its subject")
	errBadTag        = errors.New("the tag can't be read")
	errDeadTag       = errors.New("the manifest that the tag points at is missing")
	errWrongSubject  = errors.New("the referrer has another subject")
	errStalePack     = errors.New("a referrer has another descriptor")
	errNoName        = errors.New("the repository has content, but is missing in the catalog")
	errBadName       = errors.New("the repository's entry in the catalog can't be read")
)

// Scrub reads all content, and reports what is damaged or missing: data without the
// digest of its blob, links without data, manifests whose bytes have changed, tags
// without a manifest, and referrers and repositories that are missing in their lists.
// The registry may be in use: what clients change or delete meanwhile is no problem.
// The memory that Scrub takes does not depend on the number of objects, but on that of
// damaged ones.
//
// Scrub returns an error only if it can't go on; it returns none because of a problem.
// Without Repair, it writes nothing.
func (s *Store) Scrub(ctx context.Context, opts ScrubOptions) (ScrubStats, error) {
	c := &scrubber{store: s, opts: opts, damaged: make(map[string]bool)}
	if opts.Progress != nil {
		for o, err := range s.list(ctx, blobsPrefix, "", nextPageSize) {
			if err != nil {
				return c.stats, err
			}
			if _, kind, _, _ := parseBlobKey(o.name); kind == "data" {
				c.total += o.size
			}
		}
	}
	err := c.walk(ctx, blobsPrefix, func(o object) { c.add(func() error { return c.data(ctx, o) }) })
	if err == nil {
		err = c.repos(ctx)
	}
	return c.stats, err
}

// scrubber is a run of Scrub.
type scrubber struct {
	store *Store
	opts  ScrubOptions
	tasks []func() error

	mu      sync.Mutex // guards the fields below, and the calls of the functions in opts
	stats   ScrubStats
	total   int64
	damaged map[string]bool // the keys of data
}

// walk calls a function for each object with a prefix, and runs the tasks that the
// function adds.
func (c *scrubber) walk(ctx context.Context, prefix string, f func(object)) error {
	const maxTasks = 256
	for o, err := range c.store.list(ctx, prefix, "", nextPageSize) {
		if err != nil {
			return err
		}
		f(o)
		if len(c.tasks) >= maxTasks {
			if err := c.run(); err != nil {
				return err
			}
		}
	}
	return c.run()
}

func (c *scrubber) add(task func() error) { c.tasks = append(c.tasks, task) }

func (c *scrubber) run() error {
	err := atOnce(c.tasks...)
	c.tasks = c.tasks[:0]
	return err
}

// count changes the statistics.
func (c *scrubber) count(f func(*ScrubStats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

// report reports a problem.
func (c *scrubber) report(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Problems++
	if p.Repair != "" {
		c.stats.Repaired++
	}
	if c.opts.Problem != nil {
		c.opts.Problem(p)
	}
}

// unreadable reports an object that the bucket can't deliver. It returns an error if
// that is so because the bucket can't be reached at all.
func (c *scrubber) unreadable(ctx context.Context, repo, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.store.Ready(ctx); err != nil {
		return err
	}
	c.report(Problem{Repository: repo, Key: key, Err: errUnreadable})
	return nil
}

// examination looks at an object, and returns the problem that it has, if any. It may
// return a function that repairs the problem and returns how, or "" if that has
// failed.
type examination func() (problem error, repair func() (string, error), err error)

// examine reports the problem that an object has. An operation in progress may look
// like a problem for a moment, so examine looks several times.
func (c *scrubber) examine(ctx context.Context, repo, key string, look examination) error {
	const looks, pause = 5, 100 * time.Millisecond
	var (
		problem error
		repair  func() (string, error)
		err     error
	)
	for i := range looks {
		if i > 0 {
			time.Sleep(pause)
		}
		if problem, repair, err = look(); err != nil {
			return c.unreadable(ctx, repo, key)
		}
		if problem == nil {
			return nil
		}
	}
	p := Problem{Repository: repo, Key: key, Err: problem}
	if c.opts.Repair && repair != nil {
		p.Repair, err = repair()
	}
	c.report(p)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return c.store.Ready(ctx) // the repair has failed, perhaps for good
}

// data verifies a data object.
func (c *scrubber) data(ctx context.Context, o object) error {
	d, kind, name, ok := parseBlobKey(o.name)
	if !ok || kind != "data" || d.Validate() != nil {
		return nil
	}
	s, key := c.store, dataKey(d, name)
	err := s.verifyData(ctx, d, name, o.size)
	if err == errDamaged { // or the bytes were damaged on their way
		err = s.verifyData(ctx, d, name, o.size)
	}
	c.mu.Lock()
	c.stats.Blobs++
	c.stats.Bytes += o.size
	if c.opts.Progress != nil {
		c.opts.Progress(c.stats.Bytes, max(c.total, c.stats.Bytes))
	}
	if err == errDamaged {
		c.damaged[key] = true
	}
	c.mu.Unlock()
	switch {
	case err == nil || err == errNotFound: // it was deleted meanwhile
		return nil
	case err != errDamaged:
		return c.unreadable(ctx, "", key)
	}
	// Data that is condemned gets no more links, and is a problem only of those that
	// it has.
	if condemned, err := s.exists(ctx, condemnedKey(d, name)); condemned || err != nil {
		return err
	}
	p := Problem{Key: key, Err: errDamaged}
	if c.opts.Repair {
		if err := s.put(ctx, condemnedKey(d, name), nil); err != nil {
			return err
		}
		p.Repair = "condemned"
	}
	c.report(p)
	return nil
}

func (c *scrubber) isDamaged(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.damaged[key]
}

// repos walks all of repos/ once.
func (c *scrubber) repos(ctx context.Context) error {
	var current string // the repository whose content was found last
	return c.walk(ctx, reposPrefix, func(o object) {
		repo, rest, _ := strings.Cut(o.name, "/_") // no component of a name begins with "_"
		kind, name, ok := strings.Cut(rest, "/")
		if !ok {
			return
		}
		isContent := kind == "blobs" || kind == "manifests"
		if (isContent || kind == "tags") && isDeletedSize(o.size) {
			return
		}
		if isContent && repo != current {
			current = repo
			c.add(func() error { return c.name(ctx, repo) })
		}
		switch kind {
		case "blobs":
			c.add(func() error { return c.link(ctx, repo, parseDigestPath(name)) })
		case "manifests":
			c.add(func() error { return c.manifest(ctx, repo, parseDigestPath(name)) })
		case "packs":
			c.add(func() error { return c.pack(ctx, repo, name) })
		case "referrers":
			c.add(func() error { return c.referrer(ctx, repo, name) })
		case "tags":
			c.add(func() error { return c.tag(ctx, repo, name) })
		}
	})
}

// name verifies that a repository with content is in the catalog.
func (c *scrubber) name(ctx context.Context, repo string) error {
	s := c.store
	c.count(func(stats *ScrubStats) { stats.Repositories++ })
	repair := func() (string, error) {
		if err := s.confirmRepo(ctx, repo); err != nil {
			return "", err
		}
		return "added", nil
	}
	return c.examine(ctx, repo, nameKey(repo), func() (error, func() (string, error), error) {
		v, err := s.read(ctx, nameKey(repo))
		if err == errMalformed {
			return errBadName, repair, nil
		}
		if err != nil || v.exists() {
			return nil, nil, err
		}
		hasContent, err := s.hasContent(ctx, repo)
		if err != nil || !hasContent {
			return nil, nil, err
		}
		return errNoName, repair, nil
	})
}
