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
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	berth "github.com/berth-oci/registry"
)

func TestGgcr(t *testing.T) {
	t.Run("copy", func(t *testing.T) {
		for name, c := range contents() {
			t.Run(name, func(t *testing.T) {
				if c.name == "large" && testing.Short() {
					t.Skip("200 MB")
				}
				host := newServer(t)
				ggcrPush(t, host, c)
				ggcrPull(t, host, c)
			})
		}
	})
	t.Run("sha512_manifest", testGgcrSHA512Manifest)
	t.Run("copy_between_repositories", testGgcrBetweenRepositories)
	t.Run("mount", testGgcrMount)
	t.Run("stream", testGgcrStream)
	t.Run("referrers", testGgcrReferrers)
	t.Run("referrers_by_tag", testGgcrReferrersByTag)
	t.Run("lists", testGgcrLists)
	t.Run("crane", testGgcrCrane)
	t.Run("deletes", testGgcrDeletes)
	t.Run("not_found", testGgcrNotFound)
}

// ggcrPush pushes c from an OCI layout to a repository with its name, and checks
// that all of it is served.
func ggcrPush(t *testing.T, host string, c *content) {
	t.Helper()
	path, err := layout.FromPath(c.writeLayout(t))
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, host+"/test/"+c.name+":"+c.name)
	root := ggcrHash(t, c.root.Digest)
	switch c.root.MediaType {
	case ocispec.MediaTypeImageIndex, dockerList:
		from, err := path.ImageIndex()
		qt.Assert(t, qt.IsNil(err))
		index, err := from.ImageIndex(root)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.WriteIndex(ref, index)))
	default:
		if c.name == "artifact" {
			// The client pushes an image without its subject. Push the subject
			// separately; to find it in the layout, name it in index.json.
			subject := c.manifests[0]
			hash := ggcrHash(t, subject.Digest)
			qt.Assert(t, qt.IsNil(path.AppendDescriptor(v1.Descriptor{
				MediaType: types.MediaType(subject.MediaType),
				Size:      subject.Size,
				Digest:    hash,
			})))
			image, err := path.Image(hash)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(remote.Write(ref.Context().Digest(hash.String()), image)))
		}
		image, err := path.Image(root)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.Write(ref, image)))
	}
	c.checkServed(t, host, "test/"+c.name)

	// The registry lists the referrers, so the client pushes no tag for them.
	tags, err := remote.List(ref.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{c.name}))
}

// ggcrPull pulls c to a new OCI layout, and checks that the layout holds all of
// it.
func ggcrPull(t *testing.T, host string, c *content) {
	t.Helper()
	dir := t.TempDir()
	to, err := layout.Write(dir, empty.Index)
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, host+"/test/"+c.name+":"+c.name)
	d, err := remote.Get(ref)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(d.Digest, ggcrHash(t, c.root.Digest)))
	qt.Check(t, qt.Equals(string(d.MediaType), c.root.MediaType))
	qt.Check(t, qt.Equals(d.Size, c.root.Size))
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(to.AppendIndex(index)))
	} else {
		image, err := d.Image()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(to.AppendImage(image)))
		m, err := image.Manifest()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(m.Subject != nil, c.name == "artifact"))
		if m.Subject != nil { // an image is pulled without its subject, too
			subject, err := remote.Image(ref.Context().Digest(m.Subject.Digest.String()))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(to.AppendImage(subject)))
		}
	}
	c.checkLayout(t, dir)
}

// testGgcrSHA512Manifest pushes and pulls a manifest by its SHA-512 digest.
// The library computes only SHA-256 digests for manifests that it makes, so the
// test pushes raw bytes.
func testGgcrSHA512Manifest(t *testing.T) {
	c := contents()["sha512"]
	host := newServer(t)
	c.seed(t, host, "test")
	data := c.bytes[c.root.Digest]
	want := digest.SHA512.FromBytes(data)
	ref := ggcrRef(t, host+"/test@"+want.String())
	qt.Assert(t, qt.IsNil(remote.Put(ref, ggcrManifest{data, types.OCIManifestSchema1})))
	d, err := remote.Get(ref)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(d.Digest, ggcrHash(t, want)))
	qt.Check(t, qt.Equals(string(d.Manifest), string(data)))
	head, err := remote.Head(ref)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(head.Digest, ggcrHash(t, want)))
}

// testGgcrBetweenRepositories copies within one registry, which mounts blobs, and
// to another, which can't.
func testGgcrBetweenRepositories(t *testing.T) {
	for _, name := range []string{"image", "index", "docker", "docker-list", "sha512", "empty-layer"} {
		t.Run(name, func(t *testing.T) {
			c := contents()[name]
			host, log := newRecordingServer(t)
			c.seed(t, host, "from")
			log.reset()
			qt.Assert(t, qt.IsNil(crane.Copy(host+"/from:"+name, host+"/to:"+name)))
			qt.Check(t, qt.HasLen(log.find("POST", "/v2/to/blobs/uploads/?from=from&mount=", 201), len(c.blobs)))
			qt.Check(t, qt.HasLen(log.find("PATCH", "", 0), 0))
			qt.Check(t, qt.HasLen(log.find("PUT", "/blobs/", 0), 0))
			c.checkServed(t, host, "to")

			// A second copy finds everything in place and sends nothing.
			log.reset()
			qt.Assert(t, qt.IsNil(crane.Copy(host+"/from:"+name, host+"/to:"+name)))
			for _, method := range []string{"POST", "PUT", "PATCH"} {
				qt.Check(t, qt.HasLen(log.find(method, "", 0), 0))
			}

			// The client asks the other registry to mount as well. That registry
			// does not have the repository, and opens an upload.
			other, log := newRecordingServer(t)
			qt.Assert(t, qt.IsNil(crane.Copy(host+"/from:"+name, other+"/to:"+name)))
			qt.Check(t, qt.HasLen(log.find("POST", "/blobs/uploads/?from=from&mount=", 202), len(c.blobs)))
			qt.Check(t, qt.HasLen(log.find("PATCH", "/blobs/uploads/", 202), len(c.blobs)))
			c.checkServed(t, other, "to")
		})
	}
}

// testGgcrMount pushes a single layer that is in another repository.
func testGgcrMount(t *testing.T) {
	c := contents()["image"]
	host, log := newRecordingServer(t)
	c.seed(t, host, "from")
	log.reset()
	from, to := ggcrRef(t, host+"/from:"+c.name), ggcrRef(t, host+"/to:"+c.name)
	config, layer := c.blobs[0], c.blobs[1]
	l, err := remote.Layer(from.Context().Digest(layer.Digest.String()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(remote.WriteLayer(to.Context(), &remote.MountableLayer{Layer: l, Reference: from})))
	qt.Check(t, qt.HasLen(log.find("POST", "", 0), 1))
	qt.Check(t, qt.HasLen(log.find("POST", "/v2/to/blobs/uploads/?from=from&mount=", 201), 1))
	for _, method := range []string{"PUT", "PATCH", "GET"} {
		qt.Check(t, qt.HasLen(log.find(method, "/blobs/", 0), 0))
	}

	// Pushing the image mounts only its config, since the layer exists.
	image, err := remote.Image(from)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(remote.Write(to, image)))
	qt.Check(t, qt.HasLen(log.find("POST", "", 0), 2))
	qt.Check(t, qt.HasLen(log.find("POST", strings.ReplaceAll(config.Digest.String(), ":", "%3A"), 201), 1))
	c.checkServed(t, host, "to")
}

// testGgcrStream pushes layers whose size and digest are known only once they
// are read to the end.
func testGgcrStream(t *testing.T) {
	for _, test := range []struct {
		name string
		data string
	}{
		{"large", strings.Repeat("streamed", 500_000)},
		{"byte", "s"},
		{"empty", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			host, log := newRecordingServer(t)
			image, err := mutate.AppendLayers(empty.Image, stream.NewLayer(io.NopCloser(strings.NewReader(test.data))))
			qt.Assert(t, qt.IsNil(err))
			ref := ggcrRef(t, host+"/test:stream")
			qt.Assert(t, qt.IsNil(remote.Write(ref, image)))
			sizes := make(map[bool]int)
			for _, r := range log.find("PATCH", "/v2/test/blobs/uploads/", 202) {
				sizes[r.header.Get("Content-Length") != ""]++
			}
			// The size of the config is known, that of the layer is not.
			qt.Check(t, qt.DeepEquals(sizes, map[bool]int{false: 1, true: 1}))

			pulled, err := remote.Image(ref)
			qt.Assert(t, qt.IsNil(err))
			layers, err := pulled.Layers()
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.HasLen(layers, 1))
			r, err := layers[0].Uncompressed()
			qt.Assert(t, qt.IsNil(err))
			defer r.Close()
			got, err := io.ReadAll(r)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(string(got) == test.data))
		})
	}
}

// ggcrReferrers pushes an image and four referrers of two types, and returns the
// image's digest.
func ggcrReferrers(t *testing.T, host string) name.Digest {
	t.Helper()
	subject, err := random.Image(100, 1)
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, host+"/test:subject")
	qt.Assert(t, qt.IsNil(remote.Write(ref, subject)))
	d, err := remote.Head(ref)
	qt.Assert(t, qt.IsNil(err))
	for i := range 4 {
		image, err := random.Image(100, 1)
		qt.Assert(t, qt.IsNil(err))
		image = mutate.MediaType(image, types.OCIManifestSchema1)
		image = mutate.ConfigMediaType(image, types.MediaType(fmt.Sprintf("application/vnd.example.%d", i%2)))
		image = mutate.Annotations(image, map[string]string{"number": fmt.Sprint(i)}).(v1.Image)
		image = mutate.Subject(image, *d).(v1.Image)
		hash, err := image.Digest()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(remote.Write(ref.Context().Digest(hash.String()), image)))
	}
	return ref.Context().Digest(d.Digest.String())
}

// testGgcrReferrers lists referrers. The library filters them itself, and reads
// only the first page, since it ignores the Link.
func testGgcrReferrers(t *testing.T) {
	host, log := newRecordingServer(t)
	subject := ggcrReferrers(t, host)
	for _, test := range []struct {
		name, filter string
		want         int
	}{
		{"all", "", 4},
		{"type", "application/vnd.example.0", 2},
		{"another_type", "application/vnd.example.2", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			log.reset()
			var opts []remote.Option
			if test.filter != "" {
				opts = append(opts, remote.WithFilter("artifactType", test.filter))
			}
			index, err := remote.Referrers(subject, opts...)
			qt.Assert(t, qt.IsNil(err))
			m, err := index.IndexManifest()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(m.Manifests, test.want))
			numbers := make(map[string]bool)
			for _, d := range m.Manifests {
				numbers[d.Annotations["number"]] = true
				if test.filter != "" {
					qt.Check(t, qt.Equals(d.ArtifactType, test.filter))
				}
				// Each referrer can be pulled.
				image, err := remote.Image(subject.Digest(d.Digest.String()))
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.IsNil(validate.Image(image)))
			}
			qt.Check(t, qt.HasLen(numbers, test.want))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/test/referrers/", 200), 1))
		})
	}
	tags, err := remote.List(subject.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{"subject"}))

	t.Run("none", func(t *testing.T) {
		index, err := remote.Referrers(subject.Digest("sha256:" + strings.Repeat("0", 64)))
		qt.Assert(t, qt.IsNil(err))
		m, err := index.IndexManifest()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(m.Manifests, 0))
	})
}

// testGgcrReferrersByTag uses a registry without the referrers API. The library
// then keeps the list in a tag.
func testGgcrReferrersByTag(t *testing.T) {
	host := newServer(t, berth.WithReferrersSupport(false))
	subject := ggcrReferrers(t, host)
	index, err := remote.Referrers(subject)
	qt.Assert(t, qt.IsNil(err))
	m, err := index.IndexManifest()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(m.Manifests, 4))
	tags, err := remote.List(subject.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{strings.Replace(subject.DigestStr(), ":", "-", 1), "subject"}))
}

// testGgcrLists lists tags and repositories in pages, whose size the client
// requests and the server limits.
func testGgcrLists(t *testing.T) {
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("v%02d", i))
	}
	for _, test := range []struct {
		name  string
		limit int // of the server, on the size of a page
		size  int // of a page, as the client requests it
		pages int
	}{
		{"single_page", 0, 1000, 1},
		{"pages_of_client", 0, 4, 7},
		{"last_page_full", 0, 5, 5},
		{"pages_of_server", 10, 1000, 3},
		{"pages_of_both", 10, 4, 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			host, log := newRecordingServer(t, berth.WithLimits(berth.Limits{PageNames: test.limit}))
			image, err := random.Image(100, 1)
			qt.Assert(t, qt.IsNil(err))
			for _, name := range names {
				qt.Assert(t, qt.IsNil(crane.Push(image, host+"/"+name+":v00")))
				qt.Assert(t, qt.IsNil(crane.Tag(host+"/v00:v00", name)))
			}

			log.reset()
			repo, err := name.NewRepository(host + "/v00")
			qt.Assert(t, qt.IsNil(err))
			tags, err := remote.List(repo, remote.WithPageSize(test.size))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(tags, names))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/v00/tags/list", 200), test.pages))

			repos, err := remote.Catalog(t.Context(), repo.Registry, remote.WithPageSize(test.size))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(repos, names))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/_catalog", 200), test.pages))

			// A single page, after a name and of a given size.
			page, err := remote.CatalogPage(repo.Registry, "v07", 3)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(page, names[8:11]))
		})
	}
}

// testGgcrCrane uses package crane as its users do in their tests.
func testGgcrCrane(t *testing.T) {
	host := newServer(t)
	image, err := random.Image(1000, 2)
	qt.Assert(t, qt.IsNil(err))
	hash, err := image.Digest()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(crane.Push(image, host+"/a:one")))
	qt.Assert(t, qt.IsNil(crane.Tag(host+"/a:one", "two")))
	qt.Assert(t, qt.IsNil(crane.Copy(host+"/a:two", host+"/b/c:three")))
	for _, ref := range []string{"/a:one", "/a:two", "/a@" + hash.String(), "/b/c:three"} {
		d, err := crane.Digest(host + ref)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(d, hash.String()))
		head, err := crane.Head(host + ref)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(head.Digest, hash))
		manifest, err := crane.Manifest(host + ref)
		qt.Assert(t, qt.IsNil(err))
		want, err := image.RawManifest()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(manifest), string(want)))
		qt.Check(t, qt.Equals(head.Size, int64(len(want))))
		pulled, err := crane.Pull(host + ref)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(validate.Image(pulled)))
	}

	tags, err := crane.ListTags(host + "/a")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{"one", "two"}))
	repos, err := crane.Catalog(host)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(repos, []string{"a", "b/c"}))

	// Pull one platform of an index.
	c := contents()["index"]
	c.seed(t, host, "index")
	pulled, err := crane.Pull(host+"/index:index", crane.WithPlatform(&v1.Platform{OS: "linux", Architecture: "arm64"}))
	qt.Assert(t, qt.IsNil(err))
	config, err := pulled.ConfigFile()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(config.Architecture, "arm64"))
	qt.Check(t, qt.IsNil(validate.Image(pulled)))
}

func testGgcrDeletes(t *testing.T) {
	host, log := newRecordingServer(t)
	image, err := random.Image(100, 1)
	qt.Assert(t, qt.IsNil(err))
	hash, err := image.Digest()
	qt.Assert(t, qt.IsNil(err))
	for _, tag := range []string{"one", "two", "three"} {
		qt.Assert(t, qt.IsNil(crane.Push(image, host+"/test:"+tag)))
	}

	// Deleting a tag keeps the manifest and its other tags.
	qt.Assert(t, qt.IsNil(crane.Delete(host+"/test:one")))
	tags, err := crane.ListTags(host + "/test")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{"three", "two"}))
	_, err = crane.Head(host + "/test:one")
	checkGgcrError(t, err, 404, "")
	_, err = crane.Head(host + "/test@" + hash.String())
	qt.Check(t, qt.IsNil(err))

	// Deleting a manifest deletes its tags.
	qt.Assert(t, qt.IsNil(crane.Delete(host+"/test@"+hash.String())))
	tags, err = crane.ListTags(host + "/test")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(tags, 0))
	_, err = crane.Head(host + "/test:two")
	checkGgcrError(t, err, 404, "")
	_, err = crane.Head(host + "/test@" + hash.String())
	checkGgcrError(t, err, 404, "")
	qt.Check(t, qt.HasLen(log.find("DELETE", "/v2/test/manifests/", 202), 2))

	checkGgcrError(t, crane.Delete(host+"/test:two"), 404, transport.ManifestUnknownErrorCode)
	checkGgcrError(t, crane.Delete(host+"/test@"+hash.String()), 404, transport.ManifestUnknownErrorCode)

	host = newServer(t, berth.NoDelete())
	qt.Assert(t, qt.IsNil(crane.Push(image, host+"/test:one")))
	checkGgcrError(t, crane.Delete(host+"/test:one"), 405, transport.UnsupportedErrorCode)
}

func testGgcrNotFound(t *testing.T) {
	host := newServer(t)
	c := contents()["image"]
	c.seed(t, host, "test")
	none := "@sha256:" + strings.Repeat("0", 64)

	_, err := remote.Get(ggcrRef(t, host+"/test:missing"))
	checkGgcrError(t, err, 404, transport.ManifestUnknownErrorCode)
	_, err = remote.Get(ggcrRef(t, host+"/test"+none))
	checkGgcrError(t, err, 404, transport.ManifestUnknownErrorCode)
	_, err = remote.Get(ggcrRef(t, host+"/missing:missing"))
	checkGgcrError(t, err, 404, transport.NameUnknownErrorCode)
	// The response to a HEAD request has no body and thus no code.
	_, err = remote.Head(ggcrRef(t, host+"/test:missing"))
	checkGgcrError(t, err, 404, "")
	_, err = remote.List(ggcrRef(t, host+"/missing:missing").Context())
	checkGgcrError(t, err, 404, transport.NameUnknownErrorCode)
	layer, err := remote.Layer(ggcrRef(t, host+"/test"+none).(name.Digest))
	qt.Assert(t, qt.IsNil(err))
	_, err = layer.Compressed()
	checkGgcrError(t, err, 404, transport.BlobUnknownErrorCode)

	// A manifest whose blobs are missing.
	m := ggcrManifest{c.bytes[c.root.Digest], types.OCIManifestSchema1}
	err = remote.Put(ggcrRef(t, host+"/other:image"), m)
	checkGgcrError(t, err, 404, transport.ManifestBlobUnknownErrorCode)
	// An invalid manifest.
	m.data = []byte(`{"schemaVersion":2,"layers":1}`)
	err = remote.Put(ggcrRef(t, host+"/test:bad"), m)
	checkGgcrError(t, err, 400, transport.ManifestInvalidErrorCode)
}

// TestGgcrMigration runs the same code with go-containerregistry's registry and
// with Berth. Only the import differs.
func TestGgcrMigration(t *testing.T) {
	t.Run("go_containerregistry", func(t *testing.T) {
		testGgcrMigration(t, ggcr.New, ggcr.Logger, ggcr.WithReferrersSupport, ggcr.WithWarning)
	})
	t.Run("berth", func(t *testing.T) {
		testGgcrMigration(t, berth.New, berth.Logger, berth.WithReferrersSupport, berth.WithWarning)
	})

	// Call the functions directly too, as users do.
	for name, handler := range map[string]http.Handler{
		"go_containerregistry_calls": ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true), ggcr.WithWarning(0.01, "careful")),
		"berth_calls":                berth.New(berth.Logger(log.New(io.Discard, "", 0)), berth.WithReferrersSupport(true), berth.WithWarning(0.01, "careful")),
	} {
		t.Run(name, func(t *testing.T) { checkGgcrRegistry(t, handler) })
	}
}

// testGgcrMigration tests the functions of a package that implements a registry.
// It compiles only if both packages' signatures are the same, except for the name
// of the option type.
func testGgcrMigration[Option any](
	t *testing.T,
	newRegistry func(...Option) http.Handler,
	logger func(*log.Logger) Option,
	withReferrersSupport func(bool) Option,
	withWarning func(float64, string) Option,
) {
	discard := logger(log.New(io.Discard, "", 0))
	for name, opts := range map[string][]Option{
		"plain":     nil,
		"logger":    {discard},
		"referrers": {discard, withReferrersSupport(true)},
		"warning":   {discard, withWarning(0.01, "careful")},
		"all":       {discard, withReferrersSupport(true), withWarning(0.01, "careful"), withWarning(1, "very")},
	} {
		t.Run(name, func(t *testing.T) { checkGgcrRegistry(t, newRegistry(opts...)) })
	}

	t.Run("logs", func(t *testing.T) {
		var lines strings.Builder
		h := newRegistry(logger(log.New(&lines, "prefix ", 0)))
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
		qt.Check(t, qt.Matches(lines.String(), `(?s)prefix GET /v2/.*\n`))
	})
	t.Run("warns", func(t *testing.T) {
		w := httptest.NewRecorder()
		newRegistry(discard, withWarning(1, "careful")).ServeHTTP(w, httptest.NewRequest("GET", "/v2/", nil))
		qt.Check(t, qt.Equals(w.Header().Get("Warning"), `299 - "careful"`))
	})
	t.Run("referrers_api", func(t *testing.T) {
		// Query an existing image: go-containerregistry returns 404 for any other.
		for enabled, status := range map[bool]int{true: 200, false: 404} {
			s := httptest.NewServer(newRegistry(discard, withReferrersSupport(enabled)))
			defer s.Close()
			image, err := random.Image(100, 1)
			qt.Assert(t, qt.IsNil(err))
			hash, err := image.Digest()
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(crane.Push(image, strings.TrimPrefix(s.URL, "http://")+"/test:latest")))
			resp, err := http.Get(s.URL + "/v2/test/referrers/" + hash.String())
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Check(t, qt.Equals(resp.StatusCode, status))
		}
	})
}

// checkGgcrRegistry pushes an image to a registry, pulls it and deletes it.
func checkGgcrRegistry(t *testing.T, h http.Handler) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	image, err := random.Image(1000, 3)
	qt.Assert(t, qt.IsNil(err))
	want, err := image.Digest()
	qt.Assert(t, qt.IsNil(err))
	ref := ggcrRef(t, host+"/test/image:latest")
	qt.Assert(t, qt.IsNil(remote.Write(ref, image)))
	pulled, err := remote.Image(ref)
	qt.Assert(t, qt.IsNil(err))
	got, err := pulled.Digest()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got, want))
	qt.Check(t, qt.IsNil(validate.Image(pulled)))
	tags, err := remote.List(ref.Context())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags, []string{"latest"}))
	_, err = remote.Head(ref.Context().Tag("missing"))
	checkGgcrError(t, err, 404, "")
	_, err = remote.Get(ref.Context().Tag("missing"))
	checkGgcrError(t, err, 404, transport.ManifestUnknownErrorCode)
	qt.Assert(t, qt.IsNil(remote.Delete(ref)))
	_, err = remote.Get(ref)
	checkGgcrError(t, err, 404, transport.ManifestUnknownErrorCode)
}

func ggcrRef(t *testing.T, s string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(s)
	qt.Assert(t, qt.IsNil(err))
	return ref
}

func ggcrHash(t *testing.T, d digest.Digest) v1.Hash {
	t.Helper()
	hash, err := v1.NewHash(d.String())
	qt.Assert(t, qt.IsNil(err))
	return hash
}

// checkGgcrError checks that err reports a response with the given status and,
// unless code is empty, that code.
func checkGgcrError(t *testing.T, err error, status int, code transport.ErrorCode) {
	t.Helper()
	var e *transport.Error
	if !errors.As(err, &e) {
		t.Errorf("%v is not a transport.Error", err)
		return
	}
	qt.Check(t, qt.Equals(e.StatusCode, status))
	if code == "" {
		return
	}
	if len(e.Errors) == 0 {
		t.Errorf("%v has no code", err)
	}
	for _, d := range e.Errors {
		qt.Check(t, qt.Equals(d.Code, code))
	}
}

// ggcrManifest is a manifest for remote.Put.
type ggcrManifest struct {
	data      []byte
	mediaType types.MediaType
}

func (m ggcrManifest) RawManifest() ([]byte, error)        { return m.data, nil }
func (m ggcrManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }
