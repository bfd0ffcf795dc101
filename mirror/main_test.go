// SPDX-License-Identifier: Apache-2.0

package mirror_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/mirror"
	"github.com/berth-oci/registry/registrytest"
)

// origin is an upstream whose behaviour a test can change.
type origin struct {
	store   *registry.MemStore
	journal registrytest.Journal

	mu     sync.Mutex
	fault  func(http.Handler) http.Handler // nil without one
	refuse error                           // of connections
}

func newOrigin() *origin { return &origin{store: &registry.MemStore{}} }

func (o *origin) set(fault func(http.Handler) http.Handler) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault, o.refuse = fault, nil
}

// stop makes the upstream unreachable.
func (o *origin) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse = errors.New("connection refused")
}

// ServeHTTP counts a request, and serves it.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var h http.Handler = registry.New(registry.WithStore(o.store))
	o.mu.Lock()
	if o.fault != nil {
		h = o.fault(h)
	}
	o.mu.Unlock()
	o.journal.Handler(h).ServeHTTP(w, r)
}

// RoundTrip sends a request to the upstream without a network.
func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	o.mu.Lock()
	refuse := o.refuse
	o.mu.Unlock()
	if refuse != nil {
		return nil, refuse
	}
	return registrytest.Transport(o).RoundTrip(r)
}

// calls returns the number of requests so far.
func (o *origin) calls() int { return len(o.journal.Entries()) }

// push pushes a blob, and a manifest with a tag that names it.
func (o *origin) push(t testing.TB, repo, tag, text string) (manifest, blob digest.Digest) {
	t.Helper()
	descriptors, err := registrytest.PushContent(t.Context(), o.store, repo, registrytest.Content{
		Blobs:     map[string]string{"config": "{}", "layer": text},
		Manifests: map[string]registrytest.Manifest{"image": {Config: "config", Layers: []string{"layer"}}},
		Tags:      map[string]string{tag: "image"},
	})
	qt.Assert(t, qt.IsNil(err))
	return descriptors["image"].Digest, descriptors["layer"].Digest
}

// client sends requests to a mirror.
type client struct {
	t testing.TB
	http.Client
	mirror *mirror.Mirror
}

// newClient returns a client of a mirror of o, which is docker.io and the default.
func newClient(t testing.TB, o *origin, s registry.Store, change func(*mirror.Options)) *client {
	t.Helper()
	opts := mirror.Options{
		Upstreams: []mirror.Upstream{{Name: "docker.io", URL: "http://registry-1.docker.test", TTL: -1}},
		Transport: o,
		Timeout:   10 * time.Second,
	}
	if change != nil {
		change(&opts)
	}
	m, err := mirror.New(s, opts)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { m.Close() })
	c := &client{t: t, mirror: m}
	c.Transport = registrytest.Transport(m.Handler(registry.New(registry.WithStore(m))))
	return c
}

type response struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

// code returns the code of the error in the response, or "".
func (r response) code() string {
	_, rest, _ := strings.Cut(r.body, `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}

// do sends a request; the header is "Name: value", or empty.
func (c *client) do(method, path, header, body string) response {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://mirror.test"+path, strings.NewReader(body))
	qt.Assert(c.t, qt.IsNil(err))
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	qt.Assert(c.t, qt.IsNil(err))
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, string(content), err}
}

func (c *client) get(path string) response {
	c.t.Helper()
	return c.do(http.MethodGet, path, "", "")
}

// jsonOf returns a JSON document as a Go value.
func jsonOf(t testing.TB, text string) (doc any) {
	t.Helper()
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(text), &doc)))
	return doc
}

// login returns the credentials of a user for all hosts.
func login(user, password string) auth.CredentialFunc {
	return func(context.Context, string) (auth.Credential, error) {
		return auth.Credential{Username: user, Password: password}, nil
	}
}
