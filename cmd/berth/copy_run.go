// SPDX-License-Identifier: Apache-2.0

// The copy of a store: its repositories, several at once, and the result.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/berth-oci/registry"
)

// copier copies from one store to another.
type copier struct {
	from, to registry.Store
	closers  []io.Closer
	repos    []string // in byte order
	named    bool     // on the command line
	dryRun   bool
	strict   bool      // a repository with a failure gets no manifests and tags
	stdout   io.Writer // of a dry run

	slots    chan struct{} // held by each job
	places   places
	failures failures

	unavailable atomic.Int32 // failures since something was copied, because a store can't be reached

	done           atomic.Int64 // repositories
	copied, exists counts
	bytes          atomic.Int64 // copied
}

// counts are numbers of things.
type counts struct{ tags, manifests, blobs atomic.Int64 }

func (c *counts) String() string {
	return fmt.Sprintf("%d tags, %d manifests, %d blobs", c.tags.Load(), c.manifests.Load(), c.blobs.Load())
}

func newCopier(jobs int) *copier {
	return &copier{slots: make(chan struct{}, jobs)}
}

// close closes the stores, the destination first.
func (c *copier) close() (err error) {
	for _, closer := range slices.Backward(c.closers) {
		err = errors.Join(err, closer.Close())
	}
	return err
}

// String describes what was copied so far.
func (c *copier) String() string {
	verb := "copied"
	if c.dryRun {
		verb = "would copy"
	}
	return fmt.Sprintf("%d of %d repositories: %s %v (%s); %v existed",
		c.done.Load(), len(c.repos), verb, &c.copied, units.HumanSize(float64(c.bytes.Load())), &c.exists)
}

// progress implements job.
func (c *copier) progress() (done, of int64) { return c.done.Load(), int64(len(c.repos)) }

// destinationError is a failure of the destination. It ends the copy of the
// repository, since the next push would probably fail too.
type destinationError struct{ error }

func (e destinationError) Unwrap() error { return e.error }

// strictError is a failure that ends the copy of the repository because the copy is
// strict.
type strictError struct{ error }

func (e strictError) Unwrap() error { return e.error }

// inDestination returns err as a destinationError, unless it is nil.
func inDestination(err error) error {
	if err == nil {
		return nil
	}
	return destinationError{fmt.Errorf("in the destination: %w", err)}
}

// run copies the repositories, and shows its progress on the screen. An error ends
// the copy; failures to copy single repositories, manifests and blobs do not.
func (c *copier) run(ctx context.Context, screen *screen) error {
	c.failures.w = screen
	defer screen.show(c)()
	existing, err := c.existing(ctx)
	if err != nil {
		return inDestination(err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(c.slots))
	if c.dryRun {
		g.SetLimit(1) // to print them in order
	}
	for _, name := range c.repos {
		g.Go(func() error { return c.repository(ctx, name, existing[name]) })
	}
	return g.Wait()
}

// existing returns the repositories to copy that the destination lists. A push
// that was killed may have left content in a repository that it does not list.
func (c *copier) existing(ctx context.Context) (map[string]bool, error) {
	found := make(map[string]bool)
	if unlisted(c.to) {
		for _, name := range c.repos {
			found[name] = true // perhaps
		}
		return found, nil
	}
	first := c.repos[0]
	rest := c.repos
	for name, err := range c.to.Repositories(ctx, first[:len(first)-1]) {
		if err != nil {
			return nil, err
		}
		for len(rest) > 0 && rest[0] < name {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			break
		}
		if rest[0] == name {
			found[name] = true
		}
	}
	return found, nil
}

// maxPasses is how often a repository is compared while tags move in the source.
const maxPasses = 5

// repository copies a repository. It returns an error if the entire copy must end.
func (c *copier) repository(ctx context.Context, name string, exists bool) error {
	for pass := 0; ; pass++ {
		r := &repoCopy{copier: c, name: name, exists: exists, again: pass > 0, deferred: make(map[digest.Digest]*deferredManifest)}
		err := r.copy(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, registry.ErrNameUnknown) && !c.named:
			return nil // deleted meanwhile
		case err != nil:
			return c.endRepository(name, err)
		case !r.moved.Load():
			c.done.Add(1)
			return nil
		case pass == maxPasses:
			return c.endRepository(name, errors.New("its tags move in the source while they are copied"))
		}
		exists = true
	}
}

// endRepository records the failure of a repository. It returns an error if the
// destination is full, so that nothing else can be copied.
func (c *copier) endRepository(name string, err error) error {
	var failed destinationError
	if errors.As(err, &failed) && errors.Is(err, registry.ErrTooLarge) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return c.fail(name, err)
}

// maxUnavailable is how many failures in a row mean that a store can't be reached.
const maxUnavailable = 20

// fail records a failure. It returns an error if the copy must end.
func (c *copier) fail(what string, err error) error {
	c.failures.add(fmt.Sprintf("%s: %v", what, err))
	if errors.Is(err, registry.ErrUnavailable) && c.unavailable.Add(1) >= maxUnavailable {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// succeed is called after something was copied.
func (c *copier) succeed() { c.unavailable.Store(0) }

// forEach calls f for each element of seq, in as many jobs as there may be. It
// returns the first error of seq or f, after all calls have returned.
func forEach[T any](ctx context.Context, c *copier, seq iter.Seq2[T, error], f func(context.Context, T) error) error {
	g, running := errgroup.WithContext(ctx)
	var listErr error
	for v, err := range seq {
		if err != nil {
			listErr = err
			break
		}
		if !c.acquire(running) {
			break
		}
		g.Go(func() error {
			defer func() { <-c.slots }()
			return f(running, v)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return listErr
}

// acquire waits for the slot of a job. It reports false if ctx ends first.
func (c *copier) acquire(ctx context.Context) bool {
	select {
	case c.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// maxFailures is the number of failures that are kept until the end; further ones
// are printed at once.
const maxFailures = 1000

// failures are the failures of a copy.
type failures struct {
	mu   sync.Mutex // guards the fields below
	w    io.Writer
	seen map[string]bool
	list []string
	more int
}

func (f *failures) add(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.seen[text]:
	case len(f.list) < maxFailures:
		if f.seen == nil {
			f.seen = make(map[string]bool)
		}
		f.seen[text] = true
		f.list = append(f.list, text)
	default:
		f.more++
		if f.w != nil {
			fmt.Fprintf(f.w, "berth: %s\n", text)
		}
	}
}

// print prints the failures that were kept.
func (f *failures) print(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, text := range f.list {
		fmt.Fprintf(w, "berth: %s\n", text)
	}
}

// err returns an error if there were failures.
func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.list) + f.more; n > 0 {
		return fmt.Errorf("the copy is incomplete: see the failures above (%d)", n)
	}
	return nil
}
