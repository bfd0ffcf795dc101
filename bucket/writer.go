// SPDX-License-Identifier: Apache-2.0

// Writing large objects in bounded memory, and the timeout of calls that move
// bytes.

package bucket

import (
	"context"
	"io"
	"time"

	"gocloud.dev/blob"
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
	w *blob.Writer
}

var _ io.Writer = (*writer)(nil)

// A writer sends chunks of chunkSize bytes, up to parallelChunks at once. An
// object in S3 has at most 10,000 of them.
const (
	chunkSize      = 8 << 20
	parallelChunks = 2
)

// newWriter begins a large object, which exists once close has returned. The
// caller must call close or abort.
func (s *Store) newWriter(ctx context.Context, key string) (*writer, error) {
	call, cancel := context.WithCancel(ctx)
	w := &writer{store: s, ctx: ctx, cancel: cancel, stepTimer: newStepTimer(cancel, s.opts.Timeout)}
	w.beginStep()
	defer w.endStep()
	var err error
	w.w, err = s.bucket.NewWriter(call, s.opts.Prefix+key, &blob.WriterOptions{
		ContentType:    contentType,
		BufferSize:     chunkSize,
		MaxConcurrency: parallelChunks,
	})
	if err != nil {
		cancel()
		return nil, s.storeError(ctx, err)
	}
	return w, nil
}

func (w *writer) Write(p []byte) (int, error) {
	w.beginStep()
	defer w.endStep()
	n, err := w.w.Write(p)
	return n, w.store.storeError(w.ctx, err)
}

func (w *writer) close() error {
	w.beginStep()
	defer w.cancel()
	defer w.endStep()
	return w.store.storeError(w.ctx, w.w.Close())
}

// abort discards the object.
func (w *writer) abort() {
	w.cancel()
	w.w.Close()
}
