// SPDX-License-Identifier: Apache-2.0

// BlobHandler, its extensions, and the errors that their methods return.

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/opencontainers/go-digest"
)

// Hash is the digest of a blob: an algorithm, such as "sha256", and a value in
// hexadecimal.
//
// It is an unnamed type with the same fields as go-containerregistry's v1.Hash,
// which can therefore be assigned to and compared with a Hash without conversion.
type Hash = struct{ Algorithm, Hex string }

// BlobHandler stores the blobs of a registry. It may implement
// [BlobStatHandler], [BlobPutHandler] and [BlobDeleteHandler] too; without one of
// the last two, the registry rejects pushes or deletes of blobs. The methods must
// be safe for concurrent use.
type BlobHandler interface {
	// Get returns the content of a blob, ErrNotFound, or a RedirectError. If
	// the content is an io.Seeker, a request for ranges reads only those.
	Get(ctx context.Context, repo string, h Hash) (io.ReadCloser, error)
}

// BlobStatHandler is a BlobHandler that knows the sizes of its blobs. Without it,
// the registry seeks or reads to the end of a blob to determine its size.
type BlobStatHandler interface {
	// Stat returns the size of a blob, ErrNotFound, or a RedirectError.
	Stat(ctx context.Context, repo string, h Hash) (int64, error)
}

// BlobPutHandler is a BlobHandler that accepts pushes.
type BlobPutHandler interface {
	// Put stores the content of a blob. The registry calls it only with content
	// whose digest is h.
	Put(ctx context.Context, repo string, h Hash, rc io.ReadCloser) error
}

// BlobDeleteHandler is a BlobHandler that supports deletes.
type BlobDeleteHandler interface {
	// Delete deletes a blob, or returns ErrNotFound.
	Delete(ctx context.Context, repo string, h Hash) error
}

// ErrNotFound is returned by a BlobHandler that does not have the blob.
var ErrNotFound = errors.New("not found")

// RedirectError is returned by a BlobHandler if clients should get the blob from
// another URL: the registry responds with a redirect.
type RedirectError struct {
	// Location is the URL of the blob.
	Location string

	// Code is the status of the response. If it is not a redirect's, 307 is
	// used.
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

// handler holds the methods of a BlobHandler; those that it lacks are nil.
type handler struct {
	get    func(context.Context, string, Hash) (io.ReadCloser, error)
	stat   func(context.Context, string, Hash) (int64, error)
	put    func(context.Context, string, Hash, io.ReadCloser) error
	delete func(context.Context, string, Hash) error

	memory *memory // nil for other handlers
}

// newHandler finds the methods of h one by one: a type that embeds a BlobHandler
// and overrides a method may have some that take a Hash and some that take a
// v1.Hash.
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
// returns nil unless m has this type, or the same with a type like Hash.
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
