// SPDX-License-Identifier: Apache-2.0

// Package objects is what a store needs of object storage: one small interface,
// and its implementations. None of them repeats a Put or a Delete: only the store
// knows whether a second attempt would do harm.
package objects

import (
	"context"
	"errors"
	"io"
	"time"
)

// The errors of a Bucket that mean something to the store. Any other error means
// that the outcome is unknown: a write may have taken effect, or may do so later.
var (
	// ErrNotExist means that there is no such object.
	ErrNotExist = errors.New("objects: no such object")

	// ErrCondition means that the condition of a write does not hold, and that
	// the write has changed nothing. If the implementation or the network has
	// sent the write twice, the first may have succeeded nevertheless.
	ErrCondition = errors.New("objects: the condition does not hold")

	// ErrRejected means that the request can't succeed: the credentials or the
	// bucket are wrong. Errors wrap it.
	ErrRejected = errors.New("objects: request rejected")

	// ErrFull means that the bucket has no room for what a request writes, which
	// has changed nothing. Errors wrap it.
	ErrFull = errors.New("objects: the bucket is full")

	// ErrOffset means that there is nothing to read at an offset.
	ErrOffset = errors.New("objects: the offset is not in the object")

	// ErrUnsupported means that the bucket can't do it.
	ErrUnsupported = errors.New("objects: not supported")
)

// Bucket is a bucket of object storage. Reads and lists see each write that was
// acknowledged before they began. It is safe for concurrent use.
type Bucket interface {
	// Get opens an object, and reads n bytes of it from an offset on: all the
	// rest if n is -1. An offset at the object's end, other than 0, is an error.
	// Errors: ErrNotExist, ErrOffset.
	Get(ctx context.Context, key string, offset, n int64) (*Reader, error)

	// Stat returns the facts about an object.
	// Errors: ErrNotExist.
	Stat(ctx context.Context, key string) (Object, error)

	// Put writes an object in one piece if the condition holds. It returns the
	// object's version, "" if the bucket doesn't tell it. If c has a version, data
	// must not be changed any more: a write may go on after ctx is done.
	// Errors: ErrCondition.
	Put(ctx context.Context, key string, data []byte, c Condition) (version string, err error)

	// NewWriter begins to write an object in bounded memory, WriterMemory at
	// most. The object exists once Close has returned nil. No other object may
	// have the same key, before or after: so the writer repeats requests.
	NewWriter(ctx context.Context, key string) Writer

	// Copy copies an object, without its bytes passing through this process. It
	// replaces what the key to had named before.
	// Errors: ErrNotExist.
	Copy(ctx context.Context, to, from string, size int64) error

	// Delete deletes an object, if it exists. If version is not "" and the
	// bucket has conditional deletes, only that version is deleted; buckets differ
	// in whether that is an error if there is no object at all.
	// Errors: ErrCondition.
	Delete(ctx context.Context, key, version string) error

	// List returns a page of up to n objects, in byte order, without their
	// versions, and the token of the next page, "" for none.
	List(ctx context.Context, q ListQuery, n int) (page []Object, next string, err error)

	// SignedURL returns a URL that anybody can read the object with until it
	// expires.
	// Errors: ErrUnsupported.
	SignedURL(ctx context.Context, key string, expires time.Duration) (string, error)

	// AbortWriters discards the unfinished objects of writers that began before
	// a time, by the bucket's clock, and stopped with their process. It returns
	// how many there were.
	AbortWriters(ctx context.Context, prefix string, before time.Time) (int, error)

	// Conditional reports whether the bucket has conditional writes that hold
	// between processes.
	Conditional() bool

	Close() error
}

// Object is an object in a bucket.
type Object struct {
	Key     string
	Size    int64
	Time    time.Time // when it was last written, by the bucket's clock, to the second or better
	Version string    // another one after each write of other bytes
}

// Reader reads an object.
type Reader struct {
	io.ReadCloser
	Object // all of it, even if only a part is read
}

// Writer writes a large object in bounded memory. The caller must call Close or
// Abort.
type Writer interface {
	io.Writer

	// Close completes the object.
	Close() error

	// Abort discards the object, even if the writer's context was cancelled. It
	// does nothing after Close has returned nil.
	Abort()
}

// WriterMemory is the number of bytes that a Writer may hold.
const WriterMemory = 16 << 20

// Condition is the condition of a write. The zero Condition always holds.
type Condition struct {
	Absent  bool   // there is no such object
	Version string // the object has this version
}

// ListQuery describes a list.
type ListQuery struct {
	Prefix string
	After  string // an entire key: the list contains later ones only; "" for all
	Token  string // of a page; "" for the first
}
