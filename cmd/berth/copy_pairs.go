// SPDX-License-Identifier: Apache-2.0

// The comparison of a repository's lists with those of its copy.

package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/berth-oci/registry"
)

// compare yields the entries of a list of the source, with those of the destination:
// of its list, or, if it can't list all, of stat.
func (r *repoCopy) compare(ctx context.Context, from iter.Seq2[registry.Info, error],
	list func(context.Context, string, digest.Digest) iter.Seq2[registry.Info, error],
	stat func(context.Context, string, digest.Digest) (registry.Info, error)) iter.Seq2[pair, error] {
	var pairs iter.Seq2[pair, error]
	if unlisted(r.to) {
		pairs = oneByOne(ctx, from, func(ctx context.Context, d digest.Digest) (registry.Info, error) { return stat(ctx, r.name, d) })
	} else {
		pairs = sideBySide(from, r.inCopy(list(ctx, r.name, "")))
	}
	if !unlisted(r.from) {
		return pairs
	}
	return func(yield func(pair, error) bool) {
		for p, err := range pairs {
			if p.exists {
				p.Size = p.size // the source's list has only the size that a manifest states
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// statsAtOnce is the number of requests that oneByOne sends at once.
const statsAtOnce = 16

// oneByOne yields the entries of a list, with those of a destination that stat finds.
func oneByOne(ctx context.Context, from iter.Seq2[registry.Info, error], stat func(context.Context, digest.Digest) (registry.Info, error)) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		var batch []pair
		flush := func() bool {
			g, running := errgroup.WithContext(ctx)
			for i := range batch {
				g.Go(func() error {
					info, err := stat(running, batch[i].Digest)
					if isUnknown(err) {
						return nil
					}
					batch[i].exists, batch[i].size = err == nil, info.Size
					if info.Size < 0 {
						batch[i].size = batch[i].Size
					}
					return inDestination(err)
				})
			}
			if err := g.Wait(); err != nil {
				yield(pair{}, err)
				return false
			}
			for _, p := range batch {
				if !yield(p, nil) {
					return false
				}
			}
			batch = batch[:0]
			return true
		}
		for info, err := range from {
			if err != nil {
				if flush() {
					yield(pair{}, err)
				}
				return
			}
			if batch = append(batch, pair{Info: info}); len(batch) == statsAtOnce && !flush() {
				return
			}
		}
		flush()
	}
}

// pair is a blob or a manifest of the source, and the one with the same digest in
// the destination if it exists.
type pair struct {
	registry.Info
	exists bool
	size   int64 // in the destination
}

// checkSize returns an error if the sizes differ.
func (p pair) checkSize() error {
	if p.exists && p.size != p.Size {
		return fmt.Errorf("it has %s in the source and %s in the destination: one of them is corrupt",
			units.BytesSize(float64(p.Size)), units.BytesSize(float64(p.size)))
	}
	return nil
}

// sideBySide yields the entries of a list in the order of digests, with the entries
// of another such list.
func sideBySide(from, to iter.Seq2[registry.Info, error]) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		next, stop := iter.Pull2(to)
		defer stop()
		other, otherErr, ok := next()
		for info, err := range from {
			for ok && err == nil && otherErr == nil && other.Digest < info.Digest {
				other, otherErr, ok = next()
			}
			if err == nil && ok {
				err = otherErr
			}
			p := pair{Info: info}
			if ok && other.Digest == info.Digest {
				p.exists, p.size = true, other.Size
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}
