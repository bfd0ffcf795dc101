// SPDX-License-Identifier: Apache-2.0

// Lists of objects.

package bucket

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// The sizes of a list's pages. A caller that needs 100 names and one more should
// not pay for a thousand.
const (
	firstPageSize = 128
	nextPageSize  = 1000
)

// object is an entry of a list.
type object struct {
	name string // the key without the prefix
	size int64
	time time.Time // when it was last written
}

// list yields the objects with a prefix, in byte order, after a name, "" for all.
// The name must be a keyPart. The first page has the given size.
func (s *Store) list(ctx context.Context, prefix, after string, pageSize int) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		q := objects.ListQuery{Prefix: s.opts.Prefix + prefix}
		if after != "" {
			q.After = q.Prefix + after
		}
		for size := pageSize; ; size = nextPageSize {
			page, next, err := s.listPage(ctx, q, size)
			if err != nil {
				yield(object{}, err)
				return
			}
			for _, o := range page {
				if !yield(object{o.Key[len(q.Prefix):], o.Size, o.Time}, nil) {
					return
				}
			}
			if q.Token = next; next == "" {
				return
			}
		}
	}
}

func (s *Store) listPage(ctx context.Context, q objects.ListQuery, size int) (page []objects.Object, next string, err error) {
	err = s.try(ctx, func(ctx context.Context) (err error) {
		page, next, err = s.bucket.List(ctx, q, size)
		return err
	})
	if err == errNotFound { // the bucket itself does not exist
		err = registry.ErrUnavailable
	}
	return page, next, err
}

// parallelReads is the number of objects that listDigests reads at once.
const parallelReads = 16

// listDigests lists the registers whose keys are a prefix and a digest, in the
// order of the digests, after a digest or "" for all, and yields the result of
// read for each. A list contains little more than keys, so read makes a call to
// the bucket: several run at once, and none is running when listDigests yields.
// It leaves out those that are deleted, and those for which read returns
// errNotFound, because they were deleted after they were listed.
func listDigests[T any](ctx context.Context, s *Store, prefix string, after digest.Digest, read func(context.Context, digest.Digest) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var batch []digest.Digest
		// flush yields the batch, and reports whether to continue.
		flush := func() bool {
			for _, r := range readBatch(ctx, batch, read) {
				if r.err == errNotFound {
					continue
				}
				if !yield(r.value, r.err) || r.err != nil {
					return false
				}
			}
			batch = batch[:0]
			return true
		}
		for o, err := range s.list(ctx, prefix, keyPart(digestPath(after)), firstPageSize) {
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			if d := parseDigestPath(o.name); d > after && !isDeletedSize(o.size) {
				batch = append(batch, d)
			}
			if len(batch) == parallelReads && !flush() {
				return
			}
		}
		flush()
	}
}

type result[T any] struct {
	value T
	err   error
}

// readBatch calls read for each digest, all at once, and returns the results in
// the order of the digests.
func readBatch[T any](ctx context.Context, digests []digest.Digest, read func(context.Context, digest.Digest) (T, error)) []result[T] {
	results := make([]result[T], len(digests))
	var wg sync.WaitGroup
	for i, d := range digests {
		wg.Add(1)
		go func() {
			defer wg.Done()
			results[i].value, results[i].err = read(ctx, d)
		}()
	}
	wg.Wait()
	return results
}
