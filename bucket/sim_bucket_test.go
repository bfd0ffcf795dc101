// SPDX-License-Identifier: Apache-2.0

// The simulation of this package's store.

package bucket_test

import (
	"context"
	"testing"
	"time"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// TestSimulation simulates a fleet. With -seed it prints one run.
func TestSimulation(t *testing.T) { runSeeds(t, 150, bucketTarget) }

var bucketTarget = simTarget{
	name:     "bucket",
	replicas: simReplicas,
	rules:    relaxed,
	open: func(b objects.Bucket, clock func() time.Time) registry.Store {
		s := bucket.NewOn(b, nil)
		s.SetClock(clock)
		s.SetLongWrite(0)
		return s
	},
	close: func(s registry.Store) { s.(*bucket.Store).Close() },
	gc: func(ctx context.Context, s registry.Store) error {
		_, err := s.(*bucket.Store).GC(ctx, bucket.GCOptions{Grace: 30 * time.Minute})
		return err
	},
	leftover: checkLeftovers,
}
