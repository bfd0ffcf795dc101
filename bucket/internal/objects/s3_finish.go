// SPDX-License-Identifier: Apache-2.0

// Requests that go on although their caller has given them up: a cluster of MinIO whose
// client goes away during a PUT may lose the object, the old one and the new one, for good.

package objects

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// The requests that go on may hold maxUnfinished bytes, of which each needs requestMemory in
// addition to its object. They go on for maxOverdue at most, and when the bucket is closed
// for maxClosing.
const (
	maxUnfinished = 16 << 20
	requestMemory = 64 << 10
	maxOverdue    = time.Minute
	maxClosing    = 5 * time.Second
)

// unfinished are the requests of a bucket that go on without their caller.
type unfinished struct {
	life context.Context // of them all
	end  context.CancelFunc

	running sync.WaitGroup
	mu      sync.Mutex // guards the fields below
	bytes   int64
	closed  bool
}

// init makes an unfinished ready for use.
func (u *unfinished) init() { u.life, u.end = context.WithCancel(context.Background()) }

// finish calls put, which may replace an object of a size, and returns when ctx is done, but
// lets put go on.
func (u *unfinished) finish(ctx context.Context, size int, put func(context.Context) (string, error)) (version string, err error) {
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	type result struct {
		version string
		err     error
	}
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan result, 1)
	go func() {
		defer cancel()
		version, err := put(detached)
		done <- result{version, err}
	}()
	select {
	case r := <-done:
		return r.version, r.err
	case <-ctx.Done():
		u.add(detached, cancel, int64(size)+requestMemory)
		return "", fmt.Errorf("objects: %w", ctx.Err())
	}
}

// add adds a request that holds n bytes until ctx is done. If that is too much, it cancels
// the request.
func (u *unfinished) add(ctx context.Context, cancel context.CancelFunc, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed || u.bytes+n > maxUnfinished {
		cancel()
		return
	}
	u.bytes += n
	u.running.Add(1)
	overdue := time.AfterFunc(maxOverdue, cancel)
	forget := context.AfterFunc(u.life, cancel)
	context.AfterFunc(ctx, func() {
		defer u.running.Done()
		overdue.Stop()
		forget()
		u.mu.Lock()
		defer u.mu.Unlock()
		u.bytes -= n
	})
}

// close waits for the requests, and then cancels those that have not ended.
func (u *unfinished) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	defer time.AfterFunc(maxClosing, u.end).Stop()
	u.running.Wait()
	u.end()
}
