// SPDX-License-Identifier: Apache-2.0

// Small objects: calls with a deadline, and errors that the rest of the package
// understands.

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/berth-oci/registry"
)

// marshal is json.Marshal without escaping for HTML, which can make strings six
// times as large.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// errNotFound means that an object does not exist.
var errNotFound = errors.New("bucket: no such object")

// maxAttempts bounds the attempts at an operation that others may undo meanwhile.
const maxAttempts = 100

// backOff waits before an attempt: not at all before the first, and longer before
// later ones.
func backOff(attempt int) {
	if attempt > 0 {
		time.Sleep(rand.N(time.Duration(min(attempt, 20)) * 5 * time.Millisecond))
	}
}

// storeError converts an error of the bucket for callers of the store. ctx is the
// caller's own, without the deadline of the call.
func (s *Store) storeError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.provider.isNotFound(err) {
		return errNotFound
	}
	if ctx.Err() != nil { // the caller has gone away: not a failure of the bucket
		return ctx.Err()
	}
	if s.opts.OnError != nil {
		s.opts.OnError(err)
	}
	switch gcerrors.Code(err) {
	case gcerrors.PermissionDenied, gcerrors.InvalidArgument, gcerrors.Unimplemented:
		return fmt.Errorf("bucket: %w", err) // retrying does not help
	}
	return registry.ErrUnavailable // does not wrap err, whose text contains hosts and keys
}

func (s *Store) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.opts.Timeout)
}

// content is the result of reading an object.
type content struct {
	data    []byte
	version string    // only if data is all of the object
	size    int64     // of the entire object
	time    time.Time // when the object was last written
}

// get reads an object.
// Errors: errNotFound.
func (s *Store) get(ctx context.Context, key string) (content, error) {
	return s.getStart(ctx, key, -1)
}

// getStart reads the first n bytes of an object, or all of it if n is -1.
// Errors: errNotFound.
func (s *Store) getStart(ctx context.Context, key string, n int64) (content, error) {
	call, cancel := s.withTimeout(ctx)
	defer cancel()
	r, err := s.bucket.NewRangeReader(call, s.opts.Prefix+key, 0, n, nil)
	if err != nil {
		return content{}, s.storeError(ctx, err)
	}
	defer r.Close()
	c := content{size: r.Size(), time: r.ModTime()}
	if n < 0 || n > c.size {
		n = max(c.size, 0)
	}
	b := bytes.NewBuffer(make([]byte, 0, n+bytes.MinRead))
	if _, err := b.ReadFrom(r); err != nil {
		return content{}, s.storeError(ctx, err)
	}
	c.data = b.Bytes()
	if s.provider.conditional() {
		c.version = s.provider.version(r)
	} else {
		c.version = localVersion(c.data)
	}
	return c, nil
}

// localVersion returns the version of an object in a bucket without versions.
// Objects that are written conditionally never have the same bytes twice, except
// for manifests, for which only the bytes matter.
func localVersion(data []byte) string { return "=" + string(data) }

func (s *Store) exists(ctx context.Context, key string) (bool, error) {
	call, cancel := s.withTimeout(ctx)
	defer cancel()
	_, err := s.bucket.Attributes(call, s.opts.Prefix+key)
	switch err := s.storeError(ctx, err); err {
	case nil:
		return true, nil
	case errNotFound:
		return false, nil
	default:
		return false, err
	}
}

// put writes an object, and replaces an existing one.
func (s *Store) put(ctx context.Context, key string, data []byte) error {
	if !s.provider.conditional() {
		defer lockFor(key)()
	}
	return s.storeError(ctx, s.upload(ctx, key, data, blob.WriterOptions{}))
}

// create writes an object unless it exists.
func (s *Store) create(ctx context.Context, key string, data []byte) (created bool, err error) {
	return s.swap(ctx, key, data, "")
}

// swap writes an object if the existing one has the given version or, for the
// version "", if there is none. It reports whether it wrote the object.
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
	for attempt := range maxAttempts {
		backOff(attempt)
		err := s.upload(ctx, key, data, opts)
		switch {
		case err == nil:
			return true, nil
		case s.provider.isConditionFailed(err):
			return false, nil
		case !s.provider.isConflict(err):
			return false, s.storeError(ctx, err)
		}
	}
	return false, registry.ErrUnavailable
}

// swapLocked is swap for a bucket without conditional writes.
func (s *Store) swapLocked(ctx context.Context, key string, data []byte, version string) (bool, error) {
	defer lockFor(key)()
	current, err := s.get(ctx, key)
	if err != nil && err != errNotFound {
		return false, err
	}
	if current.version != version {
		return false, nil
	}
	return true, s.storeError(ctx, s.upload(ctx, key, data, blob.WriterOptions{}))
}

// upload writes an object from memory.
func (s *Store) upload(ctx context.Context, key string, data []byte, opts blob.WriterOptions) error {
	ctx, cancel := s.withTimeout(ctx)
	defer cancel()
	opts.ContentType = contentType
	return s.bucket.Upload(ctx, s.opts.Prefix+key, bytes.NewReader(data), &opts)
}

const contentType = "application/octet-stream"

// remove deletes an object.
// Errors: errNotFound.
func (s *Store) remove(ctx context.Context, key string) error {
	if !s.provider.conditional() {
		defer lockFor(key)()
	}
	call, cancel := s.withTimeout(ctx)
	defer cancel()
	return s.storeError(ctx, s.bucket.Delete(call, s.opts.Prefix+key))
}

// removeIfExists deletes an object, if it exists.
func (s *Store) removeIfExists(ctx context.Context, key string) error {
	if err := s.remove(ctx, key); err != errNotFound {
		return err
	}
	return nil
}

// tryRemove deletes an object. If that fails, GC deletes the object later.
func (s *Store) tryRemove(ctx context.Context, key string) {
	s.remove(ctx, key)
}

// copy makes the provider copy an object. The provider reports no progress, so
// the deadline grows with the object's size.
// Errors: errNotFound.
func (s *Store) copy(ctx context.Context, to, from string, size int64) error {
	const bytesPerSecond = 8 << 20
	call, cancel := context.WithTimeout(ctx, s.opts.Timeout+time.Duration(size/bytesPerSecond)*time.Second)
	defer cancel()
	return s.storeError(ctx, s.bucket.Copy(call, s.opts.Prefix+to, s.opts.Prefix+from, nil))
}

// maxCopy is the size in bytes of the largest object that every provider can
// copy.
const maxCopy = 5 << 30
