// SPDX-License-Identifier: Apache-2.0

// The memory that uploads in progress may hold.

package bucket

import (
	"context"
	"net/http"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// defaultMemory is the default of Options.Memory.
const defaultMemory = 256 << 20

// memory is a share of the memory for uploads.
type memory struct{ *semaphore.Weighted }

// divideMemory returns the shares of the leases' buffers, of the writers that leases
// with many bytes have as well, and of large objects that are read. Several shares,
// because a lease that holds a buffer waits for a writer: no lease that has a writer
// waits for anything, and nobody who reads does.
func divideMemory(total int64) (buffers, writers memory, reads share) {
	forWriters := max(total*3/4, objects.WriterMemory)
	forReads := max(total/8, minReads)
	return memory{semaphore.NewWeighted(max(total-forWriters, maxBuffer))}, memory{semaphore.NewWeighted(forWriters)}, share{semaphore.NewWeighted(forReads), forReads}
}

// minReads is the least share of large objects that are read.
const minReads = 8 << 20

// share is the memory of objects while they are read: callers account for what they
// get.
type share struct {
	*semaphore.Weighted
	size int64
}

// read calls a function that takes n bytes, when they are free. Small objects need not
// wait.
func (s share) read(ctx context.Context, n int64, f func() error) error {
	const small = 64 << 10
	if n <= small {
		return f()
	}
	n = min(n, s.size)
	if err := s.Acquire(ctx, n); err != nil {
		return err
	}
	defer s.Release(n)
	return f()
}

var errBusy = &registry.Error{
	Status:     http.StatusTooManyRequests,
	Code:       "TOOMANYREQUESTS",
	Message:    "too many uploads in progress: their memory is in use",
	RetryAfter: 10 * time.Second,
}

// reserve waits until n bytes of a share are free.
// Errors: errBusy, ErrBlobUploadUnknown if the session was ended meanwhile.
func (l *lease) reserve(m *memory, n int64) error {
	if m.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithTimeout(l.writeCtx, 3*l.store.opts.Timeout)
	defer cancel()
	if m.Acquire(ctx, n) == nil {
		return nil
	}
	if l.writeCtx.Err() != nil {
		return registry.ErrBlobUploadUnknown
	}
	return errBusy
}

// releaseBuffer frees the buffer. It must be called with data held.
func (l *lease) releaseBuffer() {
	l.store.buffers.Release(l.reserved)
	l.buf, l.reserved = nil, 0
}

// releaseWriter gives back the memory of the writer. It must be called with data
// held, or by the holder of a lease whose session has ended.
func (l *lease) releaseWriter() {
	if l.writing {
		l.store.writers.Release(objects.WriterMemory)
		l.writing = false
	}
}
