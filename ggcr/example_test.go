// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	registry "github.com/berth-oci/registry/ggcr"
)

func Example() {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(os.Stdout, "", 0))))
	defer s.Close()

	resp, err := http.Get(s.URL + "/v2/app/manifests/latest")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	fmt.Println(resp.Status)
	// Output:
	// GET /v2/app/manifests/latest 404 NAME_UNKNOWN repository name not known to registry
	// 404 Not Found
}

// files serves blobs, and accepts none. Its methods could take
// go-containerregistry's v1.Hash instead of registry.Hash.
type files map[string]string

func (f files) Get(_ context.Context, _ string, h registry.Hash) (io.ReadCloser, error) {
	content, ok := f[h.Hex]
	if !ok {
		return nil, registry.ErrNotFound
	}
	return io.NopCloser(strings.NewReader(content)), nil
}

func ExampleWithBlobHandler() {
	handler := files{"2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824": "hello"}
	s := httptest.NewServer(registry.New(
		registry.WithBlobHandler(handler),
		registry.Logger(log.New(io.Discard, "", 0)),
	))
	defer s.Close()

	resp, err := http.Get(s.URL + "/v2/any/blobs/sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	fmt.Println(resp.Status, string(content), err)
	// Output: 200 OK hello <nil>
}
