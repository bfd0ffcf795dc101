// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"io"
	"iter"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func cuelabsClient(t *testing.T, host string) ociregistry.Interface {
	t.Helper()
	client, err := ociclient.New(host, &ociclient.Options{Insecure: true, ListPageSize: 3})
	qt.Assert(t, qt.IsNil(err))
	return client
}

func TestCuelabs(t *testing.T) {
	for name, c := range contents() {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			host := newServer(t)
			client := cuelabsClient(t, host)
			repo := "test/" + name
			for _, d := range c.blobs {
				_, err := client.PushBlob(ctx, repo, d, bytes.NewReader(c.bytes[d.Digest]))
				qt.Assert(t, qt.IsNil(err))
			}
			for _, d := range c.manifests {
				tag := ""
				if d.Digest == c.root.Digest {
					tag = name
				}
				got, err := client.PushManifest(ctx, repo, tag, c.bytes[d.Digest], d.MediaType)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(got.Digest, d.Digest))
			}
			c.checkServed(t, host, repo)

			check := func(r ociregistry.BlobReader, err error, want ocispec.Descriptor) {
				t.Helper()
				qt.Assert(t, qt.IsNil(err))
				defer r.Close()
				got, err := io.ReadAll(r)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsTrue(bytes.Equal(got, c.bytes[want.Digest])))
				qt.Check(t, qt.Equals(r.Descriptor().Digest, want.Digest))
			}
			for _, d := range c.blobs {
				r, err := client.GetBlob(ctx, repo, d.Digest)
				check(r, err, d)
				resolved, err := client.ResolveBlob(ctx, repo, d.Digest)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(resolved.Size, d.Size))
			}
			for _, d := range c.manifests {
				r, err := client.GetManifest(ctx, repo, d.Digest)
				check(r, err, d)
				resolved, err := client.ResolveManifest(ctx, repo, d.Digest)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(resolved.MediaType, d.MediaType))
			}
			r, err := client.GetTag(ctx, repo, name)
			check(r, err, c.root)
			resolved, err := client.ResolveTag(ctx, repo, name)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(resolved.Digest, c.root.Digest))
		})
	}
}

func TestCuelabsChunks(t *testing.T) {
	ctx := t.Context()
	client := cuelabsClient(t, newServer(t))
	data := strings.Repeat("0123456789", 10_000)
	d := digest.FromString(data)

	w, err := client.PushBlobChunked(ctx, "a", 1000)
	qt.Assert(t, qt.IsNil(err))
	_, err = io.WriteString(w, data[:50_001])
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(w.Close()))
	w, err = client.PushBlobChunkedResume(ctx, "a", w.ID(), -1, 1000)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(w.Size(), 50_001))
	_, err = io.WriteString(w, data[50_001:])
	qt.Assert(t, qt.IsNil(err))
	_, err = w.Commit(d)
	qt.Assert(t, qt.IsNil(err))

	r, err := client.GetBlobRange(ctx, "a", d, 12_345, 12_355)
	qt.Assert(t, qt.IsNil(err))
	part, err := io.ReadAll(r)
	r.Close()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(part), data[12_345:12_355]))

	_, err = client.MountBlob(ctx, "a", "b", d)
	qt.Assert(t, qt.IsNil(err))
	_, err = client.ResolveBlob(ctx, "b", d)
	qt.Check(t, qt.IsNil(err))

	w, err = client.PushBlobChunked(ctx, "a", 1000)
	qt.Assert(t, qt.IsNil(err))
	_, err = io.WriteString(w, "other")
	qt.Assert(t, qt.IsNil(err))
	_, err = w.Commit(d)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrDigestInvalid))
}

func TestCuelabsListsAndDeletes(t *testing.T) {
	ctx := t.Context()
	host := newServer(t)
	client := cuelabsClient(t, host)
	c := contents()["artifact"]
	repos := []string{"r1", "r2", "r3", "r4", "r5"}
	tags := []string{"t1", "t2", "t3", "t4", "t5", "t6", "t7"}
	for _, repo := range repos {
		c.seed(t, host, repo)
	}
	for _, tag := range tags {
		_, err := client.PushManifest(ctx, "r1", tag, c.bytes[c.root.Digest], c.root.MediaType)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.DeepEquals(collect(t, client.Repositories(ctx, "")), repos))
	qt.Check(t, qt.DeepEquals(collect(t, client.Repositories(ctx, "r2")), repos[2:]))
	qt.Check(t, qt.DeepEquals(collect(t, client.Tags(ctx, "r1", "")), append([]string{"artifact"}, tags...)))
	qt.Check(t, qt.DeepEquals(collect(t, client.Tags(ctx, "r1", "t3")), tags[3:]))

	subject := c.manifests[0].Digest
	for artifactType, want := range map[string]int{"": 1, "application/vnd.cyclonedx+json": 1, "application/none": 0} {
		got := collect(t, client.Referrers(ctx, "r1", subject, artifactType))
		qt.Assert(t, qt.HasLen(got, want))
		if want == 1 {
			qt.Check(t, qt.Equals(got[0].Digest, c.root.Digest))
			qt.Check(t, qt.Equals(got[0].Annotations["org.example.made-by"], "berth"))
		}
	}

	qt.Assert(t, qt.IsNil(client.DeleteTag(ctx, "r1", "t1")))
	_, err := client.ResolveManifest(ctx, "r1", c.root.Digest)
	qt.Check(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(client.DeleteManifest(ctx, "r1", c.root.Digest)))
	qt.Check(t, qt.HasLen(collect(t, client.Tags(ctx, "r1", "")), 0))
	qt.Assert(t, qt.IsNil(client.DeleteBlob(ctx, "r1", c.blobs[0].Digest)))

	_, err = client.GetTag(ctx, "r1", "t2")
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrManifestUnknown))
	_, err = client.GetBlob(ctx, "r1", c.blobs[0].Digest)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrBlobUnknown))
	_, err = client.GetTag(ctx, "unknown", "t2")
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrNameUnknown))
}

func collect[V any](t *testing.T, seq iter.Seq2[V, error]) (all []V) {
	t.Helper()
	for v, err := range seq {
		qt.Assert(t, qt.IsNil(err))
		all = append(all, v)
	}
	return all
}
