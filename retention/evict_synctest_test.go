// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package retention_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/retention"
)

// slowStore takes longer than the grace period to begin a collection.
type slowStore struct{ registry.Store }

func (s slowStore) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	time.Sleep(30 * time.Millisecond)
	return now, err
}

// TestSlowEvict fills a store whose collections take long: a push does not give up before
// one that has begun after the grace period.
func TestSlowEvict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(registry.MemStore)
		s.Limits.TotalBytes = 1 << 20
		s.Limits.Collect = retention.Evict(slowStore{s}, retention.Options{Grace: 20 * time.Millisecond})
		for i := range 30 {
			data := fmt.Sprint(i, strings.Repeat("x", 200_000))
			qt.Assert(t, qt.IsNil(registry.PushBlob(t.Context(), s, "a", digest.FromString(data), strings.NewReader(data))))
		}
	})
}
