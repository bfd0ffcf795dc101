// SPDX-License-Identifier: Apache-2.0

package inspect_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry"
	"github.com/berth-oci/registry/inspect"
)

// A page beside a registry: a browser that opens the server's URL sees it.
func ExampleNew() {
	store := new(registry.MemStore)
	page := inspect.New(store, inspect.Options{})
	defer page.Close()
	server := httptest.NewServer(page.Handler(registry.New(registry.WithStore(store))))
	defer server.Close()

	const text = "hello, registry"
	d := digest.FromString(text)
	resp, err := http.Post(server.URL+"/v2/my/repo/blobs/uploads/?digest="+d.String(), "application/octet-stream", strings.NewReader(text))
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()

	resp, err = http.Get(server.URL + "/inspect/api/usage?repo=my/repo")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s: %s", resp.Status, body)
	// Output:
	// 200 OK: {"blobs":1,"manifests":0,"bytes":15}
}
