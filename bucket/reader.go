// SPDX-License-Identifier: Apache-2.0

// Reading the data of a blob, at any offset.

package bucket

import (
	"context"
	"errors"
	"io"
	"sync"

	"gocloud.dev/blob"
)

// reader reads an object. It asks for nothing until it is read, and where the
// connection breaks it goes on at the same offset with another.
type reader struct {
	store  *Store
	ctx    context.Context
	key    string
	size   int64
	offset int64

	body *blob.Reader // nil: none is open
	at   int64        // the offset of body
	stop context.CancelFunc
	patience
}

func (s *Store) newReader(ctx context.Context, key string, size int64) *reader {
	return &reader{store: s, ctx: ctx, key: key, size: size}
}

// resumes is how often reading goes on after a connection broke without having
// given anything.
const resumes = 3

func (r *reader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.body != nil && r.at != r.offset {
		r.Close()
	}
	for attempt := 0; ; attempt++ {
		if r.body == nil {
			if err := r.open(); err != nil {
				return 0, err // the provider's client has tried again already
			}
		}
		r.begin()
		n, err := r.body.Read(p)
		r.end()
		if n > 0 {
			r.offset += int64(n)
			r.at = r.offset
			return n, nil
		}
		r.Close()
		if attempt < resumes && r.ctx.Err() == nil {
			continue
		}
		if err == nil || err == io.EOF { // before the object's end
			err = io.ErrUnexpectedEOF
		}
		return 0, r.store.failed(r.ctx, err)
	}
}

// WriteTo writes what is left, in larger pieces than io.Copy.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	buffer := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buffer[:])
}

const copyBuffer = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// open opens the object at the offset.
func (r *reader) open() error {
	call, cancel := context.WithCancel(r.ctx)
	r.stop, r.patience = cancel, newPatience(cancel, r.store.opts.Timeout)
	r.begin()
	body, err := r.store.bucket.NewRangeReader(call, r.store.opts.Prefix+r.key, r.offset, -1, nil)
	r.end()
	if err != nil {
		cancel()
		if err = r.store.failed(r.ctx, err); err == errMissing {
			// What is linked is there: this is not for a client to know.
			err = errors.New("bucket: the data of a blob is missing")
		}
		return err
	}
	r.body, r.at = body, r.offset
	return nil
}

// Seek sets the offset of the next Read. What is open is kept in case the next
// Read is where it is.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.offset
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, errors.New("bucket: invalid seek")
	}
	r.offset = offset
	return offset, nil
}

func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	r.stop() // what is on its way is not waited for
	r.body.Close()
	r.body = nil
	return nil
}
