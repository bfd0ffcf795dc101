// SPDX-License-Identifier: Apache-2.0

// Check: is this bucket what a store needs?

package bucket

import (
	"context"
	"errors"
	"fmt"
)

// Check tries the bucket, at the start of a process: that it is there, that
// this process may write, read, list and delete, and that it keeps the
// conditions of writes. Not all that is called S3 does, and tags would be lost
// where it does not.
// Errors: registry.ErrUnavailable, and what it has found.
func (s *Store) Check(ctx context.Context) error {
	const prefix = "check/"
	name := newUUID()
	key := prefix + name
	if _, err := s.create(ctx, key, []byte("1")); err != nil {
		return err
	}
	defer s.discard(context.WithoutCancel(ctx), key)
	if again, err := s.create(ctx, key, []byte("2")); again || err != nil {
		return broken(err, "a write on the condition that there is no object has replaced one")
	}
	_, version, err := s.get(ctx, key)
	if err != nil {
		return err
	}
	if ok, err := s.swap(ctx, key, []byte("3"), version); !ok || err != nil {
		return broken(err, "a write on the condition of the present version was refused")
	}
	if ok, err := s.swap(ctx, key, []byte("4"), version); ok || err != nil {
		return broken(err, "a write on the condition of an old version was done")
	}
	for o, err := range s.list(ctx, prefix, name[:1], firstPage) {
		if err != nil {
			return err
		}
		if o.name == name {
			return s.remove(ctx, key)
		}
	}
	return errors.New("bucket: an object that was written is not in a list")
}

// broken returns err, or, where there is none, that conditions are not kept.
func broken(err error, what string) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("bucket: it does not keep the conditions of writes: %s", what)
}
