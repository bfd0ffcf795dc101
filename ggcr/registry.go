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
		berth.AllowSparse(), // of an index, the store checks the children
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

// Logger has each request logged to l, as a line, instead of to standard
// error. A nil l logs nothing.
func Logger(l *log.Logger) Option {
	if l == nil {
		l = log.New(io.Discard, "", 0)
	}
	return func(c *config) { c.log = l }
}

// WithReferrersSupport turns the referrers API on or off: it is off by default,
// and clients fall back to the referrers tag schema.
func WithReferrersSupport(enabled bool) Option {
	return func(c *config) { c.referrers = enabled }
}

// WithWarning adds a Warning header with the given text to responses, with the
// given probability from 0 to 1. Of several warnings with one probability, the
// last counts.
func WithWarning(prob float64, msg string) Option {
	return func(c *config) { c.warnings[prob] = msg }
}

// WithBlobHandler has the registry keep its blobs in h, a [BlobHandler] or a
// type whose methods take go-containerregistry's v1.Hash in place of [Hash]: H
// is inferred. A nil h leaves the blobs in memory.
func WithBlobHandler[H ~struct{ Algorithm, Hex string }](h interface {
	Get(ctx context.Context, repo string, h H) (io.ReadCloser, error)
}) Option {
	return func(c *config) {
		if v := reflect.ValueOf(h); v.IsValid() {
			c.handler = newHandler(h)
		}
	}
}
