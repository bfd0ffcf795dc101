// SPDX-License-Identifier: Apache-2.0

// The copy of blobs, and the references in manifests.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
)

// blob copies a blob, unless it exists.
func (r *repoCopy) blob(ctx context.Context, p pair) error {
	what := "blob " + p.Digest.String()
	switch {
	case p.exists:
		r.count(&r.copier.exists.blobs)
		return r.tolerate(what, p.checkSize())
	case r.dryRun:
		r.todo.blobs.Add(1)
		r.todoBytes.Add(p.Size)
		return nil
	}
	place, err := r.places.claim(ctx, p.Digest)
	if err != nil {
		return err
	}
	if !r.mount(ctx, p.Digest, place) {
		var copied bool
		if copied, err = r.pushBlob(ctx, p.Digest); !copied {
			r.places.release(p.Digest, "")
			return r.tolerate(what, err)
		}
	}
	r.places.release(p.Digest, r.name)
	r.copied.blobs.Add(1)
	r.succeed()
	return nil
}

// mount makes a blob of another repository of the destination readable in this
// one: of the repository place, unless it is "", or of any other.
func (r *repoCopy) mount(ctx context.Context, d digest.Digest, place string) bool {
	if place != "" && r.to.MountBlob(ctx, r.name, place, d) == nil {
		return true
	}
	for place, err := range r.to.FindBlob(ctx, d) {
		return err == nil && r.to.MountBlob(ctx, r.name, place, d) == nil
	}
	return false
}

// pushBlob copies the content of a blob, unless it was deleted meanwhile.
func (r *repoCopy) pushBlob(ctx context.Context, d digest.Digest) (copied bool, err error) {
	content, err := r.from.OpenBlob(ctx, r.name, d)
	if isUnknown(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer content.Close()
	source := &sourceReader{ctx: ctx, r: content, n: &r.bytes}
	err = registry.PushBlob(ctx, r.to, r.name, d, source)
	switch {
	case err == nil:
		return true, nil
	case source.err != nil:
		return false, source.err
	case errors.Is(err, registry.ErrDigestInvalid):
		return false, fmt.Errorf("corrupt in the source: %w", err)
	case errors.Is(err, registry.ErrNameInvalid):
		return false, err
	}
	return false, inDestination(err)
}

// sourceReader counts bytes, keeps an error other than io.EOF, and ends with ctx.
type sourceReader struct {
	ctx context.Context
	r   io.Reader
	n   *atomic.Int64
	err error
}

func (r *sourceReader) Read(p []byte) (n int, err error) {
	if err = r.ctx.Err(); err == nil {
		n, err = r.r.Read(p)
	}
	r.n.Add(int64(n))
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

// places know where blobs are in the destination, so that each is copied only
// once, even if several repositories have it.
type places struct {
	mu    sync.Mutex                      // guards the fields below
	known map[digest.Digest]string        // the repositories of some blobs
	busy  map[digest.Digest]chan struct{} // blobs that are being copied
}

// maxPlaces is the number of places that are kept, to bound memory. The
// destination finds other blobs itself, more slowly.
const maxPlaces = 100_000

// claim waits until no other job copies the blob, and returns a repository that
// has it, or "". The caller must call release.
func (p *places) claim(ctx context.Context, d digest.Digest) (repo string, err error) {
	for {
		p.mu.Lock()
		busy := p.busy[d]
		if busy == nil {
			break
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer p.mu.Unlock()
	if p.busy == nil {
		p.busy = make(map[digest.Digest]chan struct{})
		p.known = make(map[digest.Digest]string)
	}
	p.busy[d] = make(chan struct{})
	return p.known[d], nil
}

// release ends a claim. Unless it is "", the repository has the blob.
func (p *places) release(d digest.Digest, repo string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.busy[d])
	delete(p.busy, d)
	if repo == "" {
		return
	}
	for other := range p.known {
		if len(p.known) < maxPlaces {
			break
		}
		delete(p.known, other)
	}
	p.known[d] = repo
}

// names are the manifests that a manifest names.
type names struct {
	Manifests []struct{ Digest digest.Digest }
	Subject   struct{ Digest digest.Digest }
}

// namedBy returns the manifests that a manifest names: none if it is not JSON.
func namedBy(content []byte) (n names) {
	if bytes.Contains(content, []byte(`"manifests"`)) || bytes.Contains(content, []byte(`"subject"`)) {
		json.Unmarshal(content, &n)
	}
	return n
}
