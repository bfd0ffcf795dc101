// SPDX-License-Identifier: Apache-2.0

// The bucket's clock, by which all replicas measure ages.

package bucket

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// clock is what a process knows about the bucket's clock.
type clock struct {
	mu       sync.Mutex
	ahead    time.Duration // of this process's clock
	measured time.Time     // by this process's clock; zero: never
}

// remeasureAfter is how long a measurement of the bucket's clock is used.
const remeasureAfter = 10 * time.Minute

// bucketNow returns the time by the bucket's clock, to within some seconds.
func (s *Store) bucketNow(ctx context.Context) (time.Time, error) {
	s.clock.mu.Lock()
	ahead, measured := s.clock.ahead, s.clock.measured
	s.clock.mu.Unlock()
	if age := s.now().Sub(measured); measured.IsZero() || age < 0 || age > remeasureAfter {
		return s.measureClock(ctx)
	}
	return s.now().Add(ahead), nil
}

// measureClock asks the bucket for its time: it writes an object, and reads when
// it was written.
func (s *Store) measureClock(ctx context.Context) (time.Time, error) {
	const precise = 5 * time.Second
	key := checkPrefix + newUUID()
	defer s.later(func() { s.remove(context.WithoutCancel(ctx), key) })
	for attempt := range maxTries {
		backOff(attempt)
		before := s.now()
		if err := s.put(ctx, key, nil); err != nil {
			return time.Time{}, err
		}
		after := s.now()
		if after.Sub(before) > precise {
			continue // too slow to tell anything
		}
		// Some servers tell the time in lists more precisely than elsewhere.
		page, _, err := s.listPage(ctx, objects.ListQuery{Prefix: s.opts.Prefix + key}, 1)
		if err != nil {
			return time.Time{}, err
		}
		if len(page) == 0 {
			return time.Time{}, errNoList
		}
		ahead := page[0].Time.Sub(before)
		s.clock.mu.Lock()
		defer s.clock.mu.Unlock()
		s.clock.ahead, s.clock.measured = ahead, after
		return s.now().Add(ahead), nil
	}
	return time.Time{}, fmt.Errorf("%w: the bucket is too slow to tell the time", registry.ErrUnavailable)
}

// skew returns by how much this process's clock differs from the bucket's, as far
// as it is known.
func (s *Store) skew() time.Duration {
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	return s.clock.ahead.Abs()
}

// age returns how long ago a time of the bucket was.
func (s *Store) age(ctx context.Context, t time.Time) (time.Duration, error) {
	now, err := s.bucketNow(ctx)
	return now.Sub(t), err
}

// elapsed returns how long ago a time of this process was, also if the machine has
// slept since: the monotonic clock may stand still then.
func elapsed(since time.Time) time.Duration {
	return max(time.Since(since), time.Now().Round(0).Sub(since.Round(0)))
}
