// SPDX-License-Identifier: Apache-2.0

// Collections of garbage while the server runs.

package main

import (
	"context"
	"errors"
	"time"

	"github.com/docker/go-units"

	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/observe/metrics"
	"github.com/berth-oci/registry/retention"
)

var errCollecting = errors.New("a collection is running")

// checkCollections checks the flags about collections.
func (c *serveCmd) checkCollections() error {
	switch {
	case c.GCEvery < 0 || c.GCGrace < 0:
		return errors.New("--gc-every and --gc-grace require positive times")
	case c.GCEvery == 0 && len(c.sections().Retention) > 0:
		return errors.New("retention rules require --gc-every, the time between two collections")
	case c.GCEvery == 0 && c.GCUntagged:
		return errors.New("--gc-untagged requires --gc-every")
	case c.GCEvery > 0 && c.ReadOnly:
		return errors.New("--gc-every and --read-only exclude each other")
	}
	return nil
}

// retention returns the options of collections.
func (c *serveCmd) retention() retention.Options {
	return retention.Options{
		Grace:        graceOption(c.GCGrace),
		Rules:        c.sections().retentionRules(),
		KeepUntagged: !c.GCUntagged,
	}
}

// graceOption returns Options.Grace for a flag's value, of which 0 means none.
func graceOption(grace time.Duration) time.Duration {
	if grace == 0 {
		return -1
	}
	return grace
}

// collectNow runs a collection. Errors: errCollecting, and those of retention.Collect.
func (s *server) collectNow(ctx context.Context, o retention.Options) (retention.Report, error) {
	if !s.collecting.TryLock() {
		return retention.Report{}, errCollecting
	}
	defer s.collecting.Unlock()
	start := time.Now()
	report, err := retention.Collect(mirror.WithoutUpstream(ctx), s.store, o)
	if o.DryRun {
		return report, err
	}
	if s.metrics != nil {
		s.metrics.AddGC(metrics.GCRun{Duration: time.Since(start), FreedBytes: report.Bytes, Blobs: report.Blobs, Manifests: report.Manifests, Err: err})
	}
	s.log.Info("collection", "tags", report.Tags, "manifests", report.Manifests, "blobs", report.Blobs,
		"freed", units.BytesSize(float64(report.Bytes)), "uploads", report.Uploads, "duration", time.Since(start))
	return report, err
}

// collectRegularly runs collections until ctx ends, at the times that the current
// configuration says.
func (s *server) collectRegularly(ctx context.Context) {
	last := time.Now()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c := s.current.Load().command
		if c.GCEvery == 0 || time.Since(last) < c.GCEvery {
			continue
		}
		_, err := s.collectNow(ctx, c.retention())
		if err != nil && ctx.Err() == nil && !errors.Is(err, errCollecting) {
			s.log.Error("collection", "error", err)
		}
		last = time.Now()
	}
}
