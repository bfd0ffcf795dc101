// SPDX-License-Identifier: Apache-2.0

// Handles: how a replica reaches the double, with its latencies and faults.

package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

var (
	errCrashed = errors.New("simulation: this replica has crashed")
	errNetwork = errors.New("simulation: the connection is broken")
	errSlower  = errors.New("simulation: 503 Slow Down")
)

// network is everything between the replicas and the double.
type network struct {
	*weather
	bucket *double
	ticks  atomic.Int64 // a clock that orders events
	late   counter      // effects that are still to come
}

// counter counts what goes on. Unlike that of a [sync.WaitGroup], it may begin at any
// time, while others wait too: a store's work in the background causes late effects.
type counter struct{ n atomic.Int64 }

func (c *counter) Go(f func()) {
	c.n.Add(1)
	go func() {
		defer c.n.Add(-1)
		f()
	}()
}

// Wait waits until nothing goes on, in the time of a bubble.
func (c *counter) Wait() {
	for c.n.Load() > 0 {
		time.Sleep(time.Second)
	}
}

func (n *network) tick() int64 { return n.ticks.Add(1) }

// handle is the objects.Bucket of one replica, from its start to its crash.
type handle struct {
	*network
	name    string
	crashed chan struct{}
	other   caller // of calls that belong to no request

	mu    sync.Mutex
	cut   time.Time // the end of the current partition
	hangs bool      // during that, calls don't fail at once
}

func (n *network) newHandle(name string) *handle {
	return &handle{network: n, name: name, crashed: make(chan struct{}), other: caller{name: name}}
}

// outcome is everything that a call can return.
type outcome struct {
	version string
	object  doubleObject
	page    []objects.Object
	next    string
	n       int
	err     error
}

// partition cuts the replica off from the bucket.
func (h *handle) partition(d time.Duration, hangs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut, h.hangs = time.Now().Add(d), hangs
}

// isCut reports whether the replica is cut off, and whether its calls hang.
func (h *handle) isCut() (cut, hangs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.cut), h.hangs
}

// wait lets time pass. It fails if the call's context ends, or the replica.
func (h *handle) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.crashed:
		return errCrashed
	}
}

// fail ends a call whose response never comes: after a while, or not before its
// context ends.
func (h *handle) fail(ctx context.Context, r *rand.Rand) outcome {
	d := between(r, time.Second, 10*time.Second)
	if r.IntN(2) == 0 {
		d = 2*time.Minute + time.Duration(r.IntN(1e9))
	}
	if err := h.wait(ctx, d); err != nil {
		return outcome{err: err}
	}
	return outcome{err: errNetwork}
}

// later takes effect after a while, whatever becomes of the caller.
func (h *handle) later(c *caller, d time.Duration, effect func() outcome) <-chan outcome {
	done := make(chan outcome, 1)
	c.add(1, 0)
	h.late.Go(func() {
		time.Sleep(d)
		o := effect()
		c.add(-1, h.tick())
		done <- o
	})
	return done
}

// call makes one call: it takes its time, and perhaps effect.
func (h *handle) call(ctx context.Context, kind, key string, write bool, effect func() outcome) (o outcome) {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		c = &h.other
	}
	name := c.count(kind, key)
	r := h.stream(name)
	before, after := between(r, 500*time.Microsecond, 25*time.Millisecond), between(r, 500*time.Microsecond, 25*time.Millisecond)
	f := h.choose(r, write)
	delay := between(r, 20*time.Millisecond, 10*time.Minute)
	lands, waits := r.IntN(2) == 0, r.IntN(2) == 0

	if err := ctx.Err(); err != nil {
		return outcome{err: err}
	}
	select {
	case <-h.crashed: // nothing begins
		return outcome{err: errCrashed}
	default:
	}
	if f != "" && f != faultBody && f != faultPage && !h.note(f, name, "%s: %s, %s later", h.name, name, delay) {
		f = ""
	}
	if cut, hangs := h.isCut(); cut {
		if hangs {
			return h.fail(ctx, r)
		}
		return outcome{err: cmpError(h.wait(ctx, before), errNetwork)}
	}
	switch f {
	case faultSlow:
		extra := between(r, time.Second, 20*time.Second)
		if r.IntN(12) == 0 {
			extra = between(r, time.Minute, 5*time.Minute)
		}
		if waits {
			before += extra
		} else {
			after += extra
		}
	case faultLost:
		return h.fail(ctx, r)
	case faultThrottled:
		return outcome{err: cmpError(h.wait(ctx, before+after), errSlower)}
	case faultDelayed:
		h.later(c, before+delay, effect)
		return h.fail(ctx, r)
	}
	begun := time.Now()
	if err := h.wait(ctx, before); err != nil {
		// The request may be on its way.
		if write && lands {
			h.later(c, max(before-time.Since(begun), 1), effect)
		}
		return outcome{err: err}
	}
	if cut, _ := h.isCut(); cut {
		return h.fail(ctx, r)
	}
	o = effect()
	if write {
		c.add(0, h.tick())
	}
	switch f {
	case faultResponse:
		return h.fail(ctx, r)
	case faultDuplicate:
		second := h.later(c, delay, effect)
		if waits && delay < 20*time.Second {
			if err := h.wait(ctx, delay+after); err != nil {
				return outcome{err: err}
			}
			return <-second
		}
	}
	if err := h.wait(ctx, after); err != nil {
		return outcome{err: err}
	}
	if cut, _ := h.isCut(); cut {
		return h.fail(ctx, r)
	}
	return o
}

// cmpError returns the first error, or else the second.
func cmpError(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

func (h *handle) Get(ctx context.Context, key string, offset, n int64) (*objects.Reader, error) {
	o := h.call(ctx, "get", key, false, func() outcome {
		object, err := h.bucket.read(key)
		return outcome{object: object, err: err}
	})
	if o.err != nil {
		return nil, o.err
	}
	data := o.object.data
	if size := int64(len(data)); offset < 0 || offset > 0 && offset >= size {
		return nil, fmt.Errorf("simulation: offset %d of %s, which has %d bytes", offset, key, size)
	}
	data = data[offset:]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	body := &handleBody{h: h, ctx: ctx, Reader: *bytes.NewReader(data), left: -1}
	if c, ok := ctx.Value(callerKey{}).(*caller); ok && h.happens(faultBody) {
		name := c.count("read", key)
		r := h.stream(name)
		if r.Float64() < h.rates[faultBody] && h.note(faultBody, name, "%s: %s breaks off", h.name, name) {
			body.left = r.IntN(len(data) + 1)
		}
	}
	return &objects.Reader{ReadCloser: body, Object: o.object.facts(key)}, nil
}

// handleBody is the body of an object. It takes no time, but may break off.
type handleBody struct {
	bytes.Reader
	h    *handle
	ctx  context.Context
	left int // until it breaks off; -1: it does not
}

func (b *handleBody) Read(p []byte) (int, error) {
	select {
	case <-b.h.crashed:
		return 0, errCrashed
	default:
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left < 0 {
		return b.Reader.Read(p)
	}
	n, _ := b.Reader.Read(p[:min(len(p), b.left)])
	if b.left -= n; n == 0 {
		return 0, errNetwork
	}
	return n, nil
}

// WriteTo hides that of bytes.Reader, which knows nothing of faults.
func (b *handleBody) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{b})
}

func (b *handleBody) Close() error { return nil }

func (h *handle) Stat(ctx context.Context, key string) (objects.Object, error) {
	o := h.call(ctx, "stat", key, false, func() outcome {
		object, err := h.bucket.read(key)
		return outcome{object: object, err: err}
	})
	if o.err != nil {
		return objects.Object{}, o.err
	}
	return o.object.facts(key), nil
}

func (h *handle) Put(ctx context.Context, key string, data []byte, c objects.Condition) (string, error) {
	data = bytes.Clone(data)
	o := h.call(ctx, "put", key, true, func() outcome {
		version, err := h.bucket.put(key, data, c)
		return outcome{version: version, err: err}
	})
	return o.version, o.err
}

func (h *handle) NewWriter(ctx context.Context, key string) objects.Writer {
	return &handleWriter{h: h, ctx: ctx, key: key}
}

func (h *handle) Copy(ctx context.Context, to, from string, size int64) error {
	return h.call(ctx, "copy", to, true, func() outcome { return outcome{err: h.bucket.copy(to, from)} }).err
}

func (h *handle) Delete(ctx context.Context, key, version string) error {
	return h.call(ctx, "delete", key, true, func() outcome { return outcome{err: h.bucket.remove(key, version)} }).err
}

func (h *handle) List(ctx context.Context, q objects.ListQuery, n int) ([]objects.Object, string, error) {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok && h.happens(faultPage) && n > 1 {
		name := c.count("page", q.Prefix)
		if r := h.stream(name); r.Float64() < h.rates[faultPage] && h.note(faultPage, name, "%s: %s is short", h.name, name) {
			n = 1 + r.IntN(min(n-1, 4))
		}
	}
	o := h.call(ctx, "list", q.Prefix, false, func() outcome {
		page, next := h.bucket.list(q, n)
		return outcome{page: page, next: next}
	})
	return o.page, o.next, o.err
}

func (h *handle) SignedURL(context.Context, string, time.Duration) (string, error) {
	return "", objects.ErrUnsupported
}

func (h *handle) AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error) {
	o := h.call(ctx, "abort", prefix, true, func() outcome { return outcome{n: h.bucket.abortWriters(prefix, before)} })
	return o.n, o.err
}

func (h *handle) Conditional() bool { return true }
func (h *handle) Close() error      { return nil }

// handleWriter is a multipart upload of the double.
type handleWriter struct {
	h    *handle
	ctx  context.Context
	key  string
	id   int // 0 before the first byte
	data []byte
	done bool
}

func (w *handleWriter) Write(p []byte) (int, error) {
	if w.id == 0 {
		o := w.h.call(w.ctx, "begin", w.key, true, func() outcome { return outcome{n: w.h.bucket.beginWriter(w.key)} })
		if o.err != nil {
			return 0, o.err
		}
		w.id = o.n
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

// Close completes the object. A second attempt fails, and changes nothing.
func (w *handleWriter) Close() error {
	data := w.data
	o := w.h.call(w.ctx, "complete", w.key, true, func() outcome {
		if w.id != 0 && !w.h.bucket.endWriter(w.id) {
			return outcome{err: errors.New("simulation: no such multipart upload")}
		}
		_, err := w.h.bucket.put(w.key, data, objects.Condition{})
		return outcome{err: err}
	})
	w.done = o.err == nil
	return o.err
}

func (w *handleWriter) Abort() {
	if w.done || w.id == 0 {
		return
	}
	id := w.id
	w.h.call(context.WithoutCancel(w.ctx), "discard", w.key, true, func() outcome {
		w.h.bucket.endWriter(id)
		return outcome{}
	})
}
