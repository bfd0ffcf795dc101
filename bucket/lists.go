// SPDX-License-Identifier: Apache-2.0

// Lists of objects.

package bucket

import (
	"context"
	"iter"
	"sync"
	"time"

	"gocloud.dev/blob"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
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
		opts := &blob.ListOptions{Prefix: s.opts.Prefix + prefix}
		token := blob.FirstPageToken
		if after != "" {
			start, before := s.provider.startAfter(opts.Prefix + after)
			if start != nil {
				token = start
			}
			opts.BeforeList = before
		}
		for size := pageSize; len(token) > 0; size = nextPageSize {
			page, next, err := s.listPage(ctx, token, size, opts)
			if err != nil {
				yield(object{}, err)
				return
			}
			token = next
			for _, o := range page {
				name := o.Key[len(opts.Prefix):]
				if after != "" && name <= after {
					continue
				}
				if !yield(object{name, o.Size, o.ModTime}, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) listPage(ctx context.Context, token []byte, size int, opts *blob.ListOptions) ([]*blob.ListObject, []byte, error) {
	call, cancel := s.withTimeout(ctx)
	defer cancel()
	page, next, err := s.bucket.ListPage(call, token, size, opts)
	if err != nil {
		if err = s.storeError(ctx, err); err == errNotFound { // the bucket itself does not exist
			err = registry.ErrUnavailable
		}
		return nil, nil, err
	}
	return page, next, nil
}

// parallelReads is the number of objects that listDigests reads at once.
const parallelReads = 16

// listDigests lists the objects whose keys are a prefix and a digest, in the
// order of the digests, after a digest or "" for all, and yields the result of
// read for each. A list contains little more than keys, so read makes a call to
// the bucket: several run at once, and none is running when listDigests yields.
// It leaves out objects for which read returns errNotFound, because they were
// deleted after they were listed.
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
			if d := parseDigestPath(o.name); d > after {
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
