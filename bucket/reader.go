// SPDX-License-Identifier: Apache-2.0

// Reading the data of a blob, from any offset.

package bucket

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/bucket/internal/objects"
)

// reader reads an object. It makes no call until it is read. If a connection
// breaks, it continues at the same offset with a new one.
type reader struct {
	store  *Store
	ctx    context.Context
	key    string
	size   int64
	offset int64

	body       *objects.Reader // nil: none is open
	bodyOffset int64
	cancel     context.CancelFunc
	stepTimer

	digest    digest.Digest     // of the object, "" if it is not verified
	hash      hash.Hash         // of the first hashed bytes
	isRight   func([]byte) bool // whether a hash is that of the object
	hashed    int64
	onCorrupt func()
	mayVanish bool // if the object does not exist, the error is errNotFound
}

// verify makes the reader compare the bytes with a CRC-32C or, if that is not known,
// with a digest, which takes ten times as long, if they are read from the first to the
// last. If they differ, it calls a function, and the last bytes are not read.
func (r *reader) verify(d digest.Digest, crc *uint32, onCorrupt func()) {
	switch {
	case crc != nil:
		r.hash = crc32.New(castagnoli)
		r.isRight = func(sum []byte) bool { return binary.BigEndian.Uint32(sum) == *crc }
	case d.Algorithm().Available(): // or else no client can request it
		r.hash = d.Algorithm().Hash()
		r.isRight = func(sum []byte) bool { return hex.EncodeToString(sum) == d.Encoded() }
	}
	r.digest, r.onCorrupt = d, onCorrupt
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check hashes bytes that were read.
func (r *reader) check(p []byte) error {
	if r.hash == nil || r.offset != r.hashed {
		return nil
	}
	r.hash.Write(p)
	r.hashed += int64(len(p))
	if r.hashed < r.size || r.isRight(r.hash.Sum(nil)) {
		return nil
	}
	return r.corrupt()
}

func (s *Store) newReader(ctx context.Context, key string, size int64) *reader {
	return &reader{store: s, ctx: ctx, key: key, size: size}
}

// errDamaged means that data does not have the digest of its blob.
var errDamaged = errors.New("its bytes do not have its digest")

// verifyData reads data, which may be deleted meanwhile, and hashes it.
// Errors: errNotFound, errDamaged.
func (s *Store) verifyData(ctx context.Context, d digest.Digest, data string, size int64) error {
	if !d.Algorithm().Available() {
		return nil // no client can request it
	}
	r := s.newReader(ctx, dataKey(d, data), size)
	r.mayVanish = true
	defer r.Close()
	h := d.Algorithm().Hash()
	if _, err := r.WriteTo(h); err != nil {
		if errors.Is(err, errCorrupt) { // it has another size
			return errDamaged
		}
		return err
	}
	if digest.NewDigest(d.Algorithm(), h) != d {
		return errDamaged
	}
	return nil
}

// maxResumes is how many times one Read opens a new connection because the last
// one broke without delivering a byte.
const maxResumes = 3

func (r *reader) Read(p []byte) (int, error) {
	if r.offset >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	for attempt := 0; ; attempt++ {
		if err := r.connect(); err != nil {
			return 0, err
		}
		r.beginStep()
		n, err := r.body.Read(p)
		r.endStep()
		if n > 0 {
			if err := r.check(p[:n]); err != nil {
				return 0, err
			}
			r.offset += int64(n)
			r.bodyOffset = r.offset
			return n, nil
		}
		r.Close()
		if attempt < maxResumes && r.ctx.Err() == nil {
			continue
		}
		if err == nil || err == io.EOF { // before the object's end
			err = io.ErrUnexpectedEOF
		}
		return 0, r.store.storeError(r.ctx, err)
	}
}

// Prepare opens the object at the offset, so that its absence is an error before a
// response has begun. It does nothing at the end of the object.
func (r *reader) Prepare() error {
	if r.offset >= r.size {
		return nil
	}
	return r.connect()
}

// connect opens the object at the offset, unless it is open there.
func (r *reader) connect() error {
	if r.body != nil && r.bodyOffset != r.offset {
		r.Close()
	}
	for attempt := 0; r.body == nil; attempt++ {
		err := r.open()
		if err == nil {
			break
		}
		if !isFinal(err) && attempt < maxResumes && r.ctx.Err() == nil {
			backOff(attempt + 1)
			continue
		}
		if errors.Is(err, objects.ErrOffset) {
			return r.corrupt()
		}
		if err = r.store.storeError(r.ctx, err); err == errNotFound && !r.mayVanish {
			// A link names this data, so it should exist.
			if r.onCorrupt != nil {
				r.onCorrupt()
			}
			err = r.store.corrupt(errMissing, "", r.digest)
		}
		return err
	}
	if r.body.Size == r.size {
		return nil
	}
	r.Close()
	return r.corrupt() // it has another size
}

// corrupt returns an error for an object that is not the one expected.
func (r *reader) corrupt() error {
	if r.onCorrupt != nil {
		r.onCorrupt()
	}
	return r.store.corrupt(errMalformed, "", r.digest)
}

// WriteTo writes the rest of the object, in larger pieces than io.Copy would.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	buffer := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, buffer[:])
}

const copyBufferSize = 256 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

// open opens the object at the offset.
func (r *reader) open() error {
	call, cancel := context.WithCancel(r.ctx)
	r.cancel, r.stepTimer = cancel, newStepTimer(cancel, 3*r.store.opts.Timeout)
	r.beginStep()
	body, err := r.store.bucket.Get(call, r.store.opts.Prefix+r.key, r.offset, -1)
	r.endStep()
	if err != nil {
		cancel()
		return err
	}
	r.body, r.bodyOffset = body, r.offset
	return nil
}

// Seek sets the offset of the next Read. It keeps the connection open, in case
// the next Read continues at the same offset after all.
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
	r.cancel() // don't wait for bytes in transit
	r.body.Close()
	r.body = nil
	return nil
}
