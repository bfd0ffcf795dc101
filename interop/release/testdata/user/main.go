// SPDX-License-Identifier: Apache-2.0

// A program that uses the root module and the module bucket.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/bucket"
)

func main() {
	dir, err := os.MkdirTemp("", "bucket")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := bucket.Open(context.Background(), "file://"+dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	server := httptest.NewServer(registry.New(registry.WithStore(store)))
	defer server.Close()

	const digestOfHello = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
	resp, err := http.Post(server.URL+"/v2/app/blobs/uploads/?digest="+digestOfHello, "application/octet-stream", strings.NewReader("hello"))
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
}
