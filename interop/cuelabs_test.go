// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
)

func TestCuelabs(t *testing.T) {
	t.Run("copy", func(t *testing.T) {
		for name, c := range contents() {
			t.Run(name, func(t *testing.T) {
				if c.name == "large" && testing.Short() {
					t.Skip("200 MB")
				}
				host := newServer(t)
				cuelabsPush(t, host, c)
				cuelabsPull(t, host, c)
			})
		}
	})
	t.Run("chunks", testCuelabsChunks)
	t.Run("resume", testCuelabsResume)
	t.Run("mount", testCuelabsMount)
	t.Run("ranges", testCuelabsRanges)
	t.Run("lists", testCuelabsLists)
	t.Run("referrers", testCuelabsReferrers)
	t.Run("referrers_by_tag", testCuelabsReferrersByTag)
	t.Run("deletes", testCuelabsDeletes)
	t.Run("errors", testCuelabsErrors)
}

// cuelabsPush pushes c to a repository with its name, and checks that all of it
// is served.
func cuelabsPush(t *testing.T, host string, c *content) {
	t.Helper()
	client, repo := newCuelabs(t, host, 0), "test/"+c.name
	for _, d := range c.blobs {
		got, err := client.PushBlob(t.Context(), repo, d, bytes.NewReader(c.bytes[d.Digest]))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got.Digest, d.Digest))
	}
	for _, d := range c.manifests {
		tag := ""
		if d.Digest == c.root.Digest {
			tag = c.name
		}
		got, err := client.PushManifest(t.Context(), repo, tag, c.bytes[d.Digest], d.MediaType)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got.Digest, d.Digest))
	}
	c.checkServed(t, host, repo)
	qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Tags(t.Context(), repo, "")), []string{c.name}))
}

// cuelabsPull reads all of c with each method of the client, and compares it.
func cuelabsPull(t *testing.T, host string, c *content) {
	t.Helper()
	client, repo := newCuelabs(t, host, 0), "test/"+c.name
	check := func(d ocispec.Descriptor, err error, want ocispec.Descriptor) {
		t.Helper()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(d.Digest, want.Digest))
		qt.Check(t, qt.Equals(d.Size, want.Size))
		qt.Check(t, qt.Equals(d.MediaType, want.MediaType))
	}
	read := func(r ociregistry.BlobReader, err error, want ocispec.Descriptor) {
		t.Helper()
		qt.Assert(t, qt.IsNil(err))
		defer r.Close()
		check(r.Descriptor(), nil, want)
		got, err := io.ReadAll(r)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(got, c.bytes[want.Digest])))
	}
	for _, want := range c.blobs {
		want.MediaType = "application/octet-stream" // of each blob
		r, err := client.GetBlob(t.Context(), repo, want.Digest)
		read(r, err, want)
		d, err := client.ResolveBlob(t.Context(), repo, want.Digest)
		check(d, err, want)
	}
	for _, want := range c.manifests {
		r, err := client.GetManifest(t.Context(), repo, want.Digest)
		read(r, err, want)
		d, err := client.ResolveManifest(t.Context(), repo, want.Digest)
		check(d, err, want)
	}
	r, err := client.GetTag(t.Context(), repo, c.name)
	read(r, err, c.root)
	d, err := client.ResolveTag(t.Context(), repo, c.name)
	check(d, err, c.root)
}

// testCuelabsChunks pushes blobs in chunks. Once a write makes a chunk too large,
// the client sends it, with all the bytes of that write.
func testCuelabsChunks(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	for _, test := range []struct {
		name      string
		data      string
		algorithm digest.Algorithm
		write     int // size of each write
		chunk     int
		patches   []string // their Content-Range
		put       string
	}{
		// The PUT is empty, which the syntax of Content-Range can't express.
		{"all_in_PATCH", data, digest.SHA256, 2500, 2500, []string{"0-4999", "5000-9999"}, "10000-9999"},
		{"rest_in_PUT", data, digest.SHA256, 3000, 2500, []string{"0-2999", "3000-5999", "6000-8999"}, "9000-9999"},
		{"sha512", data, digest.SHA512, 3000, 2500, []string{"0-2999", "3000-5999", "6000-8999"}, "9000-9999"},
		{"one_chunk", data, digest.SHA256, 10_000, 10_000, nil, "0-9999"},
		{"one_byte", "x", digest.SHA256, 1, 10, nil, "0-0"},
		{"no_byte", "", digest.SHA256, 1, 10, nil, "0-0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			host, log := newRecordingServer(t)
			client := newCuelabs(t, host, 0)
			w, err := client.PushBlobChunked(t.Context(), "test", test.chunk)
			qt.Assert(t, qt.IsNil(err))
			for rest := test.data; rest != ""; {
				n := min(test.write, len(rest))
				_, err := io.WriteString(w, rest[:n])
				qt.Assert(t, qt.IsNil(err))
				rest = rest[n:]
			}
			want := test.algorithm.FromString(test.data)
			d, err := w.Commit(want)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(d.Digest, want))
			qt.Check(t, qt.Equals(d.Size, int64(len(test.data))))

			var patches []string
			for _, r := range log.find("PATCH", "/v2/test/blobs/uploads/", 202) {
				patches = append(patches, r.header.Get("Content-Range"))
			}
			qt.Check(t, qt.DeepEquals(patches, test.patches))
			puts := log.find("PUT", "/v2/test/blobs/uploads/", 201)
			qt.Assert(t, qt.HasLen(puts, 1))
			qt.Check(t, qt.Equals(puts[0].header.Get("Content-Range"), test.put))
			qt.Check(t, qt.IsTrue(cuelabsBlob(t, client, "test", want) == test.data))
		})
	}
}

// testCuelabsResume resumes an upload with another client.
func testCuelabsResume(t *testing.T) {
	data := strings.Repeat("0123456789", 1000)
	for _, test := range []struct {
		name   string
		first  int   // bytes that the first client sends
		offset int64 // where the second client resumes; -1 to query the registry
		size   int64 // of the resumed upload
	}{
		{"queried_offset", 5001, -1, 5001},
		{"known_offset", 5001, 5001, 5001},
		{"queried_offset_at_start", 0, -1, 0},
		{"known_offset_at_start", 0, 0, 0},
		{"known_offset_after_one_byte", 1, 1, 1},
		{"queried_offset_at_end", 10_000, -1, 10_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			host := newServer(t)
			w, err := newCuelabs(t, host, 0).PushBlobChunked(t.Context(), "test", 1000)
			qt.Assert(t, qt.IsNil(err))
			_, err = io.WriteString(w, data[:test.first])
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(w.Close()))

			client := newCuelabs(t, host, 0)
			w, err = client.PushBlobChunkedResume(t.Context(), "test", w.ID(), test.offset, 1000)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(w.Size(), test.size))
			_, err = io.WriteString(w, data[test.first:])
			qt.Assert(t, qt.IsNil(err))
			_, err = w.Commit(digest.FromString(data))
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(cuelabsBlob(t, client, "test", digest.FromString(data)) == data))
		})
	}

	t.Run("wrong_offset", func(t *testing.T) {
		client := newCuelabs(t, newServer(t), 0)
		w, err := client.PushBlobChunked(t.Context(), "test", 1000)
		qt.Assert(t, qt.IsNil(err))
		_, err = io.WriteString(w, data[:1])
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(w.Close()))
		id := w.ID()
		// After one byte, a query returns the wrong offset: to the client the
		// range "0-0" means no bytes (ParseRange in its internal/ocirequest), in
		// the spec one byte.
		for _, offset := range []int64{-1, 0, 2} {
			w, err := client.PushBlobChunkedResume(t.Context(), "test", id, offset, 1000)
			qt.Assert(t, qt.IsNil(err))
			_, err = io.WriteString(w, data[1:])
			qt.Check(t, qt.ErrorIs(err, ociregistry.ErrRangeInvalid))
		}
		// The rejected chunks have not changed the upload.
		w, err = client.PushBlobChunkedResume(t.Context(), "test", id, 1, 1000)
		qt.Assert(t, qt.IsNil(err))
		_, err = io.WriteString(w, data[1:])
		qt.Assert(t, qt.IsNil(err))
		_, err = w.Commit(digest.FromString(data))
		qt.Assert(t, qt.IsNil(err))
	})
}

func testCuelabsMount(t *testing.T) {
	host, log := newRecordingServer(t)
	client := newCuelabs(t, host, 0)
	c := contents()["sha512"]
	c.seed(t, host, "from")
	log.reset()
	for _, blob := range c.blobs {
		d, err := client.MountBlob(t.Context(), "from", "to", blob.Digest)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(d.Digest, blob.Digest))
		qt.Check(t, qt.Equals(cuelabsBlob(t, client, "to", blob.Digest), string(c.bytes[blob.Digest])))
	}
	qt.Check(t, qt.HasLen(log.find("POST", "/v2/to/blobs/uploads/?", 201), len(c.blobs)))
	qt.Check(t, qt.HasLen(log.find("PUT", "", 0), 0))
	qt.Check(t, qt.HasLen(log.find("PATCH", "", 0), 0))

	// If the blob can't be mounted, the registry opens an upload, which the client
	// does not use.
	none := digest.FromString("none")
	_, err := client.MountBlob(t.Context(), "from", "to", none)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrUnsupported))
	_, err = client.MountBlob(t.Context(), "missing", "to", none)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrUnsupported))
	qt.Check(t, qt.HasLen(log.find("POST", "/v2/to/blobs/uploads/?", 202), 2))
}

func testCuelabsRanges(t *testing.T) {
	host := newServer(t)
	client := newCuelabs(t, host, 0)
	c := contents()["image"]
	c.seed(t, host, "test")
	layer := c.blobs[1]
	data, size := c.bytes[layer.Digest], layer.Size
	for _, test := range []struct {
		name     string
		from, to int64
		want     []byte
	}{
		{"all", 0, -1, data},
		{"all_by_size", 0, size, data},
		{"first_byte", 0, 1, data[:1]},
		{"middle", 1000, 2000, data[1000:2000]},
		{"to_end", size - 10, -1, data[size-10:]},
		{"beyond_end", size - 10, size + 10, data[size-10:]},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := client.GetBlobRange(t.Context(), "test", layer.Digest, test.from, test.to)
			qt.Assert(t, qt.IsNil(err))
			defer r.Close()
			// The descriptor describes the entire blob.
			qt.Check(t, qt.Equals(r.Descriptor().Digest, layer.Digest))
			qt.Check(t, qt.Equals(r.Descriptor().Size, size))
			got, err := io.ReadAll(r)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(bytes.Equal(got, test.want)))
		})
	}
	t.Run("after_end", func(t *testing.T) {
		_, err := client.GetBlobRange(t.Context(), "test", layer.Digest, size, size+1)
		qt.Check(t, qt.ErrorIs(err, ociregistry.ErrRangeInvalid))
	})
	t.Run("missing", func(t *testing.T) {
		_, err := client.GetBlobRange(t.Context(), "test", digest.FromString("none"), 1, 2)
		qt.Check(t, qt.ErrorIs(err, ociregistry.ErrBlobUnknown))
	})
}

// testCuelabsLists lists in pages. The registry's pages must not be smaller
// than the client's: the client takes a page that is not full for the last, even
// if it has a Link (pager in its lister.go).
func testCuelabsLists(t *testing.T) {
	names := []string{"a", "b", "b/a", "c", "d", "e"}
	tags := []string{"a", "b", "c", "d", "e", "image"}
	for _, server := range []struct {
		name        string
		limit, size int // of a page: the registry's limit and the client's size
		requests    int // for the entire list
	}{
		{"single_page", 0, 1000, 1},
		{"pages", 0, 4, 2},
		{"full_pages", 0, 2, 4}, // the client requests another page after a full one, even without a Link
		{"pages_of_server", 5, 5, 2},
	} {
		host, log := newRecordingServer(t, registry.WithLimits(registry.Limits{PageNames: server.limit}))
		client := newCuelabs(t, host, server.size)
		c := contents()["image"]
		for _, name := range names {
			c.seed(t, host, name)
		}
		for _, tag := range tags {
			_, err := client.PushManifest(t.Context(), "a", tag, c.bytes[c.root.Digest], c.root.MediaType)
			qt.Assert(t, qt.IsNil(err))
		}
		t.Run(server.name, func(t *testing.T) {
			log.reset()
			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Repositories(t.Context(), "")), names))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/_catalog", 200), server.requests))
			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Tags(t.Context(), "a", "")), tags))
			qt.Check(t, qt.HasLen(log.find("GET", "/v2/a/tags/list", 200), server.requests))

			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Repositories(t.Context(), "b")), names[2:]))
			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Repositories(t.Context(), "b/b")), names[3:]))
			qt.Check(t, qt.HasLen(cuelabsAll(t, client.Repositories(t.Context(), "e")), 0))
			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Tags(t.Context(), "a", "b")), tags[2:]))
			qt.Check(t, qt.DeepEquals(cuelabsAll(t, client.Tags(t.Context(), "a", "bb")), tags[2:]))
			qt.Check(t, qt.HasLen(cuelabsAll(t, client.Tags(t.Context(), "a", "image")), 0))
		})
	}
}

// testCuelabsReferrers lists the referrers of an image.
func testCuelabsReferrers(t *testing.T) {
	c := contents()["artifact"]
	image := c.manifests[0]
	second, err := json.Marshal(ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageIndex,
		ArtifactType: "application/vnd.example.second",
		Manifests:    []ocispec.Descriptor{},
		Subject:      &image,
		Annotations:  map[string]string{"org.example.made-by": "hand"},
	})
	qt.Assert(t, qt.IsNil(err))
	for _, server := range []struct {
		name  string
		opts  []registry.Option
		size  int
		pages int // of the entire list
	}{
		{"single_page", nil, 0, 1},
		{"several_pages", []registry.Option{registry.WithLimits(registry.Limits{ReferrersBytes: 1})}, 1, 2},
	} {
		host, log := newRecordingServer(t, server.opts...)
		client := newCuelabs(t, host, server.size)
		c.seed(t, host, "test")
		_, err := client.PushManifest(t.Context(), "test", "", second, ocispec.MediaTypeImageIndex)
		qt.Assert(t, qt.IsNil(err))
		for _, test := range []struct {
			name, artifactType string
			want               map[string]string // annotation by type
		}{
			{"all", "", map[string]string{"application/vnd.cyclonedx+json": "berth", "application/vnd.example.second": "hand"}},
			{"type", "application/vnd.cyclonedx+json", map[string]string{"application/vnd.cyclonedx+json": "berth"}},
			{"type_of_index", "application/vnd.example.second", map[string]string{"application/vnd.example.second": "hand"}},
			{"another_type", "application/spdx+json", map[string]string{}},
		} {
			t.Run(server.name+"_"+test.name, func(t *testing.T) {
				log.reset()
				got := make(map[string]string)
				for _, d := range cuelabsAll(t, client.Referrers(t.Context(), "test", image.Digest, test.artifactType)) {
					got[d.ArtifactType] = d.Annotations["org.example.made-by"]
				}
				qt.Check(t, qt.DeepEquals(got, test.want))
				requests := log.find("GET", "/v2/test/referrers/", 200)
				applied := "artifactType"
				if test.artifactType == "" {
					applied = ""
					qt.Check(t, qt.HasLen(requests, server.pages))
				}
				for _, r := range requests {
					qt.Check(t, qt.Equals(r.respHeader.Get("OCI-Filters-Applied"), applied))
				}
			})
		}
		t.Run(server.name+"_none", func(t *testing.T) {
			qt.Check(t, qt.HasLen(cuelabsAll(t, client.Referrers(t.Context(), "missing", image.Digest, "")), 0))
		})
	}
}

// testCuelabsReferrersByTag uses a registry without the referrers API. The client
// then reads the list from a tag. It does not write that tag, so the test does.
func testCuelabsReferrersByTag(t *testing.T) {
	host := newServer(t, registry.WithReferrersSupport(false))
	client := newCuelabs(t, host, 0)
	c := contents()["artifact"]
	c.seed(t, host, "test")
	subject := c.manifests[0].Digest
	qt.Check(t, qt.HasLen(cuelabsAll(t, client.Referrers(t.Context(), "test", subject, "")), 0))

	referrer := c.root
	referrer.ArtifactType = "application/vnd.cyclonedx+json"
	list, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{referrer},
	})
	qt.Assert(t, qt.IsNil(err))
	tag := strings.Replace(subject.String(), ":", "-", 1)
	_, err = client.PushManifest(t.Context(), "test", tag, list, ocispec.MediaTypeImageIndex)
	qt.Assert(t, qt.IsNil(err))
	for artifactType, want := range map[string]int{"": 1, referrer.ArtifactType: 1, "application/spdx+json": 0} {
		qt.Check(t, qt.HasLen(cuelabsAll(t, client.Referrers(t.Context(), "test", subject, artifactType)), want))
	}
}

func testCuelabsDeletes(t *testing.T) {
	host := newServer(t)
	client := newCuelabs(t, host, 0)
	c := contents()["artifact"]
	c.seed(t, host, "test")
	root, subject, blob := c.root.Digest, c.manifests[0].Digest, c.blobs[0].Digest
	for _, tag := range []string{"one", "two"} {
		_, err := client.PushManifest(t.Context(), "test", tag, c.bytes[root], c.root.MediaType)
		qt.Assert(t, qt.IsNil(err))
	}

	// Deleting a tag keeps the manifest and its other tags.
	qt.Assert(t, qt.IsNil(client.DeleteTag(t.Context(), "test", "one")))
	_, err := client.GetTag(t.Context(), "test", "one")
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrManifestUnknown))
	_, err = client.ResolveTag(t.Context(), "test", "two")
	qt.Check(t, qt.IsNil(err))
	_, err = client.ResolveManifest(t.Context(), "test", root)
	qt.Check(t, qt.IsNil(err))

	// Deleting a manifest deletes its tags, and removes it from the referrers of
	// its subject.
	qt.Assert(t, qt.IsNil(client.DeleteManifest(t.Context(), "test", root)))
	_, err = client.GetManifest(t.Context(), "test", root)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrManifestUnknown))
	qt.Check(t, qt.HasLen(cuelabsAll(t, client.Tags(t.Context(), "test", "")), 0))
	qt.Check(t, qt.HasLen(cuelabsAll(t, client.Referrers(t.Context(), "test", subject, "")), 0))

	// Deleting a blob deletes it only in this repository.
	_, err = client.MountBlob(t.Context(), "test", "other", blob)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(client.DeleteBlob(t.Context(), "test", blob)))
	_, err = client.GetBlob(t.Context(), "test", blob)
	qt.Check(t, qt.ErrorIs(err, ociregistry.ErrBlobUnknown))
	qt.Check(t, qt.Equals(cuelabsBlob(t, client, "other", blob), string(c.bytes[blob])))

	// Deleting again fails.
	qt.Check(t, qt.ErrorIs(client.DeleteTag(t.Context(), "test", "one"), ociregistry.ErrManifestUnknown))
	qt.Check(t, qt.ErrorIs(client.DeleteManifest(t.Context(), "test", root), ociregistry.ErrManifestUnknown))
	qt.Check(t, qt.ErrorIs(client.DeleteBlob(t.Context(), "test", blob), ociregistry.ErrBlobUnknown))
	qt.Check(t, qt.ErrorIs(client.DeleteTag(t.Context(), "missing", "one"), ociregistry.ErrNameUnknown))
}

// testCuelabsErrors checks that the client recognizes the registry's errors by
// their codes.
func testCuelabsErrors(t *testing.T) {
	c := contents()["image"]
	data, none := []byte("data"), digest.FromString("none")
	d := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	reject := func(err error) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { registry.WriteError(w, r, err) })
		}
	}
	for _, test := range []struct {
		name       string
		opts       []registry.Option
		middleware func(http.Handler) http.Handler
		do         func(*testing.T, ociregistry.Interface) error
		want       error
	}{
		{name: "get_blob", want: ociregistry.ErrBlobUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.GetBlob(t.Context(), "test", none)
			return err
		}},
		{name: "get_manifest", want: ociregistry.ErrManifestUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.GetManifest(t.Context(), "test", none)
			return err
		}},
		{name: "get_tag", want: ociregistry.ErrManifestUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.GetTag(t.Context(), "test", "none")
			return err
		}},
		{name: "get_in_missing_repository", want: ociregistry.ErrNameUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.GetTag(t.Context(), "missing", "none")
			return err
		}},
		{name: "list_missing_repository", want: ociregistry.ErrNameUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			for _, err := range client.Tags(t.Context(), "missing", "") {
				return err
			}
			return nil
		}},
		// The response to a HEAD request has no body, so the client returns the
		// same error for each 404 (makeError1 in its error.go).
		{name: "resolve", want: ociregistry.ErrNameUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.ResolveBlob(t.Context(), "test", none)
			return err
		}},
		{name: "push_with_wrong_digest", want: ociregistry.ErrDigestInvalid, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.PushBlob(t.Context(), "test", ocispec.Descriptor{Digest: none, Size: d.Size}, bytes.NewReader(data))
			return err
		}},
		{name: "commit_with_wrong_digest", want: ociregistry.ErrDigestInvalid, do: func(t *testing.T, client ociregistry.Interface) error {
			w, err := client.PushBlobChunked(t.Context(), "test", 2)
			qt.Assert(t, qt.IsNil(err))
			_, err = w.Write(data)
			qt.Assert(t, qt.IsNil(err))
			_, err = w.Commit(none)
			return err
		}},
		{name: "missing_upload", want: ociregistry.ErrBlobUploadUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			w, err := client.PushBlobChunkedResume(t.Context(), "test", "/v2/test/blobs/uploads/none", 0, 2)
			qt.Assert(t, qt.IsNil(err))
			_, err = w.Write(data)
			return err
		}},
		{
			name: "blob_too_large", want: ociregistry.ErrSizeInvalid,
			opts: []registry.Option{registry.WithLimits(registry.Limits{BlobBytes: 3})},
			do: func(t *testing.T, client ociregistry.Interface) error {
				_, err := client.PushBlob(t.Context(), "test", d, bytes.NewReader(data))
				return err
			},
		},
		{
			name: "too_many_uploads", want: ociregistry.ErrTooManyRequests,
			opts: []registry.Option{registry.WithStore(&registry.MemStore{Limits: registry.MemLimits{Uploads: 1}})},
			do: func(t *testing.T, client ociregistry.Interface) error {
				_, err := client.PushBlobChunked(t.Context(), "test", 2)
				qt.Assert(t, qt.IsNil(err))
				_, err = client.PushBlobChunked(t.Context(), "test", 2)
				return err
			},
		},
		{name: "manifest_with_missing_blobs", want: ociregistry.ErrManifestBlobUnknown, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.PushManifest(t.Context(), "test", "tag", c.bytes[c.root.Digest], c.root.MediaType)
			return err
		}},
		{name: "invalid_manifest", want: ociregistry.ErrManifestInvalid, do: func(t *testing.T, client ociregistry.Interface) error {
			_, err := client.PushManifest(t.Context(), "test", "tag", data, c.root.MediaType)
			return err
		}},
		{
			name: "read_only", want: ociregistry.ErrUnsupported, opts: []registry.Option{registry.ReadOnly()},
			do: func(t *testing.T, client ociregistry.Interface) error {
				_, err := client.PushBlob(t.Context(), "test", d, bytes.NewReader(data))
				return err
			},
		},
		{
			name: "no_delete", want: ociregistry.ErrUnsupported, opts: []registry.Option{registry.NoDelete()},
			do: func(t *testing.T, client ociregistry.Interface) error {
				return client.DeleteBlob(t.Context(), "test", none)
			},
		},
		{
			name: "denied", want: ociregistry.ErrDenied, middleware: reject(registry.ErrDenied),
			do: func(t *testing.T, client ociregistry.Interface) error {
				_, err := client.GetBlob(t.Context(), "test", none)
				return err
			},
		},
		{
			name: "unauthorized_head", want: ociregistry.ErrUnauthorized, middleware: reject(registry.ErrUnauthorized),
			do: func(t *testing.T, client ociregistry.Interface) error {
				_, err := client.ResolveTag(t.Context(), "test", "tag")
				return err
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := registry.New(test.opts...)
			if test.middleware != nil {
				h = test.middleware(h)
			}
			s := httptest.NewServer(h)
			defer s.Close()
			host := strings.TrimPrefix(s.URL, "http://")
			client := newCuelabs(t, host, 0)
			if test.opts == nil && test.middleware == nil {
				// Create the repository.
				_, err := client.PushBlob(t.Context(), "test", d, bytes.NewReader(data))
				qt.Assert(t, qt.IsNil(err))
			}
			qt.Check(t, qt.ErrorIs(test.do(t, client), test.want))
		})
	}
}

// newCuelabs returns a client that requests pages of the given size, or of its
// default size if pageSize is 0.
func newCuelabs(t *testing.T, host string, pageSize int) ociregistry.Interface {
	t.Helper()
	client, err := ociclient.New(host, &ociclient.Options{Insecure: true, ListPageSize: pageSize})
	qt.Assert(t, qt.IsNil(err))
	return client
}

func cuelabsBlob(t *testing.T, client ociregistry.Interface, repo string, d digest.Digest) string {
	t.Helper()
	r, err := client.GetBlob(t.Context(), repo, d)
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	data, err := io.ReadAll(r)
	qt.Assert(t, qt.IsNil(err))
	return string(data)
}

func cuelabsAll[V any](t *testing.T, seq iter.Seq2[V, error]) []V {
	t.Helper()
	var all []V
	for v, err := range seq {
		qt.Assert(t, qt.IsNil(err))
		all = append(all, v)
	}
	return all
}
