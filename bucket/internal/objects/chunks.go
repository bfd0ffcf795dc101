// SPDX-License-Identifier: Apache-2.0

// Writing large objects in chunks, of which one is filled while another is sent.

package objects

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// chunkSize is the size of a chunk. A Writer fills one chunk while it sends
	// another.
	chunkSize = WriterMemory / 2

	// partAttempts is how often a chunk is sent at most. That can do no harm: it
	// has the same place and the same bytes each time.
	partAttempts = 3
)

// chunks are buffers for writers.
var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// chunkWriter is the part of a Writer that knows nothing of a provider.
type chunkWriter struct {
	ctx    context.Context
	cancel context.CancelFunc
	err    error // why the writer can't continue

	chunk *[chunkSize]byte // being filled; nil if it is empty
	n     int              // how much of it is full

	// sending is the result of the goroutine that sends a chunk; nil if there is
	// none.
	sending chan error
}

func newChunkWriter(ctx context.Context) chunkWriter {
	ctx, cancel := context.WithCancel(ctx)
	return chunkWriter{ctx: ctx, cancel: cancel}
}

// fill appends bytes to the chunk, and returns how many it has taken. If the chunk is
// full it calls flush before: more follows, or the object could be written in one piece.
func (w *chunkWriter) fill(p []byte, flush func() error) (written int, err error) {
	for len(p) > 0 {
		if w.err != nil {
			return written, w.err
		}
		if w.n == chunkSize {
			w.err = flush()
			continue
		}
		if w.chunk == nil {
			w.chunk = chunks.Get().(*[chunkSize]byte)
		}
		n := copy(w.chunk[w.n:], p)
		p = p[n:]
		w.n += n
		written += n
	}
	return written, w.err
}

// filled returns the bytes of the chunk.
func (w *chunkWriter) filled() []byte {
	if w.chunk == nil {
		return nil
	}
	return w.chunk[:w.n]
}

// start begins to send the chunk in a goroutine. The one before it must have been sent:
// see wait.
func (w *chunkWriter) start(send func(chunk *[chunkSize]byte, n int) error) {
	chunk, n := w.chunk, w.n
	w.chunk, w.n = nil, 0
	done := make(chan error, 1)
	w.sending = done
	go func() { done <- send(chunk, n) }()
}

// wait waits until the chunk has been sent.
func (w *chunkWriter) wait() error {
	if w.sending == nil {
		return w.ctx.Err()
	}
	select {
	case err := <-w.sending:
		w.sending = nil
		return err
	case <-w.ctx.Done(): // the goroutine ends soon; stop waits for it
		return w.ctx.Err()
	}
}

// backOff waits after a failed attempt. It returns false if the context ends.
func (w *chunkWriter) backOff(attempt int) bool {
	t := time.NewTimer(time.Duration(attempt)*100*time.Millisecond + rand.N(100*time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// close calls finish, which completes the object, and if anything has failed, abort.
func (w *chunkWriter) close(finish func() error, abort func()) error {
	if w.err == nil {
		w.err = finish()
	}
	if w.err != nil {
		abort()
		return w.err
	}
	w.cancel()
	w.err = errClosed
	return nil
}

// stop ends the writer. It reports false if the object is complete.
func (w *chunkWriter) stop() bool {
	if w.err == errClosed {
		return false
	}
	if w.err == nil {
		w.err = errAborted
	}
	w.cancel()
	if w.sending != nil {
		<-w.sending
		w.sending = nil
	}
	if w.chunk != nil {
		chunks.Put(w.chunk)
		w.chunk = nil
	}
	return true
}
