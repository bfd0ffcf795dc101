// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
	"github.com/berth-oci/registry/seed"
)

func TestPushContent(t *testing.T) {
	s := new(registry.MemStore)
	const missing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	names, err := seed.PushContent(t.Context(), s, "repo", seed.Content{
		Blobs: map[string]string{
			"config": `{"os":"linux"}`,
			"layer":  "a layer",
			"large":  seed.Random(1, 100_000),
		},
		Manifests: map[string]seed.Manifest{
			// In alphabetical order, this index precedes its manifests.
			"all":       {Manifests: []string{"linux", "windows", "inner"}, Annotations: map[string]string{"k": "v"}},
			"inner":     {Manifests: []string{"linux"}},
			"empty":     {Manifests: []string{}},
			"linux":     {Config: "config", Layers: []string{"layer", "large"}, Platform: "linux/arm64/v8"},
			"windows":   {Config: "config", Layers: []string{"layer"}, Platform: "windows/amd64"},
			"signature": {ArtifactType: "application/vnd.example.signature", Subject: "all", Layers: []string{"layer"}, LayerType: "text/plain"},
			"dangling":  {ArtifactType: "application/vnd.example.x", Subject: missing, Layers: []string{missing}},
			"docker":    {MediaType: "application/vnd.docker.distribution.manifest.v2+json", Config: "config", Layers: []string{"layer"}},
		},
		Tags: map[string]string{"latest": "all", "also": "all", "v1": "linux"},
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(names, 3+8))

	all, err := s.GetTag(t.Context(), "repo", "latest")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(all.Digest, names["all"].Digest))
	var index ocispec.Index
	qt.Assert(t, qt.IsNil(json.Unmarshal(all.Content, &index)))
	qt.Assert(t, qt.HasLen(index.Manifests, 3))
	qt.Assert(t, qt.DeepEquals(index.Manifests[0], names["linux"]))
	qt.Assert(t, qt.DeepEquals(index.Manifests[0].Platform, &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}))
	qt.Assert(t, qt.Equals(index.Manifests[2].MediaType, ocispec.MediaTypeImageIndex))

	docker, err := s.GetManifest(t.Context(), "repo", names["docker"].Digest)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.StringContains(string(docker.Content), "application/vnd.docker.image.rootfs.diff.tar"))
	large, err := s.OpenBlob(t.Context(), "repo", names["large"].Digest)
	qt.Assert(t, qt.IsNil(err))
	defer large.Close()
	data, err := io.ReadAll(large)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(data), seed.Random(1, 100_000)))

	var referrers []digest.Digest
	for _, subject := range []digest.Digest{names["all"].Digest, missing} {
		for d, err := range s.Referrers(t.Context(), "repo", subject, "") {
			qt.Assert(t, qt.IsNil(err))
			referrers = append(referrers, d.Digest)
		}
	}
	qt.Assert(t, qt.DeepEquals(referrers, []digest.Digest{names["signature"].Digest, names["dangling"].Digest}))
}

func TestPushContentErrors(t *testing.T) {
	type manifests = map[string]seed.Manifest
	for _, test := range []struct {
		name    string
		content seed.Content
		want    string
	}{
		{"unknown_layer", seed.Content{Manifests: manifests{"a": {Layers: []string{"x"}}}}, `manifest "a": seed: undefined blob "x"`},
		{"unknown_config", seed.Content{Manifests: manifests{"a": {Config: "x"}}}, `manifest "a": seed: undefined blob "x"`},
		{"manifest_as_layer", seed.Content{Manifests: manifests{"a": {}, "b": {Layers: []string{"a"}}}}, `manifest "b": seed: undefined blob "a"`},
		{"unknown_child", seed.Content{Manifests: manifests{"a": {Manifests: []string{"x"}}}}, `manifest "a": manifest "x": seed: undefined name`},
		{"unknown_subject", seed.Content{Manifests: manifests{"a": {Subject: "x"}}}, `manifest "a": manifest "x": seed: undefined name`},
		{"cycle", seed.Content{Manifests: manifests{"a": {Manifests: []string{"b"}}, "b": {Subject: "a"}}}, `.*: seed: it refers to itself: \["a" "b" "a"\]`},
		{"duplicate_name", seed.Content{Blobs: map[string]string{"a": ""}, Manifests: manifests{"a": {}}}, `seed: "a" is both a blob and a manifest`},
		{"tag_of_undefined_name", seed.Content{Tags: map[string]string{"t": "x"}}, `seed: tag "t": "x" is not a manifest`},
		{"tag_of_blob", seed.Content{Blobs: map[string]string{"a": ""}, Tags: map[string]string{"t": "a"}}, `seed: tag "t": "a" is not a manifest`},
		{"malformed_tag", seed.Content{Manifests: manifests{"a": {}}, Tags: map[string]string{"t!": "a"}}, `tag "t!": invalid repository name: malformed tag`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := seed.PushContent(t.Context(), new(registry.MemStore), "repo", test.content)
			qt.Assert(t, qt.ErrorMatches(err, test.want))
		})
	}
	_, err := seed.PushContent(t.Context(), new(registry.MemStore), "Repo", seed.Content{Blobs: map[string]string{"a": ""}})
	qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameInvalid)))
	_, err = seed.PushContent(t.Context(), new(registry.MemStore), "Repo", seed.Content{Manifests: manifests{"a": {}}})
	qt.Assert(t, qt.ErrorIs(err, error(registry.ErrNameInvalid)))
}

// file is an entry of a tar archive.
type file struct {
	name, data, link string
	kind             byte
}

func archive(files ...file) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if f.kind == 0 {
			f.kind = tar.TypeReg
		}
		w.WriteHeader(&tar.Header{Name: f.name, Typeflag: f.kind, Size: int64(len(f.data)), Linkname: f.link, Mode: 0o644})
		io.WriteString(w, f.data)
	}
	w.Close()
	return &b
}

func TestPushDockerArchive(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	io.WriteString(z, "zipped layer")
	z.Close()
	s := new(registry.MemStore)
	all, err := seed.PushDockerArchive(t.Context(), s, "repo", archive(
		file{name: "one/", kind: tar.TypeDir},
		file{name: "one/layer.tar", data: "layer one"},
		file{name: "two/layer.tar", kind: tar.TypeSymlink, link: "../one/layer.tar"},
		file{name: "three/layer.tar", kind: tar.TypeLink, link: "two/layer.tar"},
		file{name: "blobs/sha256/abc", data: zipped.String()},
		file{name: "config.json", data: `{"os":"linux"}`},
		file{name: "manifest.json", data: `[
			{"Config":"config.json","RepoTags":["alpine:3","localhost:5000/alpine:latest"],"Layers":["one/layer.tar","two/layer.tar","three/layer.tar","blobs/sha256/abc"]},
			{"Config":"config.json","RepoTags":null,"Layers":[]}]`},
	))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(all, 2))
	m, err := s.GetTag(t.Context(), "repo", "latest")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(m.Digest, all[0].Digest))
	var doc ocispec.Manifest
	qt.Assert(t, qt.IsNil(json.Unmarshal(m.Content, &doc)))
	qt.Assert(t, qt.Equals(doc.SchemaVersion, 2))
	one := digest.FromString("layer one")
	qt.Assert(t, qt.HasLen(doc.Layers, 4))
	for i, want := range []digest.Digest{one, one, one, digest.FromBytes(zipped.Bytes())} {
		qt.Assert(t, qt.Equals(doc.Layers[i].Digest, want))
	}
	qt.Assert(t, qt.Equals(doc.Layers[0].MediaType, "application/vnd.docker.image.rootfs.diff.tar"))
	qt.Assert(t, qt.Equals(doc.Layers[3].MediaType, "application/vnd.docker.image.rootfs.diff.tar.gzip"))

	for want, files := range map[string][]file{
		"seed: no manifest.json in the archive": {},
		"manifest.json: .*":                     {{name: "manifest.json", data: "x"}},
		"seed: no c in the archive":             {{name: "manifest.json", data: `[{"Config":"c"}]`}},
		"seed: no l in the archive":             {{name: "manifest.json", data: `[{"Config":"c","Layers":["l"]}]`}, {name: "c"}, {name: "l", kind: tar.TypeSymlink, link: "l"}},
	} {
		_, err := seed.PushDockerArchive(t.Context(), s, "repo", archive(files...))
		qt.Assert(t, qt.ErrorMatches(err, want))
	}
	_, err = seed.PushDockerArchive(t.Context(), s, "repo", strings.NewReader("not a tar archive, but longer than a header: "+strings.Repeat("x", 512)))
	qt.Assert(t, qt.ErrorIs(err, tar.ErrHeader))
}

// image is an Image whose methods return the given errors.
type image struct {
	manifest  string
	layers    []layer
	err       error // of RawManifest
	configErr error
}

// layer is a Layer.
type layer struct {
	data string
	err  error
}

func (l layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(l.data)), l.err
}

func (i image) RawManifest() ([]byte, error)   { return []byte(i.manifest), i.err }
func (i image) RawConfigFile() ([]byte, error) { return []byte("{}"), i.configErr }
func (i image) Layers() ([]layer, error)       { return i.layers, nil }

// index is an Index with one image.
type index struct {
	manifest string
	image    image
	err      error
}

type hash struct{ Algorithm, Hex string }

func (i index) RawManifest() ([]byte, error)   { return []byte(i.manifest), i.err }
func (i index) Image(hash) (image, error)      { return i.image, nil }
func (i index) ImageIndex(hash) (index, error) { return index{err: errors.New("no index")}, nil }

func TestPushImage(t *testing.T) {
	failed := errors.New("failed")
	d := digest.FromString("layer")
	manifest := fmt.Sprintf(`{"config":{"digest":"%s"},"layers":[{"digest":"%s"}]}`, digest.FromString("{}"), d)
	for _, test := range []struct {
		name  string
		image image
		want  string // "" for no error
	}{
		{"complete", image{manifest: manifest, layers: []layer{{data: "layer"}}}, ""},
		{"no_manifest", image{err: failed}, "failed"},
		{"not_JSON", image{manifest: "x"}, "invalid character .*"},
		{"no_config", image{manifest: manifest, configErr: failed}, "failed"},
		{"no_layer", image{manifest: manifest}, "seed: the image has 0 layers, its manifest 1"},
		{"no_content", image{manifest: manifest, layers: []layer{{err: failed}}}, "layer 0: failed"},
		{"wrong_content", image{manifest: manifest, layers: []layer{{data: "other"}}}, "layer 0: provided digest did not match uploaded content"},
		{"wrong_config", image{manifest: strings.ReplaceAll(manifest, digest.FromString("{}").String(), d.String())}, "config: provided digest did not match uploaded content"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := new(registry.MemStore)
			checkError := func(err error, prefix string) {
				t.Helper()
				if test.want == "" {
					qt.Assert(t, qt.IsNil(err))
					return
				}
				qt.Assert(t, qt.ErrorMatches(err, prefix+test.want))
			}
			_, err := seed.PushImage(t.Context(), s, "repo", "tag", test.image)
			checkError(err, "")
			child := digest.FromString(test.image.manifest)
			list := fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":"%s"}]}`, ocispec.MediaTypeImageManifest, child)
			_, err = seed.PushIndex(t.Context(), s, "repo", "list", index{manifest: list, image: test.image})
			checkError(err, child.String()+": ")
			if test.want == "" {
				m, err := s.GetTag(t.Context(), "repo", "list")
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(m.MediaType, ocispec.MediaTypeImageIndex))
			}
		})
	}
	for want, i := range map[string]index{
		"failed":                {err: failed},
		"invalid character .*":  {manifest: "x"},
		"sha256:.*: no index":   {manifest: fmt.Sprintf(`{"manifests":[{"mediaType":%q,"digest":"%s"}]}`, ocispec.MediaTypeImageIndex, d)},
		"manifest references.*": {manifest: fmt.Sprintf(`{"manifests":[{"mediaType":"application/vnd.docker.distribution.manifest.v1+json","digest":"%s"}]}`, d)},
	} {
		_, err := seed.PushIndex(t.Context(), new(registry.MemStore), "repo", "", i)
		qt.Assert(t, qt.ErrorMatches(err, want))
	}
}

func TestNamespaces(t *testing.T) {
	named := func(name string) http.Handler {
		s := new(registry.MemStore)
		_, err := registry.PushManifest(t.Context(), s, "repo", registry.ManifestPush{MediaType: "text/plain", Content: []byte(name), Tags: []string{"latest"}})
		qt.Assert(t, qt.IsNil(err))
		return registry.New(registry.WithStore(s))
	}
	h := registrytest.Namespaces(map[string]http.Handler{"docker.io": named("docker"), "ghcr.io": named("github"), "local:5000": named("local")})
	client := &http.Client{Transport: registrytest.Transport(h)}
	for url, want := range map[string]string{
		"http://mirror/v2/repo/manifests/latest?ns=docker.io":    "docker",
		"http://mirror/v2/repo/manifests/latest?ns=ghcr.io":      "github",
		"http://ghcr.io/v2/repo/manifests/latest?ns=docker.io":   "docker",
		"https://ghcr.io/v2/repo/manifests/latest":               "github",
		"https://ghcr.io:443/v2/repo/manifests/latest":           "github",
		"http://local:5000/v2/repo/manifests/latest":             "local",
		"http://local:5001/v2/repo/manifests/latest":             "",
		"http://mirror/v2/repo/manifests/latest":                 "",
		"http://docker.io/v2/repo/manifests/latest?ns=elsewhere": "",
	} {
		resp, err := client.Get(url)
		qt.Assert(t, qt.IsNil(err))
		body, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		if want == "" {
			qt.Check(t, qt.Equals(resp.StatusCode, 404), qt.Commentf("%s", url))
			qt.Check(t, qt.StringContains(string(body), "NAME_UNKNOWN"))
			continue
		}
		qt.Check(t, qt.Equals(string(body), want), qt.Commentf("%s", url))
		qt.Check(t, qt.Equals(resp.Header.Get("OCI-Namespace"), resp.Request.URL.Query().Get("ns")))
	}
}

func TestPushRandomImage(t *testing.T) {
	store := new(registry.MemStore)
	a, err := seed.PushRandomImage(t.Context(), store, "repo", "a", 1, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	again, err := seed.PushRandomImage(t.Context(), store, "other", "", 1, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	b, err := seed.PushRandomImage(t.Context(), store, "repo", "b", 2, 3, 1000)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(a.Digest, again.Digest))
	qt.Check(t, qt.Not(qt.Equals(a.Digest, b.Digest)))
	got, err := store.GetTag(t.Context(), "repo", "a")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(got.Digest, a.Digest))
	_, err = seed.PushRandomImage(t.Context(), store, "UPPER", "a", 1, 1, 1)
	qt.Check(t, qt.ErrorIs(err, error(registry.ErrNameInvalid)))
}
