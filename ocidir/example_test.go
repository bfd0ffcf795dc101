// SPDX-License-Identifier: Apache-2.0

package ocidir_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"testing/fstest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/ocidir"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	store, err := ocidir.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(registry.New(registry.WithStore(store)))
	if _, err := registry.PushManifest(ctx, store, "a/b", registry.ManifestPush{Content: []byte("{}"), Tags: []string{"tag"}}); err != nil {
		panic(err)
	}
	server.Close()
	store.Close()

	// The next process finds the content.
	store, err = ocidir.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	defer store.Close()
	m, err := store.GetTag(ctx, "a/b", "tag")
	fmt.Println(string(m.Content), err)
	// Output: {} <nil>
}

func ExampleFS() {
	layout := fstest.MapFS{ // or an embed.FS, a zip file, os.DirFS
		"images/index.json": {Data: []byte(`{"schemaVersion":2,"manifests":[]}`)},
		"images/oci-layout": {Data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
	}
	store := ocidir.FS(layout)
	server := httptest.NewServer(registry.New(registry.WithStore(store), registry.ReadOnly()))
	defer server.Close()
	for name, err := range store.Repositories(context.Background(), "") {
		fmt.Println(name, err)
	}
	// Output: images <nil>
}
