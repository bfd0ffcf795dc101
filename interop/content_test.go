// SPDX-License-Identifier: Apache-2.0

// The content that clients push and pull. It is made from real files, once for
// all tests.

package interop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/registrytest"
)

// Media types of Docker schema 2.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// content is a root manifest and everything that must be pushed with it.
type content struct {
	name string
	root ocispec.Descriptor
	// manifests holds all manifests in an order in which they can be pushed:
	// each follows those that it names, and the root is last.
	manifests []ocispec.Descriptor
	blobs     []ocispec.Descriptor
	bytes     map[digest.Digest][]byte
}

// contents returns the content that each client pushes and pulls, by name:
//
//	image        an image with a layer of real files
//	index        an index of three platforms, each with a layer of its own
//	docker       the same image as Docker schema 2
//	docker-list  the same index as a Docker manifest list
//	artifact     an artifact and its subject, the image
//	sha512       an artifact whose layer has a SHA-512 digest
//	empty-layer  an image with a layer of zero bytes
//	large        an image with a layer of 200 MB
var contents = sync.OnceValue(func() map[string]*content {
	all := make(map[string]*content)
	add := func(c *content) { all[c.name] = c }

	image := newContent("image")
	image.root = image.addImage("linux/amd64", sourceLayer("net/http"), false)
	add(image)

	platforms := map[string]string{"linux/amd64": "net/http", "linux/arm64": "net/url", "windows/amd64": "net/textproto"}
	index := newContent("index")
	index.root = index.addIndex(platforms, false)
	add(index)

	docker := newContent("docker")
	docker.root = docker.addImage("linux/amd64", sourceLayer("net/http"), true)
	add(docker)

	list := newContent("docker-list")
	list.root = list.addIndex(platforms, true)
	add(list)

	artifact := newContent("artifact")
	subject := artifact.addImage("linux/amd64", sourceLayer("net/http"), false)
	artifact.root = artifact.addArtifact(digest.SHA256, []byte(`{"bomFormat":"CycloneDX"}`), &subject)
	add(artifact)

	sha512 := newContent("sha512")
	sha512.root = sha512.addArtifact(digest.SHA512, []byte("named by its SHA-512 digest"), nil)
	add(sha512)

	empty := newContent("empty-layer")
	empty.root = empty.addImage("linux/amd64", layer{}, false)
	add(empty)

	large := newContent("large")
	random := make([]byte, 200_000_000)
	rand.NewChaCha8([32]byte{1}).Read(random)
	// Compressing random bytes would only cost time.
	var zipped bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&zipped, gzip.NoCompression)
	tarred := makeTar(map[string][]byte{"random": random})
	zw.Write(tarred)
	zw.Close()
	large.root = large.addImage("linux/amd64", layer{zipped.Bytes(), digest.FromBytes(tarred)}, false)
	add(large)
	return all
})

func newContent(name string) *content {
	return &content{name: name, bytes: make(map[digest.Digest][]byte)}
}

// addBlob adds a blob.
func (c *content) addBlob(mediaType string, algorithm digest.Algorithm, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: algorithm.FromBytes(data), Size: int64(len(data))}
	if _, ok := c.bytes[d.Digest]; !ok {
		c.bytes[d.Digest] = data
		c.blobs = append(c.blobs, d)
	}
	return d
}

// addManifest adds a manifest.
func (c *content) addManifest(mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if _, ok := c.bytes[d.Digest]; !ok {
		c.bytes[d.Digest] = data
		c.manifests = append(c.manifests, d)
	}
	return d
}

// layer is a layer of an image. It is not compressed if diffID is empty.
type layer struct {
	data   []byte
	diffID digest.Digest // of the uncompressed layer
}

func (c *content) addImage(platform string, l layer, docker bool) ocispec.Descriptor {
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	if docker {
		manifestType, configType, layerType = dockerManifest, dockerConfig, dockerLayer
	}
	if l.diffID == "" {
		l.diffID = digest.FromBytes(l.data)
		if !docker {
			layerType = ocispec.MediaTypeImageLayer
		}
	}
	os, arch, _ := strings.Cut(platform, "/")
	config, _ := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: os, Architecture: arch},
		Config:   ocispec.ImageConfig{Cmd: []string{"/hello"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.diffID}},
		History:  []ocispec.History{{CreatedBy: "berth"}},
	})
	return c.addManifest(manifestType, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: manifestType,
		Config:    c.addBlob(configType, digest.SHA256, config),
		Layers:    []ocispec.Descriptor{c.addBlob(layerType, digest.SHA256, l.data)},
	})
}

func (c *content) addIndex(platforms map[string]string, docker bool) ocispec.Descriptor {
	mediaType := ocispec.MediaTypeImageIndex
	if docker {
		mediaType = dockerList
	}
	var children []ocispec.Descriptor
	for _, platform := range slices.Sorted(maps.Keys(platforms)) {
		d := c.addImage(platform, sourceLayer(platforms[platform]), docker)
		os, arch, _ := strings.Cut(platform, "/")
		d.Platform = &ocispec.Platform{OS: os, Architecture: arch}
		children = append(children, d)
	}
	return c.addManifest(mediaType, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: mediaType,
		Manifests: children,
	})
}

func (c *content) addArtifact(algorithm digest.Algorithm, data []byte, subject *ocispec.Descriptor) ocispec.Descriptor {
	return c.addManifest(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.cyclonedx+json",
		Config:       c.addBlob(ocispec.MediaTypeEmptyJSON, digest.SHA256, []byte("{}")),
		Layers:       []ocispec.Descriptor{c.addBlob("application/vnd.cyclonedx+json", algorithm, data)},
		Subject:      subject,
		Annotations:  map[string]string{"org.example.made-by": "berth"},
	})
}

// sourceLayer returns a layer that holds the files of a package of Go's standard
// library.
func sourceLayer(pkg string) layer {
	files := make(map[string][]byte)
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", pkg)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(filepath.Join("usr/src", pkg, name))], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		panic(err)
	}
	tarred := makeTar(files)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	zw.Write(tarred)
	zw.Close()
	return layer{zipped.Bytes(), digest.FromBytes(tarred)}
}

func makeTar(files map[string][]byte) []byte {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(files[name]))})
		tw.Write(files[name])
	}
	tw.Close()
	return buf.Bytes()
}

// writeLayout writes c to a new OCI image layout, in which c's name is the tag of
// the root, and returns the layout's directory.
func (c *content) writeLayout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, data []byte) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for d, data := range c.bytes {
		write(filepath.Join("blobs", d.Algorithm().String(), d.Encoded()), data)
	}
	root := c.root
	root.Annotations = map[string]string{ocispec.AnnotationRefName: c.name}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{root},
	})
	if err != nil {
		t.Fatal(err)
	}
	write(ocispec.ImageIndexFile, index)
	write(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

// checkLayout checks that the OCI image layout in dir holds all of c, byte for
// byte.
func (c *content) checkLayout(t *testing.T, dir string) {
	t.Helper()
	for d, want := range c.bytes {
		got, err := os.ReadFile(filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()))
		if err != nil {
			t.Error(err)
		} else if sha256.Sum256(got) != sha256.Sum256(want) {
			t.Errorf("%s: %s differs", c.name, d)
		}
	}
}

// newServer starts a registry, which stops when the test ends, and returns its
// host:port.
func newServer(t *testing.T, opts ...registry.Option) string {
	t.Helper()
	h := newRegistry(t, opts...)
	if *lint {
		j, direct := new(registrytest.Journal), h
		recorded := j.Handler(h)
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.UserAgent() == testAgent {
				direct.ServeHTTP(w, r)
				return
			}
			recorded.ServeHTTP(w, r)
		})
		t.Cleanup(func() {
			for _, f := range j.Lint() {
				t.Logf("lint: %s %s: %s (%s)", f.Entry.Op, f.Entry.ContentRange, f.Text, f.Section)
			}
		})
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// testAgent is the User-Agent of the tests' own requests, which are not linted.
const testAgent = "berth-interop"

// lint makes the tests log requests in which clients violate the spec.
var lint = flag.Bool("lint", false, "log requests in which clients violate the spec")

// checkServed checks over plain HTTP that repo on host serves all of c, byte for
// byte, and the root under a tag with c's name.
func (c *content) checkServed(t *testing.T, host, repo string) {
	t.Helper()
	get := func(path string, want ocispec.Descriptor, isManifest bool) {
		t.Helper()
		req, err := http.NewRequest("GET", fmt.Sprintf("http://%s/v2/%s/%s", host, repo, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", testAgent)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		v := want.Digest.Verifier()
		var body bytes.Buffer
		if _, err := body.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		v.Write(body.Bytes())
		switch {
		case resp.StatusCode != 200:
			t.Errorf("%s: GET %s: %s %s", c.name, path, resp.Status, body.Bytes())
		case !v.Verified():
			t.Errorf("%s: GET %s: wrong content", c.name, path)
		case isManifest && resp.Header.Get("Content-Type") != want.MediaType:
			t.Errorf("%s: GET %s: type %q, want %q", c.name, path, resp.Header.Get("Content-Type"), want.MediaType)
		}
	}
	for _, d := range c.blobs {
		get("blobs/"+d.Digest.String(), d, false)
	}
	for _, d := range c.manifests {
		get("manifests/"+d.Digest.String(), d, true)
	}
	get("manifests/"+c.name, c.root, true)
}

// seed pushes all of c to repo on host over plain HTTP, so that a client can pull
// it.
func (c *content) seed(t *testing.T, host, repo string) {
	t.Helper()
	send := func(method, path, mediaType string, data []byte) {
		t.Helper()
		req, err := http.NewRequest(method, fmt.Sprintf("http://%s/v2/%s/%s", host, repo, path), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		req.Header.Set("User-Agent", testAgent)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 201 {
			t.Fatalf("%s %s: %s", method, path, resp.Status)
		}
	}
	for _, d := range c.blobs {
		send("POST", "blobs/uploads/?digest="+d.Digest.String(), "application/octet-stream", c.bytes[d.Digest])
	}
	for _, d := range c.manifests {
		send("PUT", "manifests/"+d.Digest.String(), d.MediaType, c.bytes[d.Digest])
	}
	send("PUT", "manifests/"+c.name, c.root.MediaType, c.bytes[c.root.Digest])
}

// TestContents checks the content itself, without a client.
func TestContents(t *testing.T) {
	host := newServer(t)
	for name, c := range contents() {
		c.seed(t, host, "test/"+name)
		c.checkServed(t, host, "test/"+name)
		if !testing.Short() {
			c.checkLayout(t, c.writeLayout(t))
		}
	}
}
