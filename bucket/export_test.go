// SPDX-License-Identifier: Apache-2.0

package bucket

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// NewOn returns a store in a bucket of any kind.
func NewOn(b objects.Bucket, opts *Options) *Store { return newStore(b, opts) }

// SetGrace shortens the times that GC and pushes rely on, so that tests are fast.
func (s *Store) SetGrace(trustedFor, minGrace time.Duration) {
	s.trustedFor, s.minGrace, s.longWrite = trustedFor, minGrace, minGrace
}

// SetLongWrite shortens the time after which GC aborts a multipart upload.
func (s *Store) SetLongWrite(d time.Duration) { s.longWrite = d }

// SetClock replaces the clock of the store's process.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// Wait waits for work in the background.
func (s *Store) Wait() { s.background.Wait() }

// ManifestKey returns the key of a manifest.
func ManifestKey(repo string, d digest.Digest) string { return manifestKey(repo, d) }
