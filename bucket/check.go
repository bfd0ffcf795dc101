// SPDX-License-Identifier: Apache-2.0

// Check, which tests whether a bucket meets the requirements of a store.

package bucket

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// Check tests whether the bucket exists, whether the process may write, read, list
// and delete objects, whether conditional writes work, and what time it is: some
// S3-compatible servers ignore the conditions, and would lose tags. Call it when the
// process starts. Its error is one sentence for the operator, and names what failed.
// Errors: registry.ErrUnavailable.
func (s *Store) Check(ctx context.Context) error {
	name := newUUID()
	key := checkPrefix + name
	if err := s.probe(ctx, key); err != nil {
		return err
	}
	defer s.remove(context.WithoutCancel(ctx), key)
	one, created, err := s.replace(ctx, key, value{}, newID(), []byte("1"))
	if err != nil {
		return err
	}
	if !created {
		return conditionError(nil, "it rejected a write that required the object not to exist")
	}
	if _, again, err := s.replace(ctx, key, value{}, newID(), []byte("2")); again || err != nil {
		return conditionError(err, "it replaced an object that the write required not to exist")
	}
	if _, ok, err := s.replace(ctx, key, one, newID(), []byte("3")); !ok || err != nil {
		return conditionError(err, "it rejected a write that required the object's current version")
	}
	if _, ok, err := s.replace(ctx, key, one, newID(), []byte("4")); ok || err != nil {
		return conditionError(err, "it accepted a write that required an old version of the object")
	}
	for o, err := range s.list(ctx, checkPrefix, name[:1], firstPageSize) {
		if err != nil {
			return err
		}
		if o.name == name {
			_, err = s.measureClock(ctx)
			return err
		}
	}
	return errNoList
}

// probe writes, reads, lists and deletes an object, without a condition. Unlike other
// operations, it explains its error, and doesn't report it.
func (s *Store) probe(ctx context.Context, key string) error {
	key = s.opts.Prefix + key + "-probe"
	for _, call := range []func(ctx context.Context) error{
		func(ctx context.Context) error {
			_, err := s.bucket.Put(ctx, key, []byte("probe"), objects.Condition{})
			return err
		},
		func(ctx context.Context) error {
			r, err := s.bucket.Get(ctx, key, 0, -1)
			if err == nil {
				r.Close()
			}
			return err
		},
		func(ctx context.Context) error {
			_, _, err := s.bucket.List(ctx, objects.ListQuery{Prefix: key}, 1)
			return err
		},
		func(ctx context.Context) error { return s.bucket.Delete(ctx, key, "") },
	} {
		if err := s.explained(ctx, call); err != nil {
			return err
		}
	}
	return nil
}

// explained is try with an error for the operator.
func (s *Store) explained(ctx context.Context, call func(context.Context) error) error {
	err := s.attempt(ctx, call)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return checkError{objects.Explain(s.bucket, err), err}
}

// checkError is why a bucket can't be used.
type checkError struct {
	sentence string
	cause    error
}

func (e checkError) Error() string { return e.sentence }

func (e checkError) Unwrap() []error {
	if errors.Is(e.cause, objects.ErrRejected) {
		return []error{e.cause}
	}
	return []error{registry.ErrUnavailable, e.cause}
}

var errNoList = errors.New("bucket: a list lacks an object that was just written")

// Ready reports whether the bucket can be read, with an error if not: it makes one
// call, which may take 2 seconds.
// Errors: registry.ErrUnavailable.
func (s *Store) Ready(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, _, err := s.bucket.List(call, objects.ListQuery{Prefix: s.opts.Prefix + namesPrefix}, 1)
	return s.storeError(ctx, err)
}

// conditionError returns err or, if it is nil, an error about conditional writes.
func conditionError(err error, reason string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("bucket: the provider does not enforce the conditions of writes: %s", reason)
}
