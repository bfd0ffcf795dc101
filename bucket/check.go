// SPDX-License-Identifier: Apache-2.0

// Check, which tests whether a bucket meets the requirements of a store.

package bucket

import (
	"context"
	"errors"
	"fmt"
)

// Check tests whether the bucket exists, whether the process may write, read, list
// and delete objects, and whether conditional writes work: some S3-compatible
// servers ignore the conditions, and would lose tags. Call it when the process
// starts.
// Errors: registry.ErrUnavailable, or an error that names the failed requirement.
func (s *Store) Check(ctx context.Context) error {
	const prefix = "check/"
	name := newUUID()
	key := prefix + name
	if _, err := s.create(ctx, key, []byte("1")); err != nil {
		return err
	}
	defer s.tryRemove(context.WithoutCancel(ctx), key)
	if again, err := s.create(ctx, key, []byte("2")); again || err != nil {
		return conditionError(err, "it replaced an object that the write required not to exist")
	}
	c, err := s.get(ctx, key)
	if err != nil {
		return err
	}
	if ok, err := s.swap(ctx, key, []byte("3"), c.version); !ok || err != nil {
		return conditionError(err, "it rejected a write that required the object's current version")
	}
	if ok, err := s.swap(ctx, key, []byte("4"), c.version); ok || err != nil {
		return conditionError(err, "it accepted a write that required an old version of the object")
	}
	for o, err := range s.list(ctx, prefix, name[:1], firstPageSize) {
		if err != nil {
			return err
		}
		if o.name == name {
			return s.remove(ctx, key)
		}
	}
	return errors.New("bucket: a list lacks an object that was just written")
}

// conditionError returns err or, if it is nil, an error about conditional writes.
func conditionError(err error, reason string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("bucket: the provider does not enforce the conditions of writes: %s", reason)
}
