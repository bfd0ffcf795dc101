// SPDX-License-Identifier: Apache-2.0

package seed_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"testing/fstest"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/seed"
)

// Content refers to blobs and manifests by name; PushContent computes the digests.
func ExamplePushContent() {
	store := new(registry.MemStore)
	names, err := seed.PushContent(context.Background(), store, "repo", seed.Content{
		Blobs: map[string]string{
			"config": `{"os":"linux","architecture":"arm64"}`,
			"layer":  seed.Random(1, 1<<20),
		},
		Manifests: map[string]seed.Manifest{
			"arm":       {Config: "config", Layers: []string{"layer"}, Platform: "linux/arm64"},
			"all":       {Manifests: []string{"arm"}},
			"signature": {Subject: "all", ArtifactType: "application/vnd.example.signature"},
		},
		Tags: map[string]string{"latest": "all"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for d, err := range store.Referrers(context.Background(), "repo", names["all"].Digest, "") {
		fmt.Println(d.ArtifactType, d.Digest == names["signature"].Digest, err)
	}
	// Output: application/vnd.example.signature true <nil>
}

func ExamplePushLayout() {
	// Any fs.FS works: os.DirFS, an embed.FS, the reader of a zip file.
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	d := digest.FromString(manifest)
	layout := fstest.MapFS{
		"oci-layout":                  {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		"index.json":                  {Data: fmt.Appendf(nil, `{"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"%s","size":%d,"annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`, d, len(manifest))},
		"blobs/sha256/" + d.Encoded(): {Data: []byte(manifest)},
	}
	store := new(registry.MemStore)
	if err := seed.PushLayout(context.Background(), store, "repo", layout); err != nil {
		fmt.Println(err)
		return
	}
	m, err := store.GetTag(context.Background(), "repo", "v1")
	fmt.Println(m.Digest == d, err)
	// Output: true <nil>
}

func ExamplePushDockerArchive() {
	// A minimal version of what "docker save alpine:3" writes.
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, content := range map[string]string{
		"manifest.json": `[{"Config":"config.json","RepoTags":["alpine:3"],"Layers":["layer.tar"]}]`,
		"config.json":   `{"os":"linux"}`,
		"layer.tar":     "files",
	} {
		w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o644})
		io.WriteString(w, content)
	}
	w.Close()

	images, err := seed.PushDockerArchive(context.Background(), new(registry.MemStore), "my/alpine", &archive)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(images), images[0].MediaType)
	// Output: 1 application/vnd.docker.distribution.manifest.v2+json
}

// PushImage accepts images of go-containerregistry; this one has the same methods.
func ExamplePushImage() {
	config, files := "{}", "files"
	img := image{
		manifest: fmt.Sprintf(`{"config":{"digest":"%s"},"layers":[{"digest":"%s"}]}`, digest.FromString(config), digest.FromString(files)),
		layers:   []layer{{data: files}},
	}
	m, err := seed.PushImage(context.Background(), new(registry.MemStore), "repo", "latest", img)
	fmt.Println(m.MediaType, err)
	// Output: application/vnd.oci.image.manifest.v1+json <nil>
}

func ExamplePushIndex() {
	idx := index{manifest: `{"manifests":[]}`} // or a v1.ImageIndex of go-containerregistry
	m, err := seed.PushIndex(context.Background(), new(registry.MemStore), "repo", "latest", idx)
	fmt.Println(m.MediaType, err)
	// Output: application/vnd.oci.image.index.v1+json <nil>
}

func ExampleRandom() {
	first, again := seed.Random(1, 1000), seed.Random(1, 1000)
	fmt.Println(len(first), first == again)
	// Output: 1000 true
}

// Tests can seed a store once and fork it for each of them.
func ExamplePushRandomImage() {
	ctx := context.Background()
	store := new(registry.MemStore)
	if _, err := seed.PushRandomImage(ctx, store, "my/repo", "latest", 1, 2, 1000); err != nil {
		fmt.Println(err)
		return
	}
	fork := store.Clone()
	fmt.Println(fork.DeleteTag(ctx, "my/repo", "latest", nil))
	m, err := store.GetTag(ctx, "my/repo", "latest")
	fmt.Println(m.MediaType, err)
	// Output:
	// <nil>
	// application/vnd.oci.image.manifest.v1+json <nil>
}
