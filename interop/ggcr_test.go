// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	theirs "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	ours "github.com/berth-oci/registry"
)

func ggcrRef(t *testing.T, format string, args ...any) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(fmt.Sprintf(format, args...))
	qt.Assert(t, qt.IsNil(err))
	return ref
}

// rawManifest is a manifest as remote.Put takes it.
type rawManifest struct {
	data      []byte
	mediaType types.MediaType
}

func (m rawManifest) RawManifest() ([]byte, error)        { return m.data, nil }
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

func TestGgcr(t *testing.T) {
	for what, c := range contents() {
		t.Run(what, func(t *testing.T) {
			host := newServer(t)
			repo := "test/" + what
			ref := ggcrRef(t, "%s/%s:%s", host, repo, what)
			if what == "sha512" {
				// Its v1.Hash takes hex of SHA-256 alone: of what is named by
				// SHA-512, it can push and pull only the manifest.
				c.seed(t, host, repo)
				qt.Assert(t, qt.IsNil(remote.Put(ggcrRef(t, "%s/%s:again", host, repo), rawManifest{c.bytes[c.root.Digest], types.OCIManifestSchema1})))
				d, err := remote.Get(ggcrRef(t, "%s/%s:again", host, repo))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(d.Digest.String(), c.root.Digest.String()))
				qt.Check(t, qt.Equals(string(d.Manifest), string(c.bytes[c.root.Digest])))
				return
			}
			from, err := layout.ImageIndexFromPath(c.layout(t))
			qt.Assert(t, qt.IsNil(err))
			dir := t.TempDir()
			to, err := layout.Write(dir, empty.Index)
			qt.Assert(t, qt.IsNil(err))
			hash, err := v1.NewHash(c.root.Digest.String())
			qt.Assert(t, qt.IsNil(err))
			switch c.root.MediaType {
			case ocispec.MediaTypeImageIndex, dockerList:
				index, err := from.ImageIndex(hash)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(remote.WriteIndex(ref, index)))
				got, err := remote.Index(ref)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(to.AppendIndex(got)))
			default:
				image, err := from.Image(hash)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(remote.Write(ref, image)))
				got, err := remote.Image(ref)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(to.AppendImage(got)))
			}
			if what == "artifact" {
				// It does not follow a subject: that is the image, and copied by itself.
				contents()["image"].seed(t, host, repo)
				got, err := remote.Image(ggcrRef(t, "%s/%s:image", host, repo))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(to.AppendImage(got)))
			}
			c.checkServed(t, host, repo)
			c.checkLayout(t, dir)
		})
	}
}

// TestGgcrMount copies an image to another repository: its blobs are mounted,
// and none is sent again.
func TestGgcrMount(t *testing.T) {
	var mounts, uploads int
	h := ours.New()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch req, _ := ours.ParseRequest(r); req.Op {
		case ours.OpBlobMount:
			mounts++
		case ours.OpUploadPatch, ours.OpUploadPut, ours.OpBlobPush:
			uploads++
		}
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	contents()["image"].seed(t, host, "a/b")
	mounts, uploads = 0, 0
	image, err := remote.Image(ggcrRef(t, "%s/a/b:image", host))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(remote.Write(ggcrRef(t, "%s/c:copy", host), image, remote.WithJobs(1))))
	qt.Check(t, qt.Equals(mounts, 2)) // of the layer and of the config
	qt.Check(t, qt.Equals(uploads, 0))
	pulled, err := remote.Image(ggcrRef(t, "%s/c:copy", host))
	qt.Assert(t, qt.IsNil(err))
	_, err = pulled.Layers()
	qt.Check(t, qt.IsNil(err))
}

func TestGgcrReferrers(t *testing.T) {
	host := newServer(t)
	subject, err := random.Image(100, 1)
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, "%s/test:subject", host)
	qt.Assert(t, qt.IsNil(remote.Write(ref, subject)))
	d, err := remote.Head(ref)
	qt.Assert(t, qt.IsNil(err))
	for i := range 4 {
		image, err := random.Image(100, 1)
		qt.Assert(t, qt.IsNil(err))
		image = mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.MediaType(fmt.Sprintf("application/vnd.example.%d", i%2)))
		referrer := mutate.Subject(image, *d).(v1.Image)
		hash, err := referrer.Digest()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.Write(ggcrRef(t, "%s/test@%s", host, hash), referrer)))
	}
	for filter, want := range map[string]int{"": 4, "application/vnd.example.0": 2, "application/none": 0} {
		var opts []remote.Option
		if filter != "" {
			opts = append(opts, remote.WithFilter("artifactType", filter))
		}
		index, err := remote.Referrers(ref.Context().Digest(d.Digest.String()), opts...)
		qt.Assert(t, qt.IsNil(err))
		m, err := index.IndexManifest()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(m.Manifests, want))
	}
	tags, err := remote.List(ref.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{"subject"})) // and no fallback tag
}

func TestCrane(t *testing.T) {
	host := newServer(t)
	image, err := random.Image(1000, 2)
	qt.Assert(t, qt.IsNil(err))
	hash, err := image.Digest()
	qt.Assert(t, qt.IsNil(err))
	a := host + "/a"
	qt.Assert(t, qt.IsNil(crane.Push(image, a+":v00")))
	for i := 1; i < 25; i++ {
		qt.Assert(t, qt.IsNil(crane.Tag(a+":v00", fmt.Sprintf("v%02d", i))))
	}
	qt.Assert(t, qt.IsNil(crane.Copy(a+":v03", host+"/b/c:copy")))

	tags, err := crane.ListTags(a)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(tags, 25))
	repo, err := name.NewRepository(a)
	qt.Assert(t, qt.IsNil(err))
	paged, err := remote.List(repo, remote.WithPageSize(4))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(paged, tags))
	repos, err := crane.Catalog(host)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(repos, []string{"a", "b/c"}))

	d, err := crane.Digest(host + "/b/c:copy")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(d, hash.String()))
	head, err := crane.Head(a + ":v24")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(head.Digest, hash))
	pulled, err := crane.Pull(host + "/b/c:copy")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(crane.Export(pulled, io.Discard)))

	qt.Assert(t, qt.IsNil(crane.Delete(a+":v24")))
	_, err = crane.Head(a + ":v24")
	var refused *transport.Error
	qt.Assert(t, qt.IsTrue(errors.As(err, &refused)), qt.Commentf("%v", err))
	qt.Check(t, qt.Equals(refused.StatusCode, 404))
	_, err = crane.Manifest(a + ":v24")
	qt.Check(t, qt.ErrorMatches(err, ".*MANIFEST_UNKNOWN.*"))
	_, err = crane.Head(a + ":v23")
	qt.Check(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(crane.Delete(a+"@"+hash.String())))
	tags, err = crane.ListTags(a)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(tags, 0))
}

// TestGgcrStream pushes a layer whose size and digest are known only at its
// end: a streamed PATCH.
func TestGgcrStream(t *testing.T) {
	host := newServer(t)
	layer := stream.NewLayer(io.NopCloser(strings.NewReader(strings.Repeat("streamed", 500_000))))
	image, err := mutate.AppendLayers(empty.Image, layer)
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, "%s/test:stream", host)
	qt.Assert(t, qt.IsNil(remote.Write(ref, image)))
	pulled, err := remote.Image(ref)
	qt.Assert(t, qt.IsNil(err))
	layers, err := pulled.Layers()
	qt.Assert(t, qt.IsNil(err))
	r, err := layers[0].Uncompressed()
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(len(got), 4_000_000))
}

// TestGgcrMigration has the same code on their registry and on ours: only the
// import is another.
func TestGgcrMigration(t *testing.T) {
	for what, h := range map[string]http.Handler{
		"theirs":           theirs.New(),
		"ours":             ours.New(),
		"theirs_logger":    theirs.New(theirs.Logger(log.New(io.Discard, "", 0))),
		"ours_logger":      ours.New(ours.Logger(log.New(io.Discard, "", 0))),
		"theirs_referrers": theirs.New(theirs.WithReferrersSupport(true), theirs.WithWarning(0.01, "careful")),
		"ours_referrers":   ours.New(ours.WithReferrersSupport(true), ours.WithWarning(0.01, "careful")),
	} {
		t.Run(what, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			image, err := random.Image(1000, 3)
			qt.Assert(t, qt.IsNil(err))
			ref := strings.TrimPrefix(s.URL, "http://") + "/test/image:latest"
			qt.Assert(t, qt.IsNil(crane.Push(image, ref)))
			pulled, err := crane.Pull(ref)
			qt.Assert(t, qt.IsNil(err))
			want, _ := image.Digest()
			got, err := pulled.Digest()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(got, want))
		})
	}
}
