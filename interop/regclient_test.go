// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"github.com/regclient/regclient/scheme"
	"github.com/regclient/regclient/scheme/reg"
	"github.com/regclient/regclient/types/descriptor"
	"github.com/regclient/regclient/types/errs"
	"github.com/regclient/regclient/types/manifest"
	"github.com/regclient/regclient/types/ref"

	"github.com/berth-oci/registry"
)

func TestRegclient(t *testing.T) {
	t.Run("copy", func(t *testing.T) {
		for name, c := range contents() {
			t.Run(name, func(t *testing.T) {
				if c.name == "large" && testing.Short() {
					t.Skip("200 MB")
				}
				host := newServer(t)
				rc := newRegclient(config.Host{Name: host})
				regclientPush(t, rc, host, c)
				regclientPull(t, rc, host, c)
			})
		}
	})
	t.Run("copy_in_chunks", func(t *testing.T) {
		for _, test := range []struct {
			content string
			chunk   int64
		}{
			{"index", 50_000},
			{"sha512", 10},
			{"empty-layer", 100},
		} {
			t.Run(test.content, func(t *testing.T) {
				c := contents()[test.content]
				host, log := newRecordingServer(t)
				rc := newRegclient(config.Host{Name: host, BlobChunk: test.chunk, BlobMax: 1})
				regclientPush(t, rc, host, c)

				chunks := 0
				for _, d := range c.blobs {
					chunks += int((d.Size + test.chunk - 1) / test.chunk)
				}
				qt.Check(t, qt.Equals(len(log.find("PATCH", "/blobs/uploads/", 202)), chunks))
				for _, r := range log.find("PATCH", "", 0) {
					qt.Check(t, qt.Equals(r.status, 202))
					first, last, _ := strings.Cut(r.header.Get("Content-Range"), "-")
					start, err1 := strconv.ParseInt(first, 10, 64)
					end, err2 := strconv.ParseInt(last, 10, 64)
					if err1 != nil || err2 != nil || start%test.chunk != 0 || end-start >= test.chunk {
						t.Errorf("Content-Range: %q", r.header.Get("Content-Range"))
					}
				}
				regclientPull(t, rc, host, c)
			})
		}
	})
	t.Run("copy_between_repositories", testRegclientBetweenRepositories)
	t.Run("export_and_import", testRegclientExport)
	t.Run("lists", testRegclientLists)
	t.Run("referrers", testRegclientReferrers)
	t.Run("referrers_by_tag", testRegclientReferrersByTag)
	t.Run("blobs", testRegclientBlobs)
	t.Run("deletes", testRegclientDeletes)
	t.Run("not_found", testRegclientNotFound)
}

// regclientPush copies c from an OCI layout to a repository with its name, and
// checks that all of it is served.
func regclientPush(t *testing.T, rc *regclient.RegClient, host string, c *content) {
	t.Helper()
	dir := regclientRef(t, "ocidir://"+c.writeLayout(t)+":"+c.name)
	repo := regclientRef(t, host+"/test/"+c.name+":"+c.name)
	if c.name == "artifact" {
		// regclient copies an image with its referrers, but without its subject,
		// and finds referrers in a layout only by a tag of its own. Copy the
		// subject separately.
		subject := c.manifests[0].Digest.String()
		err := rc.ImageCopy(t.Context(), dir.SetDigest(subject), repo.SetDigest(subject))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), dir, repo, regclient.ImageWithReferrers(), regclient.ImageWithDigestTags())))
	c.checkServed(t, host, "test/"+c.name)

	// The registry lists the referrers, so the client pushes no tag for them.
	tags, err := rc.TagList(t.Context(), repo)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(tags.Tags, []string{c.name}))
}

// regclientPull copies c to a new OCI layout, and checks that the layout holds
// all of it.
func regclientPull(t *testing.T, rc *regclient.RegClient, host string, c *content) {
	t.Helper()
	dir := t.TempDir()
	layoutRef := regclientRef(t, "ocidir://"+dir+":"+c.name)
	repo := regclientRef(t, host+"/test/"+c.name+":"+c.name)
	if c.name == "artifact" {
		// Copy the subject, and the artifact as its referrer.
		repo = repo.SetDigest(c.manifests[0].Digest.String())
	}
	qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), repo, layoutRef, regclient.ImageWithReferrers(), regclient.ImageWithDigestTags())))
	qt.Assert(t, qt.IsNil(rc.Close(t.Context(), layoutRef)))
	c.checkLayout(t, dir)
}

// testRegclientBetweenRepositories copies within one registry, which mounts
// blobs.
func testRegclientBetweenRepositories(t *testing.T) {
	host, log := newRecordingServer(t)
	rc := newRegclient(config.Host{Name: host})
	c, signature := contents()["artifact"], contents()["empty-layer"]
	c.seed(t, host, "from")
	signature.seed(t, host, "from")
	image := c.manifests[0]
	src := regclientRef(t, host+"/from").SetDigest(image.Digest.String())
	dst := regclientRef(t, host+"/to:"+c.name)

	// cosign attaches a signature by a digest tag.
	digestTag := strings.Replace(image.Digest.String(), ":", "-", 1) + ".sig"
	qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), src.SetTag(signature.name), src.SetTag(digestTag))))

	qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), src, dst, regclient.ImageWithReferrers(), regclient.ImageWithDigestTags())))
	blobs := len(c.blobs) + len(signature.blobs)
	qt.Check(t, qt.Equals(len(log.find("POST", "/v2/to/blobs/uploads/?from=from&mount=", 201)), blobs))
	qt.Check(t, qt.HasLen(log.find("PUT", "/blobs/uploads/", 0), 0))
	qt.Check(t, qt.HasLen(log.find("GET", "/blobs/", 0), 0))

	// The referrer and the signature were copied with the image, whose tag is now
	// c's name.
	for tag, want := range map[string]digest.Digest{
		c.name:                 image.Digest,
		c.root.Digest.String(): c.root.Digest,
		digestTag:              signature.root.Digest,
	} {
		r := dst.SetTag(tag)
		if strings.Contains(tag, ":") {
			r = dst.SetDigest(tag)
		}
		m, err := newRegclient(config.Host{Name: host}).ManifestHead(t.Context(), r)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(m.GetDescriptor().Digest, want))
	}

	// A second copy finds everything in place and sends nothing.
	log.reset()
	qt.Assert(t, qt.IsNil(newRegclient(config.Host{Name: host}).ImageCopy(t.Context(), src, dst, regclient.ImageWithFastCheck())))
	for _, method := range []string{"POST", "PUT", "PATCH"} {
		qt.Check(t, qt.HasLen(log.find(method, "", 0), 0))
	}
}

// testRegclientExport exports images to a tar file, and imports them from it.
func testRegclientExport(t *testing.T) {
	for _, name := range []string{"image", "index", "docker", "docker-list", "empty-layer"} {
		t.Run(name, func(t *testing.T) {
			c := contents()[name]
			host := newServer(t)
			rc := newRegclient(config.Host{Name: host})
			c.seed(t, host, "from")
			var tarred bytes.Buffer
			qt.Assert(t, qt.IsNil(rc.ImageExport(t.Context(), regclientRef(t, host+"/from:"+name), &tarred)))
			qt.Assert(t, qt.IsNil(rc.ImageImport(t.Context(), regclientRef(t, host+"/to:"+name), bytes.NewReader(tarred.Bytes()))))
			c.checkServed(t, host, "to")
		})
	}
}

func testRegclientLists(t *testing.T) {
	names := []string{"docker", "empty-layer", "image", "sha512"}
	for _, server := range []struct {
		name  string
		opts  []registry.Option
		pages int // of all tags; regclient follows the Link header
	}{
		{"single_page", nil, 1},
		{"several_pages", []registry.Option{registry.WithLimits(registry.Limits{PageNames: 3})}, 2},
	} {
		host, log := newRecordingServer(t, server.opts...)
		rc := newRegclient(config.Host{Name: host})
		for _, name := range names {
			contents()[name].seed(t, host, "tags")
			contents()[name].seed(t, host, "repos/"+name)
		}
		for _, test := range []struct {
			name string
			opts []scheme.TagOpts
			want []string
		}{
			{"all", nil, names},
			{"limit", []scheme.TagOpts{scheme.WithTagLimit(2)}, names[:2]},
			{"last", []scheme.TagOpts{scheme.WithTagLast("empty-layer")}, names[2:]},
			{"last_is_not_a_tag", []scheme.TagOpts{scheme.WithTagLast("f")}, names[2:]},
			{"last_is_final_tag", []scheme.TagOpts{scheme.WithTagLast("sha512")}, names[4:]},
			{"limit_and_last", []scheme.TagOpts{scheme.WithTagLimit(1), scheme.WithTagLast("docker")}, names[1:2]},
		} {
			t.Run("tags_"+server.name+"_"+test.name, func(t *testing.T) {
				log.reset()
				tags, err := rc.TagList(t.Context(), regclientRef(t, host+"/tags"), test.opts...)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(tags.Name, "tags"))
				got, err := tags.GetTags()
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.DeepEquals(append([]string{}, got...), append([]string{}, test.want...)))
				pages := 1
				if test.opts == nil {
					pages = server.pages
				}
				qt.Check(t, qt.HasLen(log.find("GET", "/v2/tags/tags/list", 200), pages))
			})
		}
		if server.name == "several_pages" {
			continue // regclient does not follow the Link of the catalog
		}
		for _, test := range []struct {
			name string
			opts []scheme.RepoOpts
			want []string
		}{
			{"all", nil, []string{"repos/docker", "repos/empty-layer", "repos/image", "repos/sha512", "tags"}},
			{"limit", []scheme.RepoOpts{scheme.WithRepoLimit(2)}, []string{"repos/docker", "repos/empty-layer"}},
			{"limit_and_last", []scheme.RepoOpts{scheme.WithRepoLimit(2), scheme.WithRepoLast("repos/image")}, []string{"repos/sha512", "tags"}},
		} {
			t.Run("repositories_"+test.name, func(t *testing.T) {
				repos, err := rc.RepoList(t.Context(), host, test.opts...)
				qt.Assert(t, qt.IsNil(err))
				got, err := repos.GetRepos()
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.DeepEquals(got, test.want))
			})
		}
	}
}

// testRegclientReferrers lists the referrers of an image, and checks that the
// client got the list from the referrers API, not from a tag.
func testRegclientReferrers(t *testing.T) {
	c := contents()["artifact"]
	image := c.manifests[0]
	index := newContent("index")
	second := index.addManifest(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageIndex,
		ArtifactType: "application/vnd.example.second",
		Manifests:    []ocispec.Descriptor{},
		Subject:      &image,
		Annotations:  map[string]string{"org.example.made-by": "hand"},
	})

	for _, server := range []struct {
		name  string
		opts  []registry.Option
		pages int // of the entire list
	}{
		{"single_page", nil, 1},
		{"several_pages", []registry.Option{registry.WithLimits(registry.Limits{ReferrersBytes: 1})}, 2},
	} {
		host, log := newRecordingServer(t, server.opts...)
		c.seed(t, host, "test")
		subject := regclientRef(t, host+"/test").SetDigest(image.Digest.String())
		m, err := manifest.New(manifest.WithRaw(index.bytes[second.Digest]))
		qt.Assert(t, qt.IsNil(err))
		err = newRegclient(config.Host{Name: host}).ManifestPut(t.Context(), subject.SetDigest(second.Digest.String()), m)
		qt.Assert(t, qt.IsNil(err))

		for _, test := range []struct {
			name    string
			match   descriptor.MatchOpt
			applied string // the expected OCI-Filters-Applied
			want    []digest.Digest
		}{
			{"all", descriptor.MatchOpt{}, "", []digest.Digest{c.root.Digest, second.Digest}},
			{"type", descriptor.MatchOpt{ArtifactType: "application/vnd.cyclonedx+json"}, "artifactType", []digest.Digest{c.root.Digest}},
			{"type_of_index", descriptor.MatchOpt{ArtifactType: "application/vnd.example.second"}, "artifactType", []digest.Digest{second.Digest}},
			{"another_type", descriptor.MatchOpt{ArtifactType: "application/spdx+json"}, "artifactType", nil},
			{"annotation", descriptor.MatchOpt{Annotations: map[string]string{"org.example.made-by": "hand"}}, "", []digest.Digest{second.Digest}},
		} {
			t.Run(server.name+"_"+test.name, func(t *testing.T) {
				log.reset()
				// Use a new client each time, since a client caches the list.
				list, err := newRegclient(config.Host{Name: host}).ReferrerList(t.Context(), subject, scheme.WithReferrerMatchOpt(test.match))
				qt.Assert(t, qt.IsNil(err))
				var got []digest.Digest
				for _, d := range list.Descriptors {
					got = append(got, d.Digest)
				}
				slices.Sort(got)
				slices.Sort(test.want)
				qt.Check(t, qt.DeepEquals(got, test.want))

				qt.Check(t, qt.HasLen(list.Tags, 0))
				requests := log.find("", "", 0)
				if test.applied == "" {
					qt.Check(t, qt.HasLen(requests, server.pages))
				}
				for _, r := range requests {
					if !strings.HasPrefix(r.uri, "/v2/test/referrers/"+image.Digest.String()) {
						t.Errorf("%s %s is not a request for the referrers", r.method, r.uri)
					}
					qt.Check(t, qt.Equals(r.status, 200))
					qt.Check(t, qt.Equals(r.respHeader.Get("OCI-Filters-Applied"), test.applied))
				}
			})
		}
	}
}

// testRegclientReferrersByTag uses a registry without the referrers API. regclient
// then keeps the list in a tag.
func testRegclientReferrersByTag(t *testing.T) {
	c := contents()["artifact"]
	host, log := newRecordingServer(t, registry.WithReferrersSupport(false))
	src := regclientRef(t, "ocidir://"+c.writeLayout(t))
	dst := regclientRef(t, host+"/test")
	rc := newRegclient(config.Host{Name: host})
	for _, d := range c.manifests {
		digest := d.Digest.String()
		qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), src.SetDigest(digest), dst.SetDigest(digest))))
	}
	subject := c.manifests[0].Digest
	list, err := newRegclient(config.Host{Name: host}).ReferrerList(t.Context(), dst.SetDigest(subject.String()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(list.Descriptors, 1))
	qt.Check(t, qt.Equals(list.Descriptors[0].Digest, c.root.Digest))
	qt.Check(t, qt.DeepEquals(list.Tags, []string{strings.Replace(subject.String(), ":", "-", 1)}))
	qt.Check(t, qt.HasLen(log.find("GET", "/referrers/", 404), 1))
}

func testRegclientBlobs(t *testing.T) {
	c := contents()["image"]
	layer := c.blobs[1]
	want := c.bytes[layer.Digest]
	d := descriptor.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}

	t.Run("head", func(t *testing.T) {
		host := newServer(t)
		c.seed(t, host, "test")
		b, err := newRegclient(config.Host{Name: host}).BlobHead(t.Context(), regclientRef(t, host+"/test"), descriptor.Descriptor{Digest: layer.Digest})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(b.GetDescriptor().Size, layer.Size))
		qt.Check(t, qt.Equals(b.RawHeaders().Get("Docker-Content-Digest"), layer.Digest.String()))
	})

	t.Run("get_and_seek", func(t *testing.T) {
		host, log := newRecordingServer(t)
		c.seed(t, host, "test")
		b, err := newRegclient(config.Host{Name: host}).BlobGet(t.Context(), regclientRef(t, host+"/test"), d)
		qt.Assert(t, qt.IsNil(err))
		defer b.Close()
		half := make([]byte, len(want)/2)
		_, err = io.ReadFull(b, half)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(half, want[:len(half)])))
		at, err := b.Seek(0, io.SeekCurrent)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(at, int64(len(half))))
		_, err = b.Seek(0, io.SeekStart) // as regclient computes the digest, it can seek only to the start
		qt.Assert(t, qt.IsNil(err))
		got, err := io.ReadAll(b)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
		qt.Check(t, qt.HasLen(log.find("GET", "/v2/test/blobs/", 200), 2))
	})

	t.Run("get_resumes_after_disconnect", func(t *testing.T) {
		handler, log := recordExchanges(newRegistry(t))
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Range") == "" {
				w = &breakingWriter{w, len(want) / 2}
			}
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(s.Close)
		host := strings.TrimPrefix(s.URL, "http://")
		c.seed(t, host, "test")
		b, err := newRegclient(config.Host{Name: host}).BlobGet(t.Context(), regclientRef(t, host+"/test"), d)
		qt.Assert(t, qt.IsNil(err))
		defer b.Close()
		got, err := io.ReadAll(b)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
		// regclient has resumed where the connection broke off.
		ranges := log.find("GET", "/blobs/", 206)
		qt.Assert(t, qt.HasLen(ranges, 1))
		qt.Check(t, qt.Not(qt.Equals(ranges[0].respHeader.Get("Content-Range"), "")))
	})

	t.Run("put_of_unknown_size", func(t *testing.T) {
		// Without a descriptor, regclient pushes in chunks, and computes the
		// digest as it goes.
		host, log := newRecordingServer(t)
		got, err := newRegclient(config.Host{Name: host}).BlobPut(t.Context(), regclientRef(t, host+"/test"), descriptor.Descriptor{}, bytes.NewReader(want))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got.Digest, layer.Digest))
		qt.Check(t, qt.Equals(got.Size, layer.Size))
		qt.Check(t, qt.HasLen(log.find("PATCH", "", 202), 1))
	})

	t.Run("mount", func(t *testing.T) {
		host, log := newRecordingServer(t)
		rc := newRegclient(config.Host{Name: host})
		c.seed(t, host, "from")
		from, to := regclientRef(t, host+"/from"), regclientRef(t, host+"/to")
		qt.Assert(t, qt.IsNil(rc.BlobMount(t.Context(), from, to, d)))
		b, err := rc.BlobHead(t.Context(), to, d)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(b.GetDescriptor().Size, layer.Size))

		// For a missing blob, the registry opens an upload instead, which
		// regclient cancels.
		missing := descriptor.Descriptor{Digest: digest.FromString("missing"), Size: 7}
		err = rc.BlobMount(t.Context(), from, to, missing)
		qt.Check(t, qt.ErrorIs(err, errs.ErrMountReturnedLocation))
		qt.Check(t, qt.HasLen(log.find("DELETE", "/v2/to/blobs/uploads/", 204), 1))
	})

	t.Run("put_mounts_from_another_repository", func(t *testing.T) {
		// regclient first requests a mount without a from parameter (end-11).
		host, log := newRecordingServer(t)
		c.seed(t, host, "from")
		_, err := newRegclient(config.Host{Name: host}).BlobPut(t.Context(), regclientRef(t, host+"/to"), d, bytes.NewReader(want))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.HasLen(log.find("POST", "/v2/to/blobs/uploads/?mount=", 201), 1))
		qt.Check(t, qt.HasLen(log.find("PUT", "/v2/to/blobs/", 0), 0))
	})
}

func testRegclientDeletes(t *testing.T) {
	c := contents()["artifact"]
	image := c.manifests[0]
	host, log := newRecordingServer(t)
	c.seed(t, host, "test")
	rc := newRegclient(config.Host{Name: host})
	repo := regclientRef(t, host+"/test")
	byDigest := repo.SetDigest(c.root.Digest.String())
	qt.Assert(t, qt.IsNil(rc.ImageCopy(t.Context(), byDigest, repo.SetTag("other"))))
	tags := func() []string {
		t.Helper()
		list, err := rc.TagList(t.Context(), repo)
		qt.Assert(t, qt.IsNil(err))
		return list.Tags
	}
	qt.Assert(t, qt.DeepEquals(tags(), []string{"artifact", "other"}))

	// regclient deletes a tag with the spec's request. If that failed, it would
	// move the tag to a new manifest and delete the manifest.
	log.reset()
	qt.Assert(t, qt.IsNil(rc.TagDelete(t.Context(), repo.SetTag("other"))))
	qt.Check(t, qt.HasLen(log.find("DELETE", "/v2/test/manifests/other", 202), 1))
	qt.Check(t, qt.HasLen(log.find("PUT", "", 0), 0))
	qt.Check(t, qt.DeepEquals(tags(), []string{"artifact"}))
	_, err := newRegclient(config.Host{Name: host}).ManifestHead(t.Context(), byDigest)
	qt.Check(t, qt.IsNil(err))

	// Deleting a manifest deletes its tag, and removes it from the referrers of its
	// subject.
	qt.Assert(t, qt.IsNil(rc.ManifestDelete(t.Context(), byDigest, regclient.WithManifestCheckReferrers())))
	_, err = rc.ManifestGet(t.Context(), byDigest)
	qt.Check(t, qt.ErrorIs(err, errs.ErrNotFound))
	_, err = rc.ManifestGet(t.Context(), repo.SetTag("artifact"))
	qt.Check(t, qt.ErrorIs(err, errs.ErrNotFound))
	qt.Check(t, qt.HasLen(tags(), 0))
	list, err := rc.ReferrerList(t.Context(), repo.SetDigest(image.Digest.String()))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(list.Descriptors, 0))
	_, err = rc.ManifestGet(t.Context(), repo.SetDigest(image.Digest.String()))
	qt.Check(t, qt.IsNil(err))

	d := descriptor.Descriptor{Digest: c.blobs[0].Digest}
	_, err = rc.BlobHead(t.Context(), repo, d)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(rc.BlobDelete(t.Context(), repo, d)))
	_, err = rc.BlobHead(t.Context(), repo, d)
	qt.Check(t, qt.ErrorIs(err, errs.ErrNotFound))
}

func testRegclientNotFound(t *testing.T) {
	c := contents()["empty-layer"]
	host := newServer(t)
	c.seed(t, host, "test")
	rc := newRegclient(config.Host{Name: host})
	missing := digest.FromString("missing")
	d := descriptor.Descriptor{Digest: missing, Size: 7}
	repo, missingRepo := regclientRef(t, host+"/test"), regclientRef(t, host+"/none")

	for _, test := range []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"manifest_get_by_tag", func(ctx context.Context) error {
			_, err := rc.ManifestGet(ctx, repo.SetTag("none"))
			return err
		}},
		{"manifest_get_by_digest", func(ctx context.Context) error {
			_, err := rc.ManifestGet(ctx, repo.SetDigest(missing.String()))
			return err
		}},
		{"manifest_head", func(ctx context.Context) error {
			_, err := rc.ManifestHead(ctx, repo.SetTag("none"))
			return err
		}},
		{"manifest_in_missing_repository", func(ctx context.Context) error {
			_, err := rc.ManifestGet(ctx, missingRepo.SetTag(c.name))
			return err
		}},
		{"manifest_delete", func(ctx context.Context) error {
			return rc.ManifestDelete(ctx, repo.SetDigest(missing.String()))
		}},
		{"tag_delete", func(ctx context.Context) error {
			return rc.TagDelete(ctx, repo.SetTag("none"))
		}},
		{"tags_of_missing_repository", func(ctx context.Context) error {
			_, err := rc.TagList(ctx, missingRepo)
			return err
		}},
		{"blob_get", func(ctx context.Context) error {
			_, err := rc.BlobGet(ctx, repo, d)
			return err
		}},
		{"blob_head", func(ctx context.Context) error {
			_, err := rc.BlobHead(ctx, repo, d)
			return err
		}},
		{"blob_delete", func(ctx context.Context) error {
			return rc.BlobDelete(ctx, repo, d)
		}},
		{"image_copy", func(ctx context.Context) error {
			return rc.ImageCopy(ctx, repo.SetTag("none"), missingRepo.SetTag("none"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			qt.Check(t, qt.ErrorIs(test.call(t.Context()), errs.ErrNotFound))
		})
	}

	// The list of referrers of a missing manifest is empty.
	list, err := rc.ReferrerList(t.Context(), repo.SetDigest(missing.String()))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.HasLen(list.Descriptors, 0))
}

// newRegclient returns a client that uses plain HTTP for host, and retries after
// short delays.
func newRegclient(host config.Host) *regclient.RegClient {
	host.Hostname = host.Name
	host.TLS = config.TLSDisabled
	return regclient.New(
		regclient.WithConfigHost(host),
		regclient.WithRegOpts(reg.WithDelay(10*time.Millisecond, 100*time.Millisecond)),
	)
}

func regclientRef(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// exchange is a request and the status and header of its response.
type exchange struct {
	method, uri string
	header      http.Header
	status      int
	respHeader  http.Header
}

// exchangeLog records the exchanges of a server.
type exchangeLog struct {
	mu        sync.Mutex
	exchanges []exchange
}

// newRecordingServer starts a registry like newServer, and returns its host:port
// and the log of its exchanges.
func newRecordingServer(t *testing.T, opts ...registry.Option) (string, *exchangeLog) {
	t.Helper()
	handler, log := recordExchanges(newRegistry(t, opts...))
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), log
}

// recordExchanges returns a handler that calls h, and the log of its exchanges.
func recordExchanges(h http.Handler) (http.Handler, *exchangeLog) {
	log := new(exchangeLog)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry := exchange{method: r.Method, uri: r.RequestURI, header: r.Header.Clone()}
		h.ServeHTTP(&recordingWriter{w, log, entry, false}, r)
	}), log
}

// find returns the exchanges with the given method and status whose URI contains
// uri. A zero value matches any.
func (l *exchangeLog) find(method, uri string, status int) []exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []exchange
	for _, r := range l.exchanges {
		if (method == "" || r.method == method) && strings.Contains(r.uri, uri) && (status == 0 || r.status == status) {
			found = append(found, r)
		}
	}
	return found
}

// reset empties the log.
func (l *exchangeLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exchanges = nil
}

// recordingWriter logs an exchange before it sends the response, since the test
// may read the log as soon as the client has the response.
type recordingWriter struct {
	http.ResponseWriter
	log   *exchangeLog
	entry exchange
	done  bool
}

func (w *recordingWriter) WriteHeader(status int) {
	if !w.done && status >= 200 {
		w.done = true
		w.entry.status, w.entry.respHeader = status, w.Header().Clone()
		w.log.mu.Lock()
		w.log.exchanges = append(w.log.exchanges, w.entry)
		w.log.mu.Unlock()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordingWriter) Write(p []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

func (w *recordingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// breakingWriter aborts the connection once left bytes of the body have been
// written.
type breakingWriter struct {
	http.ResponseWriter
	left int
}

func (w *breakingWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		w.ResponseWriter.Write(p[:w.left])
		http.NewResponseController(w.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	w.left -= len(p)
	return w.ResponseWriter.Write(p)
}
