// SPDX-License-Identifier: Apache-2.0

// BlobHandler, its extensions, and what their methods may return.

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/opencontainers/go-digest"
)

// Hash is the digest of a blob: an algorithm, as "sha256", and its value in
// hexadecimal.
//
// It is an unnamed type of the same fields as go-containerregistry's v1.Hash, so
// that a v1.Hash can be passed, assigned and compared to it without a conversion.
type Hash = struct{ Algorithm, Hex string }

// BlobHandler stores the blobs of a registry. It may implement
// [BlobStatHandler], [BlobPutHandler] and [BlobDeleteHandler] too; without the
// last two, the registry rejects pushes, or deletes, of blobs. Its methods must
// be safe for concurrent use.
type BlobHandler interface {
	// Get returns the content of a blob, ErrNotFound, or a RedirectError. If
	// the content is an io.Seeker, ranges of it are read without the rest.
	Get(ctx context.Context, repo string, h Hash) (io.ReadCloser, error)
}

// BlobStatHandler is a BlobHandler that knows the size of its blobs. The size
// of others is found by reading a blob to its end.
type BlobStatHandler interface {
	// Stat returns the size of a blob, ErrNotFound, or a RedirectError.
	Stat(ctx context.Context, repo string, h Hash) (int64, error)
}

// BlobPutHandler is a BlobHandler that blobs can be pushed to.
type BlobPutHandler interface {
	// Put stores the content of a blob. A registry calls it with content that
	// has the digest h.
	Put(ctx context.Context, repo string, h Hash, rc io.ReadCloser) error
}

// BlobDeleteHandler is a BlobHandler that blobs can be deleted from.
type BlobDeleteHandler interface {
	// Delete deletes a blob, or returns ErrNotFound.
	Delete(ctx context.Context, repo string, h Hash) error
}

// ErrNotFound is returned by a BlobHandler that does not have a blob.
var ErrNotFound = errors.New("not found")

// RedirectError is returned by a BlobHandler whose blob is to be read
// elsewhere: the registry responds with a redirect.
type RedirectError struct {
	// Location is the URL of the blob.
	Location string

	// Code is the status of the response: one of 300 to 308, else it is 307.
	Code int
}

// Error returns the location and the status.
func (e RedirectError) Error() string {
	return fmt.Sprintf("blob is at %s (status %d)", e.Location, e.Code)
}

func hashOf(d digest.Digest) Hash { return Hash{string(d.Algorithm()), d.Encoded()} }

func digestOf(h Hash) digest.Digest {
	return digest.NewDigestFromEncoded(digest.Algorithm(h.Algorithm), h.Hex)
}

// handler is the methods of a BlobHandler; nil are those that it lacks.
type handler struct {
	get    func(context.Context, string, Hash) (io.ReadCloser, error)
	stat   func(context.Context, string, Hash) (int64, error)
	put    func(context.Context, string, Hash, io.ReadCloser) error
	delete func(context.Context, string, Hash) error

	memory *memory // if it is that
}

// newHandler finds the methods of h, each by itself: a type that embeds a
// BlobHandler and adds a method of its own has some that take a Hash and some
// that take a v1.Hash.
func newHandler(h any) handler {
	v := reflect.ValueOf(h)
	m, _ := h.(*memory)
	return handler{
		get:    method[func(context.Context, string, Hash) (io.ReadCloser, error)](v.MethodByName("Get")),
		stat:   method[func(context.Context, string, Hash) (int64, error)](v.MethodByName("Stat")),
		put:    method[func(context.Context, string, Hash, io.ReadCloser) error](v.MethodByName("Put")),
		delete: method[func(context.Context, string, Hash) error](v.MethodByName("Delete")),
		memory: m,
	}
}

// method returns m as a function of type F, whose third parameter is a Hash. It
// returns nil unless m has this type, but for the name of the hash's.
func method[F any](m reflect.Value) (f F) {
	want := reflect.TypeFor[F]()
	if !m.IsValid() || m.Type().NumIn() != want.NumIn() || m.Type().NumOut() != want.NumOut() {
		return f
	}
	t := m.Type()
	for i := range want.NumIn() {
		if i != 2 && t.In(i) != want.In(i) || i == 2 && !want.In(i).ConvertibleTo(t.In(i)) {
			return f
		}
	}
	for i := range want.NumOut() {
		if t.Out(i) != want.Out(i) {
			return f
		}
	}
	return reflect.MakeFunc(want, func(args []reflect.Value) []reflect.Value {
		args[2] = args[2].Convert(t.In(2))
		return m.Call(args)
	}).Interface().(F)
}
