// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	registry "github.com/berth-oci/registry/ggcr" // in place of go-containerregistry/pkg/registry
)

// blobHandler is a handler for go-containerregistry: its methods take a v1.Hash.
type blobHandler struct {
	registry.BlobHandler // the methods that blobHandler does not override
	gets                 atomic.Int64
}

func (b *blobHandler) Stat(ctx context.Context, repo string, h v1.Hash) (int64, error) {
	return b.BlobHandler.(registry.BlobStatHandler).Stat(ctx, repo, h)
}

func (b *blobHandler) Get(ctx context.Context, repo string, h v1.Hash) (io.ReadCloser, error) {
	b.gets.Add(1)
	return b.BlobHandler.Get(ctx, repo, h)
}

func (b *blobHandler) Put(ctx context.Context, repo string, h v1.Hash, rc io.ReadCloser) error {
	return b.BlobHandler.(registry.BlobPutHandler).Put(ctx, repo, h, rc)
}

// TestSwitch runs code written for go-containerregistry's package registry, with
// only the import changed.
func TestSwitch(t *testing.T) {
	own := &blobHandler{BlobHandler: registry.NewInMemoryBlobHandler()}
	var disk registry.BlobHandler = registry.NewDiskBlobHandler(t.TempDir())
	for name, opts := range map[string][]registry.Option{
		"default":     nil,
		"disk":        {registry.WithBlobHandler(disk)},
		"own_handler": {registry.WithBlobHandler(own), registry.WithReferrersSupport(true)},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(registry.New(opts...))
			t.Cleanup(s.Close)
			img, err := random.Image(1<<20, 3)
			qt.Assert(t, qt.IsNil(err))
			ref := strings.TrimPrefix(s.URL, "http://") + "/app:v1"
			qt.Assert(t, qt.IsNil(crane.Push(img, ref)))
			pulled, err := crane.Pull(ref)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(validate.Image(pulled)))
		})
	}
	qt.Check(t, qt.IsTrue(own.gets.Load() > 0))
}
