// SPDX-License-Identifier: Apache-2.0

// Writing large objects in bounded memory, and the timeout of calls that move
// bytes.

package bucket

import (
	"context"
	"io"
	"time"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// stepTimer cancels a context if one step of an operation takes too long. The
// time between steps, in which the operation waits for others, does not count.
type stepTimer struct {
	timer   *time.Timer
	timeout time.Duration
}

func newStepTimer(cancel context.CancelFunc, timeout time.Duration) stepTimer {
	timer := time.AfterFunc(timeout, cancel)
	timer.Stop()
	return stepTimer{timer, timeout}
}

func (t stepTimer) beginStep() { t.timer.Reset(t.timeout) }
func (t stepTimer) endStep()   { t.timer.Stop() }

// writer writes a large object in bounded memory.
type writer struct {
	store  *Store
	ctx    context.Context
	cancel context.CancelFunc
	stepTimer
	w objects.Writer
}

var _ io.Writer = (*writer)(nil)

// newWriter begins a large object, which exists once close has returned. The
// caller must call close or abort.
func (s *Store) newWriter(ctx context.Context, key string) *writer {
	call, cancel := context.WithCancel(ctx)
	return &writer{
		store:     s,
		ctx:       ctx,
		cancel:    cancel,
		stepTimer: newStepTimer(cancel, 3*s.opts.Timeout),
		w:         s.bucket.NewWriter(call, s.opts.Prefix+key),
	}
}

func (w *writer) Write(p []byte) (int, error) {
	w.beginStep()
	defer w.endStep()
	n, err := w.w.Write(p)
	return n, w.store.storeError(w.ctx, err)
}

// close completes the object, or discards it if that fails.
func (w *writer) close() error {
	defer w.cancel()
	w.beginStep()
	err := w.w.Close()
	w.endStep()
	if err != nil {
		w.w.Abort()
	}
	return w.store.storeError(w.ctx, err)
}

// abort discards the object.
func (w *writer) abort() {
	w.cancel()
	w.w.Abort()
}
