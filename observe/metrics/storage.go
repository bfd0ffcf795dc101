// SPDX-License-Identifier: Apache-2.0

// The metrics of a store.

package metrics

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/berth-oci/registry"
)

// Storage says how much a store holds. A negative number is not known, and has no
// metric.
type Storage struct {
	Bytes        int64 // of the blobs and manifests
	Blobs        int64
	Manifests    int64
	Tags         int64
	Uploads      int64 // sessions in progress
	Repositories int64
}

// StorageFunc returns how much a store holds. An error is counted.
type StorageFunc func(context.Context) (Storage, error)

// Count returns how much s holds, except the number of uploads. It lists all
// repositories: for a large store call it in the background, and let
// [Options].Storage return the last result. Content that is in several repositories
// counts once. Errors are those of s.
func Count(ctx context.Context, s registry.Store) (Storage, error) {
	total := Storage{Uploads: -1}
	seen := make(map[digest.Digest]bool) // blobs and manifests can share a digest, but not in practice
	counter := func(n *int64) func(registry.Info) {
		return func(info registry.Info) {
			if !seen[info.Digest] {
				seen[info.Digest] = true
				*n++
				total.Bytes += info.Size
			}
		}
	}
	for repo, err := range s.Repositories(ctx, "") {
		if err == nil {
			total.Repositories++
			err = each(s.Blobs(ctx, repo, ""), counter(&total.Blobs))
		}
		if err == nil {
			err = each(s.Manifests(ctx, repo, ""), counter(&total.Manifests))
		}
		if err == nil {
			err = each(s.Tags(ctx, repo, ""), func(string) { total.Tags++ })
		}
		if err != nil {
			return Storage{}, err
		}
	}
	return total, nil
}

// each calls f for each element of a list of a repository, of none if the repository
// was deleted meanwhile.
func each[T any](list iter.Seq2[T, error], f func(T)) error {
	for v, err := range list {
		if errors.Is(err, registry.ErrNameUnknown) {
			return nil
		}
		if err != nil {
			return err
		}
		f(v)
	}
	return nil
}

// storageTimeout is less than the 10 seconds that Prometheus waits by default.
const storageTimeout = 8 * time.Second

// storage collects the results of a StorageFunc.
type storage struct {
	count  StorageFunc
	maxAge time.Duration
	errors prometheus.Counter
	gauges []storageGauge

	mu     sync.Mutex // guards the fields below
	called time.Time
	last   Storage
	known  bool // last is a result
}

type storageGauge struct {
	desc  *prometheus.Desc
	value func(Storage) int64
}

func newStorage(count StorageFunc, maxAge time.Duration) *storage {
	if maxAge <= 0 {
		maxAge = time.Minute
	}
	s := &storage{count: count, maxAge: maxAge, errors: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "registry_storage_errors_total",
		Help: "Total number of failures to count what the store holds.",
	})}
	for _, g := range []struct {
		name, help string
		value      func(Storage) int64
	}{
		{"bytes", "The size of the blobs and manifests in the store in bytes.", func(s Storage) int64 { return s.Bytes }},
		{"blobs", "The blobs in the store.", func(s Storage) int64 { return s.Blobs }},
		{"manifests", "The manifests in the store.", func(s Storage) int64 { return s.Manifests }},
		{"tags", "The tags in the store.", func(s Storage) int64 { return s.Tags }},
		{"uploads", "The upload sessions in progress.", func(s Storage) int64 { return s.Uploads }},
		{"repositories", "The repositories in the store.", func(s Storage) int64 { return s.Repositories }},
	} {
		s.gauges = append(s.gauges, storageGauge{prometheus.NewDesc("registry_storage_"+g.name, g.help, nil, nil), g.value})
	}
	return s
}

func (s *storage) Describe(ch chan<- *prometheus.Desc) {
	s.errors.Describe(ch)
	for _, g := range s.gauges {
		ch <- g.desc
	}
}

func (s *storage) Collect(ch chan<- prometheus.Metric) {
	value, known := s.value()
	s.errors.Collect(ch)
	for _, g := range s.gauges {
		if n := g.value(value); known && n >= 0 {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(n))
		}
	}
}

// value returns the last result, which it renews if it is too old.
func (s *storage) value() (Storage, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.called.IsZero() || time.Since(s.called) >= s.maxAge {
		ctx, cancel := context.WithTimeout(context.Background(), storageTimeout)
		defer cancel()
		value, err := s.count(ctx)
		s.called = time.Now()
		if err != nil {
			s.errors.Inc()
		} else {
			s.last, s.known = value, true
		}
	}
	return s.last, s.known
}
