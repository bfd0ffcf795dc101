// SPDX-License-Identifier: Apache-2.0

// New and its options.

package registry

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"
	"reflect"

	berth "github.com/berth-oci/registry"
)

// New returns a registry: a handler for every endpoint of the OCI
// distribution-spec, below /v2/. Without options it keeps its content in
// memory, has no referrers API, and logs each request to standard error.
func New(opts ...Option) http.Handler {
	c := config{
		log:      log.New(os.Stderr, "", log.LstdFlags),
		handler:  newHandler(&memory{}),
		warnings: make(map[float64]string),
	}
	for _, opt := range opts {
		opt(&c)
	}
	options := []berth.Option{
		berth.WithStore(newStore(c.handler)),
		berth.WithReferrersSupport(c.referrers),
		berth.ClientUploadIDs(),
		berth.AllowSparse(), // the store checks the children of an index
	}
	for prob, msg := range c.warnings {
		options = append(options, berth.WithWarning(prob, msg))
	}
	return &quirks{registry: berth.New(options...), log: c.log, referrers: c.referrers}
}

// Option is an option of New.
type Option func(*config)

type config struct {
	log       *log.Logger
	handler   handler
	referrers bool
	warnings  map[float64]string // by probability
}

// Logger logs each request to l, in one line, instead of to standard error. If l
// is nil, nothing is logged.
func Logger(l *log.Logger) Option {
	if l == nil {
		l = log.New(io.Discard, "", 0)
	}
	return func(c *config) { c.log = l }
}

// WithReferrersSupport turns the referrers API on or off. It is off by default, so
// that clients fall back to the referrers tag schema.
func WithReferrersSupport(enabled bool) Option {
	return func(c *config) { c.referrers = enabled }
}

// WithWarning adds a Warning header with the text msg to responses, with the
// probability prob from 0 to 1. It replaces an earlier warning with the same
// probability.
func WithWarning(prob float64, msg string) Option {
	return func(c *config) { c.warnings[prob] = msg }
}

// WithBlobHandler sets the handler that stores the registry's blobs: a
// [BlobHandler], or a type whose methods take go-containerregistry's v1.Hash in
// place of [Hash]. H is inferred. If h is nil, blobs are kept in memory.
func WithBlobHandler[H ~struct{ Algorithm, Hex string }](h interface {
	Get(ctx context.Context, repo string, h H) (io.ReadCloser, error)
}) Option {
	return func(c *config) {
		if v := reflect.ValueOf(h); v.IsValid() {
			c.handler = newHandler(h)
		}
	}
}
