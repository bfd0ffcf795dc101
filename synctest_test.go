// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package registry

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-quicktest/qt"
)

// TestUploadsExpire lets uploads expire in fake time. It also shows that a registry
// starts no goroutine: otherwise synctest.Test would not return.
func TestUploadsExpire(t *testing.T) {
	for _, c := range []struct {
		limits MemLimits
		idle   time.Duration
	}{
		{MemLimits{Uploads: 2}, time.Hour},
		{MemLimits{Uploads: 2, UploadIdle: 5 * time.Second}, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := context.Background()
			m := &MemStore{Limits: c.limits}
			New(WithStore(m))
			idle, err := m.CreateUpload(ctx, "a", UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			idle.Close()
			stalled, err := m.CreateUpload(ctx, "a", UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			_, err = m.CreateUpload(ctx, "a", UploadOptions{})
			qt.Check(t, qt.ErrorIs(err, error(ErrTooManyRequests)))

			// Each use resets the timer. A lease that nothing comes through is idle.
			time.Sleep(c.idle - time.Nanosecond)
			used, err := m.ResumeUpload(ctx, "a", idle.ID())
			qt.Assert(t, qt.IsNil(err))
			used.Close()
			time.Sleep(c.idle - time.Nanosecond)
			_, err = m.UploadSize(ctx, "a", idle.ID())
			qt.Check(t, qt.IsNil(err))
			time.Sleep(c.idle)
			_, err = m.ResumeUpload(ctx, "a", idle.ID())
			qt.Check(t, qt.ErrorIs(err, error(ErrBlobUploadUnknown)))
			_, err = stalled.ReadFrom(strings.NewReader("x"))
			qt.Check(t, qt.ErrorIs(err, error(ErrBlobUploadUnknown)))
			stalled.Close()

			// A request may take any time while bytes arrive.
			busy, err := m.CreateUpload(ctx, "a", UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			for range 1000 {
				time.Sleep(c.idle - time.Nanosecond)
				_, err = busy.ReadFrom(strings.NewReader("x"))
				qt.Assert(t, qt.IsNil(err))
			}
			_, err = m.UploadSize(ctx, "a", busy.ID())
			qt.Check(t, qt.IsNil(err))
			busy.Close()
			time.Sleep(c.idle)
			next, err := m.CreateUpload(ctx, "a", UploadOptions{})
			qt.Assert(t, qt.IsNil(err))
			next.Close()
			m.CancelUpload(ctx, "a", next.ID())
			checkEmpty(t, m)
		})
	}
}
