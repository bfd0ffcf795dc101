// SPDX-License-Identifier: Apache-2.0

// Reading and writing objects: with a deadline on each call, and errors that
// the rest of the package understands.

package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/berth-oci/registry"
)

// errMissing says that there is no such object.
var errMissing = errors.New("bucket: no such object")

// attempts is how often something is tried that others may undo meanwhile.
const attempts = 100

// backOff waits a little, longer the more often it was tried.
func backOff(attempt int) {
	if attempt > 0 {
		time.Sleep(rand.N(time.Duration(min(attempt, 20)) * 5 * time.Millisecond))
	}
}

// failed returns what an error of the bucket is to a caller. ctx is the
// caller's own.
func (s *Store) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.provider.missing(err) {
		return errMissing
	}
	if ctx.Err() != nil { // nobody is there to be told more
		return ctx.Err()
	}
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
	switch gcerrors.Code(err) {
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return fmt.Errorf("bucket: %w", err) // to try again does not help
	}
	return registry.ErrUnavailable // alone: the text of err has hosts and keys
}

func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.opts.Timeout)
}

// get returns an object's bytes, with their version.
// Errors: errMissing.
func (s *Store) get(ctx context.Context, key string) (data []byte, version string, err error) {
	call, cancel := s.deadline(ctx)
	defer cancel()
	r, err := s.bucket.NewReader(call, s.opts.Prefix+key, nil)
	if err != nil {
		return nil, "", s.failed(ctx, err)
	}
	defer r.Close()
	b := bytes.NewBuffer(make([]byte, 0, max(r.Size(), 0)+bytes.MinRead))
	if _, err := b.ReadFrom(r); err != nil {
		return nil, "", s.failed(ctx, err)
	}
	if !s.provider.conditional() {
		return b.Bytes(), localVersion(b.Bytes()), nil
	}
	return b.Bytes(), s.provider.version(r), nil
}

// localVersion is the version of an object in a bucket that has none. What is
// moved under conditions never has the same bytes twice.
func localVersion(data []byte) string { return "=" + string(data) }

func (s *Store) exists(ctx context.Context, key string) (bool, error) {
	call, cancel := s.deadline(ctx)
	defer cancel()
	_, err := s.bucket.Attributes(call, s.opts.Prefix+key)
	switch err := s.failed(ctx, err); err {
	case nil:
		return true, nil
	case errMissing:
		return false, nil
	default:
		return false, err
	}
}

// put writes an object, whatever was there.
func (s *Store) put(ctx context.Context, key string, data []byte) error {
	if !s.provider.conditional() {
		defer lockFor(key)()
	}
	return s.failed(ctx, s.upload(ctx, key, data, blob.WriterOptions{}))
}

// create writes an object, unless there is one.
func (s *Store) create(ctx context.Context, key string, data []byte) (created bool, err error) {
	return s.swap(ctx, key, data, "")
}

// swap writes an object if the one that is there has the given version, or if
// there is none and version is "". It reports whether it has.
func (s *Store) swap(ctx context.Context, key string, data []byte, version string) (bool, error) {
	if !s.provider.conditional() {
		return s.swapLocked(ctx, key, data, version)
	}
	var opts blob.WriterOptions
	if version == "" {
		opts.IfNotExist = true
	} else {
		opts.BeforeWrite = func(as func(any) bool) error {
			s.provider.ifVersion(version, as)
			return nil
		}
	}
	for attempt := range attempts {
		backOff(attempt)
		err := s.upload(ctx, key, data, opts)
		switch {
		case err == nil:
			return true, nil
		case s.provider.refused(err):
			return false, nil
		case !s.provider.conflict(err):
			return false, s.failed(ctx, err)
		}
	}
	return false, registry.ErrUnavailable
}

func (s *Store) swapLocked(ctx context.Context, key string, data []byte, version string) (bool, error) {
	defer lockFor(key)()
	_, now, err := s.get(ctx, key)
	if err != nil && err != errMissing {
		return false, err
	}
	if now != version {
		return false, nil
	}
	return true, s.failed(ctx, s.upload(ctx, key, data, blob.WriterOptions{}))
}

// upload writes an object from memory.
func (s *Store) upload(ctx context.Context, key string, data []byte, opts blob.WriterOptions) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	opts.ContentType = contentType
	return s.bucket.Upload(ctx, s.opts.Prefix+key, bytes.NewReader(data), &opts)
}

const contentType = "application/octet-stream"

// remove deletes an object.
// Errors: errMissing.
func (s *Store) remove(ctx context.Context, key string) error {
	if !s.provider.conditional() {
		defer lockFor(key)()
	}
	call, cancel := s.deadline(ctx)
	defer cancel()
	return s.failed(ctx, s.bucket.Delete(call, s.opts.Prefix+key))
}

// discard deletes an object that GC would delete otherwise, later.
func (s *Store) discard(ctx context.Context, key string) {
	s.remove(ctx, key)
}

// copy has the provider copy an object. It says nothing meanwhile, so it gets
// more time the more there is.
// Errors: errMissing.
func (s *Store) copy(ctx context.Context, to, from string, size int64) error {
	const second = 8 << 20 // bytes
	call, cancel := context.WithTimeout(ctx, s.opts.Timeout+time.Duration(size/second)*time.Second)
	defer cancel()
	return s.failed(ctx, s.bucket.Copy(call, s.opts.Prefix+to, s.opts.Prefix+from, nil))
}

// maxCopy is the largest object that each provider copies, in bytes.
const maxCopy = 5 << 30

// The pages of a list. Who lists for a page of 100 names takes one more, and
// should not pay for a thousand.
const (
	firstPage = 128
	nextPage  = 1000
)

// object is an entry of a list.
type object struct {
	name string // the key after the prefix
	size int64
	time time.Time // when it was written
}

// list yields the objects whose keys begin with prefix, in byte order, after a
// plain name, "" for all. It asks for first of them to begin with.
func (s *Store) list(ctx context.Context, prefix, after string, first int) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		opts := &blob.ListOptions{Prefix: s.opts.Prefix + prefix}
		token := blob.FirstPageToken
		if after != "" {
			start, before := s.provider.startAfter(opts.Prefix + after)
			if start != nil {
				token = start
			}
			opts.BeforeList = before
		}
		for size := first; len(token) > 0; size = nextPage {
			page, next, err := s.page(ctx, token, size, opts)
			if err != nil {
				yield(object{}, err)
				return
			}
			token = next
			for _, o := range page {
				name := o.Key[len(opts.Prefix):]
				if after != "" && name <= after {
					continue
				}
				if !yield(object{name, o.Size, o.ModTime}, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) page(ctx context.Context, token []byte, size int, opts *blob.ListOptions) ([]*blob.ListObject, []byte, error) {
	call, cancel := s.deadline(ctx)
	defer cancel()
	page, next, err := s.bucket.ListPage(call, token, size, opts)
	if err != nil {
		if err = s.failed(ctx, err); err == errMissing { // the bucket itself
			err = registry.ErrUnavailable
		}
		return nil, nil, err
	}
	return page, next, nil
}

// patience cancels a context when one step of what uses it takes too long. The
// time between steps, when others are slow, does not count.
type patience struct {
	timer *time.Timer
	most  time.Duration
}

func newPatience(cancel context.CancelFunc, most time.Duration) patience {
	timer := time.AfterFunc(most, cancel)
	timer.Stop()
	return patience{timer, most}
}

// begin begins a step, and end ends it.
func (p patience) begin() { p.timer.Reset(p.most) }
func (p patience) end()   { p.timer.Stop() }

// writer writes a large object, in memory that is bounded.
type writer struct {
	store *Store
	ctx   context.Context
	stop  context.CancelFunc
	patience
	w *blob.Writer
}

// How large a piece is that goes to the bucket at once, in bytes, and how many
// go at the same time. An object of S3 has at most 10,000 pieces.
const (
	pieceSize = 8 << 20
	pieces    = 2
)

// write begins a large object. It is there once close has returned.
func (s *Store) write(ctx context.Context, key string) (*writer, error) {
	call, cancel := context.WithCancel(ctx)
	w := &writer{store: s, ctx: ctx, stop: cancel, patience: newPatience(cancel, s.opts.Timeout)}
	w.begin()
	defer w.end()
	var err error
	w.w, err = s.bucket.NewWriter(call, s.opts.Prefix+key, &blob.WriterOptions{
		ContentType:    contentType,
		BufferSize:     pieceSize,
		MaxConcurrency: pieces,
	})
	if err != nil {
		cancel()
		return nil, s.failed(ctx, err)
	}
	return w, nil
}

func (w *writer) Write(p []byte) (int, error) {
	w.begin()
	defer w.end()
	n, err := w.w.Write(p)
	return n, w.store.failed(w.ctx, err)
}

func (w *writer) close() error {
	w.begin()
	defer w.stop()
	defer w.end()
	return w.store.failed(w.ctx, w.w.Close())
}

// abort leaves no object.
func (w *writer) abort() {
	w.stop()
	w.w.Close()
}

var _ io.Writer = (*writer)(nil)
