// SPDX-License-Identifier: Apache-2.0

// Calls to the bucket: deadlines, retries of those that do no harm, and errors that
// the rest of the package understands.

package bucket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket/internal/objects"
)

// errNotFound means that an object does not exist.
var errNotFound = errors.New("bucket: no such object")

// maxTries bounds the attempts at a call, and maxAttempts those at an operation
// that others may undo meanwhile.
const (
	maxTries    = 4
	maxAttempts = 100
)

// backOff waits before an attempt: not at all before the first, and longer before
// later ones.
func backOff(attempt int) {
	if attempt > 0 {
		time.Sleep(rand.N(time.Duration(min(attempt, 20)) * 10 * time.Millisecond))
	}
}

var (
	errMalformed = errors.New("bucket: malformed object")
	errMissing   = errors.New("bucket: the data of a blob is missing")

	// errCorrupt means that the bucket has lost or changed content. Clients get no
	// details.
	errCorrupt = errors.New("bucket: the bucket's content is damaged")
)

// corrupt converts errMalformed and errMissing to errCorrupt, and reports them.
func (s *Store) corrupt(err error, repo string, d digest.Digest) error {
	if err != errMalformed && err != errMissing {
		return err
	}
	err = fmt.Errorf("%w: %s %s", errCorrupt, repo, d)
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
	return err
}

// isFinal reports whether another attempt at a call would have the same result.
func isFinal(err error) bool {
	return err == nil || errors.Is(err, objects.ErrNotExist) || errors.Is(err, objects.ErrOffset) || errors.Is(err, objects.ErrCondition) || errors.Is(err, objects.ErrRejected) || errors.Is(err, objects.ErrFull) || errors.Is(err, objects.ErrUnsupported)
}

// try makes a call, and repeats it if it fails: the call must do no harm if it
// takes effect twice, or late. It gives up when the store's timeout is over, half
// of which one attempt may take.
func (s *Store) try(ctx context.Context, call func(context.Context) error) error {
	return s.storeError(ctx, s.attempt(ctx, call))
}

// attempt is try with the bucket's own error.
func (s *Store) attempt(ctx context.Context, call func(context.Context) error) error {
	all, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err := all.Err()
	for attempt := 0; attempt < maxTries && all.Err() == nil; attempt++ {
		backOff(attempt)
		if err = s.once(all, call); isFinal(err) {
			break
		}
	}
	return err
}

// once makes one attempt at a call.
func (s *Store) once(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout/2)
	defer cancel()
	return call(ctx)
}

// storeError converts an error of the bucket for callers of the store. ctx is the
// caller's own, without the deadline of the call.
func (s *Store) storeError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, objects.ErrNotExist):
		return errNotFound
	case ctx.Err() != nil: // the caller has gone away: not a failure of the bucket
		return ctx.Err()
	}
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
	if errors.Is(err, objects.ErrFull) {
		return fmt.Errorf("%w: the bucket's disk is full", registry.ErrTooLarge)
	}
	if errors.Is(err, objects.ErrRejected) {
		return fmt.Errorf("bucket: %w", err)
	}
	return registry.ErrUnavailable // does not wrap err, whose text contains hosts and keys
}

// get reads an object.
// Errors: errNotFound.
func (s *Store) get(ctx context.Context, key string) (data []byte, o objects.Object, err error) {
	return s.getStart(ctx, key, -1)
}

// getStart reads the first n bytes of an object, or all of it if n is -1.
// Errors: errNotFound.
func (s *Store) getStart(ctx context.Context, key string, n int64) (data []byte, o objects.Object, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		r, err := s.bucket.Get(ctx, s.opts.Prefix+key, 0, n)
		if err != nil {
			return err
		}
		defer r.Close()
		size := r.Size
		if n >= 0 {
			size = min(size, n)
		}
		return s.reads.read(ctx, size, func() error {
			b := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
			if _, err := b.ReadFrom(r); err != nil {
				return err
			}
			if int64(b.Len()) != size {
				return io.ErrUnexpectedEOF
			}
			data, o = b.Bytes(), r.Object
			return nil
		})
	})
	return data, o, err
}

// stat returns the facts about an object.
// Errors: errNotFound.
func (s *Store) stat(ctx context.Context, key string) (o objects.Object, err error) {
	err = s.try(ctx, func(ctx context.Context) error {
		o, err = s.bucket.Stat(ctx, s.opts.Prefix+key)
		return err
	})
	return o, err
}

// exists reports whether an object exists.
func (s *Store) exists(ctx context.Context, key string) (bool, error) {
	_, err := s.stat(ctx, key)
	if err == errNotFound {
		return false, nil
	}
	return err == nil, err
}

// put writes an object that no other writer gives another content, now or later.
func (s *Store) put(ctx context.Context, key string, data []byte) error {
	return s.try(ctx, func(ctx context.Context) error {
		_, err := s.bucket.Put(ctx, s.opts.Prefix+key, data, objects.Condition{})
		return err
	})
}

// remove deletes an object, if it exists, whose key is never used again: the call
// may take effect late.
func (s *Store) remove(ctx context.Context, key string) error {
	return s.try(ctx, func(ctx context.Context) error {
		return s.bucket.Delete(ctx, s.opts.Prefix+key, "")
	})
}

// copy makes the provider copy an object to a key that is never used again. The
// provider reports no progress, so the deadline grows with the object's size.
// Errors: errNotFound.
func (s *Store) copy(ctx context.Context, to, from string, size int64) error {
	const bytesPerSecond = 8 << 20
	call, cancel := context.WithTimeout(ctx, s.opts.Timeout+time.Duration(size/bytesPerSecond)*time.Second)
	defer cancel()
	err := call.Err()
	for attempt := 0; attempt < maxTries && call.Err() == nil; attempt++ {
		backOff(attempt)
		if err = s.bucket.Copy(call, s.opts.Prefix+to, s.opts.Prefix+from, size); isFinal(err) {
			break
		}
	}
	return s.storeError(ctx, err)
}

// maxCopy is the size in bytes of the largest object that every provider can
// copy.
const maxCopy = 5 << 30

// atOnce calls functions, all at once, and returns the first error in their order.
func atOnce(functions ...func() error) error {
	return each(functions, func(f func() error) error { return f() })
}

// marshal is json.Marshal without escaping for HTML, which can make strings six
// times as large.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// maxParallel is the number of calls that each makes at once.
const maxParallel = 16

// each calls a function for each element, several at once, and returns the first
// error in their order. After an error it calls no more.
func each[T any](elements []T, f func(T) error) error {
	if len(elements) == 1 {
		return f(elements[0])
	}
	errs := make([]error, len(elements))
	var (
		wg     sync.WaitGroup
		failed atomic.Bool
		slots  = make(chan struct{}, maxParallel)
	)
	for i, e := range elements {
		slots <- struct{}{}
		if failed.Load() {
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if errs[i] = f(e); errs[i] != nil {
				failed.Store(true)
			}
			<-slots
		}()
	}
	wg.Wait()
	return cmp.Or(errs...)
}
