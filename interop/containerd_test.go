// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	contentstore "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// provider supplies containerd's pusher with content, by digest. It stands in for
// containerd's own content store, which accepts only SHA-256 digests and so can't
// hold a blob with a SHA-512 digest.
type provider map[digest.Digest][]byte

func (p provider) ReaderAt(_ context.Context, d ocispec.Descriptor) (contentstore.ReaderAt, error) {
	data, ok := p[d.Digest]
	if !ok {
		return nil, errdefs.ErrNotFound
	}
	return readerAt{bytes.NewReader(data)}, nil
}

type readerAt struct{ *bytes.Reader }

func (readerAt) Close() error { return nil }

func newResolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts)),
	})
}

// pushInTurn pushes the content one blob or manifest at a time: containerd's authorizer
// has a data race between concurrent pushes (authorizer.go:289 and 303 of v2.2.9).
func pushInTurn(t *testing.T, pusher remotes.Pusher, c *content) error {
	push := remotes.PushHandler(pusher, provider(c.bytes))
	for _, d := range append(c.blobs, c.manifests...) {
		if _, err := push(t.Context(), d); err != nil {
			return err
		}
	}
	return nil
}

func TestContainerd(t *testing.T) {
	for name, c := range contents() {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			host := newServer(t)
			ref := host + "/test/" + name + ":" + name

			if name == "empty-layer" {
				// When containerd commits a blob of zero bytes, it does not wait
				// for the registry's response (pushWriter mistakes its first pipe
				// for one), so the manifest may overtake the blob. Push the blob
				// in advance.
				resp, err := http.Post("http://"+host+"/v2/test/"+name+"/blobs/uploads/?digest="+digest.FromString("").String(), "application/octet-stream", http.NoBody)
				qt.Assert(t, qt.IsNil(err))
				resp.Body.Close()
				qt.Assert(t, qt.Equals(resp.StatusCode, 201))
			}

			// Push each manifest by itself: a subject is not a child of its referrer.
			source := provider(c.bytes)
			for _, d := range c.manifests {
				target := host + "/test/" + name + "@" + d.Digest.String()
				if d.Digest == c.root.Digest {
					target = ref
				}
				pusher, err := newResolver().Pusher(ctx, target)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(remotes.PushContent(ctx, pusher, d, source, nil, platforms.All, nil)))
			}
			c.checkServed(t, host, "test/"+name)

			// Resolve, by tag and by digest.
			for _, target := range []string{ref, host + "/test/" + name + "@" + c.root.Digest.String()} {
				_, d, err := newResolver().Resolve(ctx, target)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(d.Digest, c.root.Digest))
				qt.Check(t, qt.Equals(d.MediaType, c.root.MediaType))
				qt.Check(t, qt.Equals(d.Size, c.root.Size))
			}

			// Fetch all blobs and manifests.
			resolver := newResolver()
			resolved, root, err := resolver.Resolve(ctx, ref)
			qt.Assert(t, qt.IsNil(err))
			fetcher, err := resolver.Fetcher(ctx, resolved)
			qt.Assert(t, qt.IsNil(err))
			for _, d := range append(c.blobs, c.manifests...) {
				r, err := fetcher.Fetch(ctx, d)
				qt.Assert(t, qt.IsNil(err))
				got, err := io.ReadAll(r)
				qt.Assert(t, qt.IsNil(err))
				r.Close()
				qt.Check(t, qt.IsTrue(bytes.Equal(got, c.bytes[d.Digest])), qt.Commentf("%s", d.Digest))
			}
			if name == "sha512" {
				return // containerd's store can't hold it: see provider
			}

			// Pull as containerd does: from the root down, into its store.
			store, err := local.NewStore(t.TempDir())
			qt.Assert(t, qt.IsNil(err))
			err = images.Dispatch(ctx, images.Handlers(remotes.FetchHandler(store, fetcher), images.ChildrenHandler(store)), nil, root)
			if name == "empty-layer" { // containerd rejects a layer of zero bytes from any registry
				qt.Check(t, qt.ErrorMatches(err, ".*reports content size of zero.*"))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			pulled := 0
			qt.Assert(t, qt.IsNil(store.Walk(ctx, func(info contentstore.Info) error {
				got, err := contentstore.ReadBlob(ctx, store, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
				qt.Check(t, qt.IsTrue(err == nil && bytes.Equal(got, c.bytes[info.Digest])), qt.Commentf("%s %v", info.Digest, err))
				pulled++
				return nil
			})))
			want := len(c.bytes)
			if name == "artifact" {
				want = 3 // its manifest, config and layer, not its subject
			}
			qt.Check(t, qt.Equals(pulled, want))
		})
	}
}

func TestContainerdNotFound(t *testing.T) {
	host := newServer(t)
	contents()["image"].seed(t, host, "test")
	for _, ref := range []string{host + "/test:missing", host + "/unknown:latest", host + "/test@" + digest.FromString("missing").String()} {
		_, _, err := newResolver().Resolve(t.Context(), ref)
		qt.Check(t, qt.IsTrue(errdefs.IsNotFound(err)), qt.Commentf("%s: %v", ref, err))
	}
}
