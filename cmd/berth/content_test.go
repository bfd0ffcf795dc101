// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
	"github.com/berth-oci/registry/seed"
)

// layer returns a tar file with one file.
func layer(content string) string {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	t.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))})
	t.Write([]byte(content))
	t.Close()
	return b.String()
}

// config returns the configuration of an image with one layer.
func config(arch, layer string) string {
	return fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%q]}}`, arch, digest.FromString(layer))
}

// pushImages fills a store with two repositories: app, with an index of two platforms
// that has a signature, and one of the platforms a list of its parts; and tools/cli.
func pushImages(ctx context.Context, s registry.Store) error {
	amd, arm := layer("amd64"), layer("arm64")
	_, err := seed.PushContent(ctx, s, "app", seed.Content{
		Blobs: map[string]string{"amd-config": config("amd64", amd), "arm-config": config("arm64", arm), "amd-layer": amd, "arm-layer": arm, "signature": "signed"},
		Manifests: map[string]seed.Manifest{
			"amd":   {Config: "amd-config", Layers: []string{"amd-layer"}, Platform: "linux/amd64"},
			"arm":   {Config: "arm-config", Layers: []string{"arm-layer"}, Platform: "linux/arm64"},
			"index": {Manifests: []string{"amd", "arm"}},
			"sig":   {ArtifactType: "example/signature", Layers: []string{"signature"}, Subject: "index"},
			"sbom":  {ArtifactType: "example/sbom", Subject: "arm"},
		},
		Tags: map[string]string{"v1": "index", "latest": "index", "amd": "amd"},
	})
	if err != nil {
		return err
	}
	_, err = seed.PushContent(ctx, s, "tools/cli", seed.Content{
		Blobs:     map[string]string{"config": config("amd64", amd), "layer": amd},
		Manifests: map[string]seed.Manifest{"image": {Config: "config", Layers: []string{"layer"}}},
		Tags:      map[string]string{"1.0": "image"},
	})
	return err
}

func imagesScript(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: images DIR")
	}
	s, err := ocidir.Open(ts.MkAbs(args[0]), nil)
	ts.Check(err)
	ts.Check(pushImages(context.Background(), s))
	ts.Check(s.Close())
}
